"""OpenTelemetry traces: what is in them, and what is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from faceproject import checks, tracing
from recognition import instrumentation

pytestmark = pytest.mark.django_db
PERSON = "529.982.247-25"
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.trace_to(provider)
    yield exporter
    tracing.trace_to(None)


def test_request_and_its_steps_are_one_trace(api, spans, weights, draw_picture):
    photo = SimpleUploadedFile("joana.png", draw_picture(format="PNG"), "image/png")
    headers = {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
    answer = api.post("/api/milvus/search", {"image": photo}, headers=headers)
    assert answer.status_code == 200
    made = {span.name: span for span in spans.get_finished_spans()}
    request = made["POST /api/milvus/search"]
    assert {"decode", "detect", "search"} <= set(made)
    assert made["detect"].parent.span_id == request.context.span_id
    assert {format(span.context.trace_id, "032x") for span in made.values()} == {CALLER}
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/milvus/search",
        "http.response.status_code": 200,
        "request_id": answer["X-Request-ID"],
    }


def test_nothing_of_people_is_in_a_span(api, spans):
    assert api.get(f"/api/persons/{PERSON}?q={PERSON}").status_code in (400, 404)
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /api/persons/<person_id:person_id>"
    assert PERSON not in span.to_json() and "127.0.0.1" not in span.to_json()


def test_failure_is_told_without_its_message(api, spans, no_store, draw_picture, weights):
    photo = SimpleUploadedFile("a.png", draw_picture(format="PNG"), "image/png")
    assert api.post("/api/milvus/search", {"image": photo}).status_code == 503
    span = spans.get_finished_spans()[-1]
    assert span.status.status_code.name == "ERROR" and not span.status.description
    assert not any(each.events for each in spans.get_finished_spans())


def test_without_an_address_nothing_is_made(api, settings):
    tracing.start_tracing()
    assert tracing._tracer is None and instrumentation.open_span is instrumentation.open_no_span
    assert api.get("/api/models").status_code == 200


def test_address_without_the_packages_is_told(settings, monkeypatch):
    settings.OTEL_EXPORTER_OTLP_ENDPOINT = "http://localhost:4318"
    assert checks.check_tracing(None) == []
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    (error,) = checks.check_tracing(None)
    assert error.id == "faceproject.E002" and "requirements-tracing.txt" in error.hint
