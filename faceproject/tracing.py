"""OpenTelemetry traces: a span for each request, and one for each step of its work.

Optional: the packages are those of `requirements-tracing.txt`. A span has the route, never the path, and no
address, account, id or message of an error: what of people is not in the log is not in a trace either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from recognition import instrumentation
from recognition.api.request_id import current_request_id

if TYPE_CHECKING:
    from django.http import HttpRequest
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

Finish = Callable[[str, str, int], None]  # called with method, route and status of the answer

# An exception's message and traceback could name a person.
_BARE: Final[dict[str, Any]] = {"record_exception": False, "set_status_on_exception": False}

_tracer: Tracer | None = None


def is_installed() -> bool:
    return bool(find_spec("opentelemetry") and find_spec("opentelemetry.exporter.otlp.proto.http"))


def start_tracing() -> None:
    """Send spans to `OTEL_EXPORTER_OTLP_ENDPOINT` from a thread of their own, if it is set."""
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT or _tracer is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = Resource.create({"service.name": "faces", "service.version": settings.VERSION})
    provider = TracerProvider(resource=about)
    address = f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    trace_to(provider)


def trace_to(provider: TracerProvider | None) -> None:
    """Make spans with `provider` from now on; None: make none."""
    global _tracer
    _tracer = provider.get_tracer("faceproject") if provider else None
    instrumentation.open_span = _open_step if provider else instrumentation.open_no_span


@contextmanager
def request_span(request: HttpRequest) -> Iterator[Finish]:
    """Make a span of the request, within the caller's trace if it names one (`traceparent`)."""
    if _tracer is None:
        yield lambda method, route, status: None
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # Names in lower case, as the propagator asks for them.
    given = {name.lower(): value for name, value in request.headers.items()}
    caller = TraceContextTextMapPropagator().extract(given)
    with _tracer.start_as_current_span(
        "request", context=caller, kind=SpanKind.SERVER, **_BARE
    ) as span:

        def finish(method: str, route: str, status: int) -> None:
            span.update_name(f"{method} {route}")
            span.set_attributes(
                {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                    "request_id": current_request_id(),
                }
            )
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))

        yield finish


def _open_step(name: str) -> AbstractContextManager[Any]:
    """Make a span within that of the request; what belongs to no request has none."""
    from opentelemetry.trace import get_current_span

    if _tracer is None or not get_current_span().get_span_context().is_valid:
        return nullcontext()
    return _tracer.start_as_current_span(name, **_BARE)
