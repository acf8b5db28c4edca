"""Request ids, in the answer and in every log line about the request."""

from __future__ import annotations

import logging
import re
import uuid
from contextvars import ContextVar
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from django.core.signals import request_finished

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

HEADER: Final = "X-Request-ID"
# Ids accepted from a client or proxy; they cannot forge a log line.
_ACCEPTED: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# Control characters, line separators and bidirectional controls.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_current: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdMiddleware:
    """Accept the request's id, or create one, and return it in the response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
        _current.set(request_id)
        response = self.get_response(request)
        response.headers[HEADER] = request_id
        return response


def current_request_id() -> str:
    """Return the id of the current request; "-" outside a request."""
    return _current.get()


class RequestIdFilter(logging.Filter):
    """Add the `request_id` of the current request to a log record; "-" outside a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id()
        return True


class LineFormatter(logging.Formatter):
    """Format each log message as one line, whatever text it contains.

    Control characters are escaped. The lines of a traceback are indented, so none looks like a log
    line.
    """

    def format(self, record: logging.LogRecord) -> str:
        if not shows_traceback(record):
            record = copy(record)
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _CONTROLS.sub(_escape, super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {_CONTROLS.sub(_escape, line)}" for line in lines)


def shows_traceback(record: logging.LogRecord) -> bool:
    """Return whether a log record's traceback is worth writing: that of a failure of the service.

    Anybody can send requests that Django refuses, and a traceback for each would flood the log.
    """
    refused = record.name.startswith("django.security.") or record.levelno < logging.ERROR
    return bool(record.exc_info) and not (refused and record.name.startswith("django."))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _forget(**kwargs: Any) -> None:
    _current.set("-")


# Not in the middleware, because Django logs failed responses after it returns.
request_finished.connect(_forget, dispatch_uid="request_id")
