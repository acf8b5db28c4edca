"""The body of every API error, also for requests that reach no view."""

from __future__ import annotations

from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from recognition.api.answers import AnswerSerializer
from recognition.conf import MIB


class ErrorSerializer(AnswerSerializer):
    """The body of every error."""

    success = serializers.BooleanField(read_only=True, default=False, help_text="false")
    error = serializers.CharField(help_text=_("A code that stays the same in every language."))
    message = serializers.CharField(
        help_text=_("What was given, what was expected, what to do; in the client's language.")
    )
    fields = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text=_("What is wrong with each field of the request."),
    )


def error_body(
    code: str, message: str, fields: dict[str, list[str]] | None = None
) -> dict[str, object]:
    """Return the body of an error."""
    return ErrorSerializer.answer({"error": code, "message": message, "fields": fields})


def status_error(request: HttpRequest, status: int) -> dict[str, object]:
    """Return the error body for a request that failed before or outside an API view."""
    match status:
        case 400:
            code, message = (
                "bad_request",
                gettext(
                    "The request was refused: it was damaged, or '%(host)s' is no address of this "
                    "server. Whoever runs it lists its addresses in ALLOWED_HOSTS."
                )
                % {"host": request.headers.get("Host", "")},
            )
        case 404:
            code, message = (
                "not_found",
                gettext(
                    "There is nothing at %(path)s. The calls of this API are listed at /api/docs."
                )
                % {"path": request.path},
            )
        case 405:
            code, message = (
                "method_not_allowed",
                gettext("%(path)s does not answer to %(method)s. See /api/docs for how to call it.")
                % {"path": request.path, "method": request.method},
            )
        case 413:
            code, message = (
                "request_too_large",
                gettext(
                    "The request is larger than the %(limit)d MB that one may have. "
                    "Send fewer or smaller pictures at a time."
                )
                % {"limit": settings.MAX_REQUEST_BYTES // MIB},
            )
        case 500:
            code, message = (
                "internal_error",
                gettext(
                    "The server failed at this request and has logged why. "
                    "Try again; if it stays, tell the administrator."
                ),
            )
        case _:
            code = HTTPStatus(status).phrase.lower().replace(" ", "_")
            message = gettext("The request was refused (%(status)d). See /api/docs.") % {
                "status": status
            }
    return error_body(code, message)
