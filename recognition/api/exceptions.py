"""The exception handler of the API, which maps every exception to a status and a JSON body."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import OperationalError
from django.http import Http404, UnreadablePostError
from django.utils.translation import gettext
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.settings import api_settings
from rest_framework.views import set_rollback

from recognition.api.access import OpenOnLoopback
from recognition.api.errors import error_body, status_error
from recognition.api.parsers import JSONParser
from recognition.api.renderers import ApiPageRenderer, JSONRenderer
from recognition.api.text import NotUtf8
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError, UnknownModel

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 30

# Exceptions that Django raises while it reads a request; the first matching class decides.
_STATUS_OF_DJANGO: Final = (
    (Http404, HTTPStatus.NOT_FOUND),
    (PermissionDenied, HTTPStatus.FORBIDDEN),
    (RequestDataTooBig, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ((SuspiciousOperation, BadRequest, UnreadablePostError), HTTPStatus.BAD_REQUEST),
)
# Error codes of fields that become the code of the whole answer.
TOO_MANY_IMAGES: Final = "too_many_images"
WHOLE_REQUEST: Final = api_settings.NON_FIELD_ERRORS_KEY  # key in `fields` for the whole request
_OWN_CODES: Final = {UnknownModel.code, TOO_MANY_IMAGES}


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Return the response to an exception. Unexpected ones are logged and answered with 500."""
    set_rollback()
    _answer_in_json(context["request"])
    if isinstance(error, DjangoValidationError):
        error = exceptions.ValidationError(as_serializer_error(error))
    if isinstance(error, NotUtf8 | exceptions.ParseError) and _encoding(context):
        message = gettext("it has the Content-Encoding '%(given)s', and is expected without")
        error = exceptions.ParseError(message % {"given": _encoding(context)[:50]})
    if isinstance(error, RecognitionError):
        return _answer(error.status, error_body(error.code, error.api_message), _headers(error))
    if isinstance(error, exceptions.ValidationError):
        return _answer(error.status_code, validation_body(error))
    if isinstance(error, exceptions.APIException):
        return _answer(error.status_code, _framework_body(error, context), _headers(error))
    if isinstance(error, TooManyFieldsSent):
        message = gettext("The request has more than the %(limit)d fields that one may have.")
        limit = {"limit": settings.DATA_UPLOAD_MAX_NUMBER_FIELDS}
        return _answer(HTTPStatus.BAD_REQUEST, error_body("bad_request", message % limit))
    if isinstance(error, TooManyFilesSent):
        return _answer(HTTPStatus.BAD_REQUEST, error_body(TOO_MANY_IMAGES, too_many_images()))
    for kind, status in _STATUS_OF_DJANGO:
        if isinstance(error, kind):
            return _answer(status, status_error(context["request"], status))
    if isinstance(error, OperationalError):
        return _database_unavailable(error, context)
    return _unexpected(error, context)


def _answer_in_json(request: Request) -> None:
    """Let the answer be JSON, also at the OpenAPI document, which is YAML, and at its page.

    The other calls have a page of their own for browsers, which shows the error.
    """
    if not isinstance(getattr(request, "accepted_renderer", None), JSONRenderer | ApiPageRenderer):
        request.accepted_renderer = JSONRenderer()
        request.accepted_media_type = JSONRenderer.media_type


def validation_body(error: exceptions.ValidationError) -> dict[str, object]:
    """Return the body of a validation error: by field under `fields`, and joined in one message."""
    detail = error.detail if isinstance(error.detail, dict) else {WHOLE_REQUEST: error.detail}
    problems = {name: _problems(value) for name, value in detail.items()}
    codes = {problem.code for items in problems.values() for problem in items}
    code = codes.pop() if len(codes) == 1 and codes <= _OWN_CODES else "validation_error"
    fields = {name: [str(problem) for problem in items] for name, items in problems.items()}
    message = " ".join(
        " ".join(texts) if name == WHOLE_REQUEST else f"{name}: {' '.join(texts)}"
        for name, texts in fields.items()
    )
    return error_body(code, message, fields=fields)


