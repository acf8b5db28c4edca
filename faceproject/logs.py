"""Log formats. Requests are logged by their route, because a path may contain a person's id."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from recognition.api.request_id import shows_traceback

if TYPE_CHECKING:
    from django.http import HttpRequest

PROBES: Final = {"/livez", "/readyz", "/metrics"}
UNKNOWN: Final = "-"  # no matching route, or no user


def route_of(request: HttpRequest) -> str:
    """Return the URL pattern of the view, such as `/api/persons/<person_id:person_id>`.

    URLs with and without a trailing slash have the same route.
    """
    if request.path_info in PROBES:
        return str(request.path_info)
    if request.resolver_match:
        return "/" + request.resolver_match.route.rstrip("/")
    if request.path_info.startswith(f"/{settings.STATIC_URL.strip('/')}/"):
        return "/static"
    return UNKNOWN


class RouteFilter(logging.Filter):
    """Replace the path by the route in Django's log lines about refused and failed requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        request: HttpRequest | None = getattr(record, "request", None)
        path = getattr(request, "path", None)  # Django's own server gives a socket here
        if request and path and isinstance(record.args, tuple):
            # An unmatched path is the error itself and contains no id.
            shown = route_of(request) if request.resolver_match else path
            record.args = tuple(shown if each == path else each for each in record.args)
        return True


class JsonFormatter(logging.Formatter):
    """Format a log record as a JSON object, with separate fields for the access log."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", UNKNOWN),
        }
        line |= getattr(record, "facts", None) or {"message": record.getMessage()}
        if shows_traceback(record):
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
