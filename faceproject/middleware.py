"""Middleware that applies to all responses."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

from csp.constants import HEADER
from csp.utils import build_policy
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import is_valid_path
from django.utils.translation import get_language_from_request, override
from django.views import defaults

from enrollment.api import ENCODED_SLASH
from enrollment.journal import acting, author_of
from faceproject.logins import client_address
from recognition.api.access import to_login
from recognition.api.errors import error_body, status_error
from recognition.api.text import NotUtf8, check_encoded

if TYPE_CHECKING:
    from collections.abc import Callable

PERSONS = "/api/persons/"
API_DOCS = "/api/docs"
DEBUG_PAGES = (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR)  # have inline styles
# The key in META where the server says why it withheld a request's body.
REFUSAL = "faceproject.refusal"


def is_api(request: HttpRequest) -> bool:
    return is_api_path(request.path_info)


def is_api_path(path: str) -> bool:
    return f"{path}/".startswith("/api/")


def refusal_by_length(content_length: str) -> HTTPStatus | None:
    """Return the status to refuse a request with before reading its body, or None."""
    if not (content_length.isascii() and content_length.isdigit()):
        return HTTPStatus.BAD_REQUEST
    # A number of more digits than any allowed length is too large; int() need not parse it.
    if len(content_length) > 18 or int(content_length) > settings.MAX_REQUEST_BYTES:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the response to a bad request, with the message of `NotUtf8` errors."""
    if not isinstance(exception, NotUtf8):
        return defaults.bad_request(request, exception)
    with override(get_language_from_request(request)):
        if is_api(request):
            return JsonResponse(error_body(exception.code, exception.message), status=400)
        return HttpResponse(exception.message, status=400, content_type="text/plain; charset=utf-8")


class ContentSecurityPolicyMiddleware:
    """Apply the policy of the settings; the API documentation may use inline styles.

    The policies are written once: none of them depends on a request. Their parts are sorted, as
    django-csp takes them from a set: the header is the same at each start.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._policy = self._sorted()
        # Swagger UI needs inline styles; inline scripts stay forbidden.
        self._policy_of_docs = self._sorted({"style-src": ["'self'", "'unsafe-inline'"]})

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if not (settings.DEBUG and response.status_code in DEBUG_PAGES):
            is_docs = request.path_info.rstrip("/") == API_DOCS
            response.headers.setdefault(HEADER, self._policy_of_docs if is_docs else self._policy)
        return response

    @staticmethod
    def _sorted(update: dict[str, list[str]] | None = None) -> str:
        return "; ".join(sorted(build_policy(update=update).split("; ")))


class EncodedSlashMiddleware:
    """Distinguish a slash inside a person id from slashes between path segments.

    WSGI decodes a path before Django sees it, so `a%2Fimages` would address the images of person
    `a`. If the server provides the undecoded path, an encoded slash becomes `ENCODED_SLASH`, which
    no id contains. Otherwise it stays a slash.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(PERSONS):
            sent = request.META.get("REQUEST_URI", "").partition("?")[0]
            if "%2f" in sent.lower():
                sent = re.sub("%2f", ENCODED_SLASH, sent.replace("%00", "%01"), flags=re.IGNORECASE)
                path = unquote(sent)
                request.path_info = path[path.index(PERSONS) :] if PERSONS in path else path
            else:  # one that was sent is no slash, and no id contains it or a %01
                request.path_info = request.path_info.replace(ENCODED_SLASH, "\x01")
        return self.get_response(request)


class FormAddressMiddleware:
    """Lead who opens an address that only takes forms, by a bookmark or after a reload, to the page above
    it, where the form stands."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_page = request.method == "GET" and not is_api(request)
        if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED and is_page:
            query = request.META["QUERY_STRING"]
            return redirect(f"{_page_above(request.path_info)}{'?' if query else ''}{query}")
        return response


def _page_above(path: str) -> str:
    """Return the path of the nearest page above this one."""
    while "/" in (path := path.rstrip("/")):
        path = path[: path.rindex("/") + 1]
        for page in (path, path.rstrip("/")):
            if is_valid_path(page):
                return page
    return "/"


class JournalMiddleware:
    """Name in the journal who sent the request: the account or token, read when a line is written."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with acting(lambda: author_of(request, client_address(request) or "")):
            return self.get_response(request)


class RefusedBodyMiddleware:
    """Answer requests whose body the server refused: too large, too slow, or not authenticated.

    An unauthenticated API request goes on without its body, and the API refuses it with 401.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        refusal = request.META.get(REFUSAL)
        if refusal == HTTPStatus.UNAUTHORIZED and not is_api(request):
            return to_login(request)
        if refusal in (None, HTTPStatus.UNAUTHORIZED):
            return self.get_response(request)
        with override(get_language_from_request(request)):
            message = status_error(request, refusal)["message"]
        return HttpResponse(message, status=refusal, content_type="text/plain; charset=utf-8")


class Utf8Middleware:
    """Reject URLs and forms whose fields are not UTF-8; see `recognition.api.text`.

    Forms with files are parsed here for the pages, as their CSRF token is a form field. The API
    parses its own.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        try:
            for name in ("REQUEST_URI", "QUERY_STRING"):
                check_encoded(request.META.get(name, "").encode("latin-1"))
            if request.content_type == "application/x-www-form-urlencoded":
                check_encoded(request.body)
            elif not is_api(request):
                _ = request.POST
        except NotUtf8 as error:
            return bad_request(request, error)
        return None


class JsonApiErrorMiddleware:
    """Turn every failure under /api/ into the JSON error body, in the client's language.

    It is placed before the middleware that can fail, so that a rejected host, a broken upload or an
    unknown URL gets the same body as an error of a view.
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