def too_many_images(given: int | None = None) -> str:
    """Return the message for a request with too many pictures."""
    limit = get_settings().max_batch_size
    if given is None:
        return gettext(
            "The request has too many files; at most %(limit)d pictures are accepted. "
            "Send the rest in further requests."
        ) % {"limit": limit}
    return gettext(
        "%(given)d pictures were sent; at most %(limit)d are accepted in one request. "
        "Send the rest in further requests."
    ) % {"given": given, "limit": limit}


def _problems(detail: Any) -> list[exceptions.ErrorDetail]:
    if isinstance(detail, dict):
        detail = list(detail.values())
    if isinstance(detail, list):
        return [problem for item in detail for problem in _problems(item)]
    return [detail]


def _framework_body(error: exceptions.APIException, context: dict[str, Any]) -> dict[str, object]:
    match error:
        case exceptions.NotAuthenticated():
            message = str(OpenOnLoopback.message)
        case exceptions.NotFound() | exceptions.MethodNotAllowed():
            return status_error(context["request"], error.status_code)
        case exceptions.Throttled():
            message = gettext(
                "Too many requests of this kind were made. Wait %(seconds)d seconds, then go on."
            ) % {"seconds": math.ceil(error.wait or 1)}
        case exceptions.UnsupportedMediaType():
            expected = ", ".join(parser.media_type for parser in context["view"].parser_classes)
            message = gettext(
                "The request's content type is '%(given)s'; expected is %(expected)s."
            ) % {"given": context["request"].content_type[:100], "expected": expected}
            message = f"{message} {_how_to_send(context)}"
        case exceptions.ParseError():
            message = gettext("The request's body cannot be read: %(cause)s.") % {
                "cause": str(error.detail).rstrip(".")
            }
            message = f"{message} {_how_to_send(context)}"
        case exceptions.PermissionDenied() if str(error.detail).startswith("CSRF Failed"):
            message = gettext(
                "The request of a logged-in browser came without its CSRF token. Reload the page, or "
                "send a token of the API and no cookie."
            )
        case _:
            message = str(error.detail)
    return error_body(error.default_code, message)


def _encoding(context: dict[str, Any]) -> str:
    encoding: str = context["request"].headers.get("Content-Encoding", "")
    return encoding


def _how_to_send(context: dict[str, Any]) -> str:
    if JSONParser in context["view"].parser_classes:
        return gettext("Send a JSON object (curl: -H 'Content-Type: application/json' -d '{…}').")
    return gettext("Send the pictures as multipart/form-data (curl: -F image=@face.jpg).")


def _headers(error: exceptions.APIException | RecognitionError) -> dict[str, str]:
    headers = {}
    if seconds := getattr(error, "retry_after", None):
        headers["Retry-After"] = str(seconds)
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(math.ceil(wait))
    return headers


def _answer(
    status: int, body: dict[str, object], headers: dict[str, str] | None = None
) -> Response:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} | (headers or {})
    return Response(body, status=int(status), headers=headers)


def _database_unavailable(error: OperationalError, context: dict[str, Any]) -> Response:
    """Return 503 without `Retry-After`: part of the work may be done and must not be repeated."""
    request = context["request"]
    _log("SQL failed", request, error)
    message = gettext(
        "The SQL database could not do this: another program keeps it locked, its disk is full, or it "
        "does not run. Look whether it was done before you send it again."
    )
    return Response(error_body("database_unavailable", message), status=503)


def _unexpected(error: Exception, context: dict[str, Any]) -> Response:
    request = context["request"]
    _log("Failed", request, error)
    return _answer(500, status_error(request, 500))


def _log(said: str, request: Request, error: Exception) -> None:
    """Log a failure; the log names the request's route in the place of its path."""
    extra = {"request": request}
    logger.error("%s at %s %s", said, request.method, request.path, exc_info=error, extra=extra)
