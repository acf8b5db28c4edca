"""One name for a request in its answer and in every line that the log has about it."""

from __future__ import annotations

import logging
import re
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from django.core.signals import request_finished

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

HEADER: Final = "X-Request-ID"
# What a client or proxy may call its request: nothing that could forge a line of the log.
_ACCEPTED: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# What ends a line somewhere, or turns the writing on a terminal around.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_current: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdMiddleware:
    """Takes the id that came with the request, or makes one, and sends it back."""

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
    """The id of the request in hand; "-" outside of any."""
    return _current.get()


class RequestIdFilter(logging.Filter):
    """Gives a line of the log the `request_id` of the request it is about; "-" outside of any."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id()
        return True


class LineFormatter(logging.Formatter):
    """One line of the log a message, whatever a path, a name or a file puts into it.

    Control characters are written as escapes; the lines of a traceback are indented, so that none of them
    looks like a line of the log.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _CONTROLS.sub(_escape, super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {_CONTROLS.sub(_escape, line)}" for line in lines)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _forget(**kwargs: Any) -> None:
    _current.set("-")


# Not at the middleware's end: Django logs a failed answer after it.
request_finished.connect(_forget, dispatch_uid="request_id")
