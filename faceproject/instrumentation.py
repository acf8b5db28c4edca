"""Metrics, traces and the access log of all requests, by route, because a path may contain a person's id."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from django.utils.functional import LazyObject, empty
from prometheus_client import Counter, Gauge, Histogram

from faceproject.logins import client_address
from faceproject.logs import PROBES, UNKNOWN, route_of
from faceproject.tracing import request_span, start_tracing
from recognition.instrumentation import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

access_log: Final = logging.getLogger("faceproject.access")

METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUESTS: Final = Counter(
    "faces_http_requests", "Requests answered.", ["method", "route", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "faces_http_request_seconds",
    "Time from a thread's beginning of a request to its answer.",
    ["method", "route"],
    buckets=SECONDS,
)
IN_PROGRESS: Final = Gauge("faces_http_requests_in_progress", "Requests that threads work on now.")


class ObservingMiddleware:
    """Count and time each request, and write its line in the access log."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        start_tracing()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        begin = time.perf_counter()
        with IN_PROGRESS.track_inprogress(), request_span(request) as finish:
            response = self.get_response(request)
            method = str(request.method) if request.method in METHODS else "other"
            route = route_of(request)
            finish(method, route, response.status_code)
        seconds = time.perf_counter() - begin
        REQUESTS.labels(method, route, str(response.status_code)).inc()
        REQUEST_SECONDS.labels(method, route).observe(seconds)
        level = logging.DEBUG if route in PROBES else logging.INFO
        if access_log.isEnabledFor(level):
            facts = {
                "address": client_address(request) or UNKNOWN,
                "user": _user(request),
                "method": method,
                "route": route,
                "status": response.status_code,
                "ms": round(1000 * seconds, 1),
            }
            line = "%(address)s %(user)s %(method)s %(route)s %(status)s %(ms)s ms"
            access_log.log(level, line, facts, extra={"facts": facts})
        return response


def _user(request: HttpRequest) -> str:
    """Return the name of the token or account, if the request has already determined it."""
    if name := getattr(getattr(request, "auth", None), "name", None):
        return f"token {name}"
    user = getattr(request, "user", None)
    if user is None or (isinstance(user, LazyObject) and user._wrapped is empty):
        return UNKNOWN
    return user.get_username() or UNKNOWN
