"""The forms of the log's lines. Requests are named by their route: a path may hold somebody's id."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

if TYPE_CHECKING:
    from django.http import HttpRequest

PROBES: Final = {"/livez", "/readyz", "/metrics"}
UNKNOWN: Final = "-"  # no route leads there, or nobody is logged in


def route_of(request: HttpRequest) -> str:
    """Return the pattern that led to the view, such as `/api/persons/<person_id:person_id>`.

    Both spellings of a call, with a slash at the end and without, are one route.
    """
    if request.path_info in PROBES:
        return str(request.path_info)
    if request.resolver_match:
        return "/" + request.resolver_match.route.rstrip("/")
    if request.path_info.startswith(f"/{settings.STATIC_URL.strip('/')}/"):
        return "/static"
    return UNKNOWN


class RouteFilter(logging.Filter):
    """Has Django's lines about refused and failed requests name the route in the path's place."""

    def filter(self, record: logging.LogRecord) -> bool:
        request: HttpRequest | None = getattr(record, "request", None)
        path = getattr(request, "path", None)  # Django's own server gives a socket here
        if request and path and isinstance(record.args, tuple):
            # Where no route leads, the path is what went wrong, and nobody's id.
            shown = route_of(request) if request.resolver_match else path
            record.args = tuple(shown if each == path else each for each in record.args)
        return True


class JsonFormatter(logging.Formatter):
    """A line of the log as an object in JSON; what the access log tells stands in fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", UNKNOWN),
        }
        line |= getattr(record, "facts", None) or {"message": record.getMessage()}
        # Anybody can send what Django refuses as suspicious: that needs no traceback.
        if record.exc_info and not record.name.startswith("django.security."):
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
