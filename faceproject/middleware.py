"""What every answer owes its client, wherever in Django it was made."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

from csp.middleware import CSPMiddleware
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.translation import get_language_from_request, override
from django.views import defaults

from enrollment.api import ENCODED_SLASH
from recognition.api.errors import error_body, status_error
from recognition.api.text import NotUtf8, check_encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from csp.middleware import PolicyParts

PERSONS = "/api/persons/"
API_DOCS = "/api/docs"
# The key of META under which the server says why it kept a request's body from us.
REFUSAL = "faceproject.refusal"


def is_api(request: HttpRequest) -> bool:
    return f"{request.path_info}/".startswith("/api/")


def refusal_by_length(content_length: str) -> HTTPStatus | None:
    """Why a request is refused before any of its body is read; None when it is not."""
    if not (content_length.isascii() and content_length.isdigit()):
        return HTTPStatus.BAD_REQUEST
    # A number too long for int() is a number too large.
    if len(content_length) > 18 or int(content_length) > settings.MAX_REQUEST_BYTES:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Says what is wrong with the request where the exception is ours to tell; else the page for all."""
    if not isinstance(exception, NotUtf8):
        return defaults.bad_request(request, exception)
    with override(get_language_from_request(request)):
        if is_api(request):
            return JsonResponse(error_body(exception.code, exception.message), status=400)
        return HttpResponse(exception.message, status=400, content_type="text/plain; charset=utf-8")


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """The policy of the settings; the page that describes the API may hold styles."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponse, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if request.path_info.rstrip("/") == API_DOCS:
            # Swagger UI does; scripts stay forbidden.
            parts.update = {"style-src": ["'self'", "'unsafe-inline'"]}
        return parts


class EncodedSlashMiddleware:
    """Keeps a slash within an id apart from those between the parts of a path.

    WSGI decodes a path before Django sees it, so `a%2Fimages` would be a call on the person `a`.
    Where the server tells the path as it was sent, an encoded slash becomes `ENCODED_SLASH`, which
    no id holds; otherwise it stays a slash.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        sent = request.META.get("REQUEST_URI", "").partition("?")[0]
        if request.path_info.startswith(PERSONS) and "%2f" in sent.lower():
            path = unquote(re.sub("%2f", ENCODED_SLASH, sent, flags=re.IGNORECASE))
            request.path_info = path[path.index(PERSONS) :] if PERSONS in path else path
        return self.get_response(request)


class RefusedBodyMiddleware:
    """Answers the requests whose body the server did not keep: too large, too slow, or a stranger's.

    A stranger's call of the API goes on, without its body, to be refused there for the lack of an account.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        refusal = request.META.get(REFUSAL)
        if refusal == HTTPStatus.UNAUTHORIZED and not is_api(request):
            return redirect_to_login(request.get_full_path(), reverse(settings.LOGIN_URL))
        if refusal in (None, HTTPStatus.UNAUTHORIZED):
            return self.get_response(request)
        with override(get_language_from_request(request)):
            message = status_error(request, refusal)["message"]
        return HttpResponse(message, status=refusal, content_type="text/plain; charset=utf-8")


class Utf8Middleware:
    """Refuses an address or a form whose fields are not UTF-8; see `recognition.api.text`.

    Forms with files are read here for the pages, whose token is among their fields; calls of the API read
    their own.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        try:
            check_encoded(request.META.get("QUERY_STRING", "").encode("latin-1"))
            if request.content_type == "application/x-www-form-urlencoded":
                check_encoded(request.body)
            elif not is_api(request):
                _ = request.POST
        except NotUtf8 as error:
            return bad_request(request, error)
        return None


class JsonApiErrorMiddleware:
    """Turns every failure under /api/ into the JSON error body, in the client's language.

    Stands before the middleware that can fail, so that a refused host, a broken upload or a URL
    that leads nowhere is answered in the same shape as an error of a view.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not is_api(request):
            return self.get_response(request)
        if refusal := refusal_by_length(request.META.get("CONTENT_LENGTH") or "0"):
            return self._error(request, refusal)
        response = self.get_response(request)
        is_json = response.get("Content-Type", "").startswith("application/json")
        if response.status_code >= 400 and not hasattr(response, "data") and not is_json:
            return self._error(request, response.status_code)
        return response

    @staticmethod
    def _error(request: HttpRequest, status: int) -> JsonResponse:
        with override(get_language_from_request(request)):
            return JsonResponse(status_error(request, status), status=status)
