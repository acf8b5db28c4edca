"""Access control: which requests need an account, and what an account may do.

Programs of the user who runs the server need no account when they connect directly from the same
machine: they could read the database file anyway. The kernel's socket table decides this (see
`recognition.api.peer`), so a reverse proxy on the same machine does not open the gallery to
everybody.
"""

from __future__ import annotations

import ipaddress
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.views import redirect_to_login
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.request import split_domain_port
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.settings import api_settings

from recognition.api.peer import PEER, is_supported, own_user

if TYPE_CHECKING:
    from collections.abc import Callable

ANY_ADDRESS = ("0.0.0.0", "::", "*")  # noqa: S104 (names to compare with, not to listen at)
FORWARDING_HEADERS = ("Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip")
FORWARDING_PREFIXES = ("X-Forwarded-", "X-Original-", "Cf-")


def is_loopback_name(host: str) -> bool:
    """Return whether a host name or address (without port) can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def root_address(port: int) -> str:
    """Return the address of the server's pages for who sits at this machine, without a last slash."""
    host = settings.HOST
    shown = "localhost" if host in ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def is_forwarded(request: HttpRequest) -> bool:
    """Return whether a header says that a proxy forwarded the request."""
    return any(
        name in FORWARDING_HEADERS or name.startswith(FORWARDING_PREFIXES)
        for name in request.headers
    )


def is_own(request: HttpRequest) -> bool:
    """Return whether a program of the server's own user sent the request directly to this server."""
    if not is_loopback_name(settings.HOST) or is_forwarded(request):
        return False
    try:
        domain, _port = split_domain_port(request.get_host())
    except DisallowedHost:
        return False
    if not is_loopback_name(domain):
        return False  # DNS rebinding: another site's name that resolves to this machine
    peer = request.META.get(PEER)
    return peer is not None and peer.is_own


def is_cross_site(request: HttpRequest) -> bool:
    """Return whether a page of another site sent this request, as its browser says."""
    origin = request.headers.get("Origin")
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return False
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    return bool(origin) and _place(origin) != request.get_host()


def _place(origin: str) -> str:
    """Return host and port of an origin; empty if it is none, such as `null` or `http://[`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def needs_account(request: HttpRequest) -> bool:
    """Return whether this request must be authenticated (API: token; pages: session)."""
    if settings.API_AUTH_REQUIRED is not None:
        return settings.API_AUTH_REQUIRED
    return not is_own(request)


def is_let_in(request: HttpRequest) -> bool:
    """Return whether the sender may do more than log in. Does not read the body."""
    try:
        if not needs_account(request):
            return True
        SessionMiddleware(lambda request: HttpResponse()).process_request(request)
        if get_user(request).is_authenticated:
            return True
        authenticators: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES  # classes, of names
        return any(
            authenticator().authenticate(Request(request))
            for authenticator in authenticators
            if not issubclass(authenticator, SessionAuthentication)  # looks for a token in the body
        )
    except (APIException, DatabaseError, SuspiciousOperation):
        return False


def open_to() -> str:
    """Return a sentence that says who needs no account; empty if everybody needs one."""
    if settings.API_AUTH_REQUIRED is False:
        return gettext("Open without an account to everybody who reaches it (API_AUTH_REQUIRED=0).")
    if settings.API_AUTH_REQUIRED or not is_loopback_name(settings.HOST) or not is_supported():
        return ""
    return gettext("Open without an account only to the user %(user)s on this machine.") % {
        "user": own_user()
    }


def may(request: Any, permission: str) -> bool:
    """Return whether the request has the permission.

    A user has the permissions of their groups, within the scope of their token. Anonymous requests
    that need no account have all permissions, so logging in may take permissions away.
    """
    user = request.user
    if not user.is_authenticated:
        return True
    # The scope first: permissions are read from SQL, which takes a tenth of a search.
    return _is_in_scope(request, permission) and user.has_perm(permission)


def _is_in_scope(request: Any, permission: str) -> bool:
    allows = getattr(getattr(request, "auth", None), "allows", None)
    return allows is None or allows(permission)


def require(request: Any, permission: str) -> None:
    """Raise `PermissionDenied` unless the request has the permission."""
    if not _is_in_scope(request, permission):
        message = gettext(
            "The scope of this token lacks the permission %(permission)s. Have the administrator make a "
            "token with a wider one."
        )
        raise PermissionDenied(message % {"permission": permission})
    if not may(request, permission):
        raise PermissionDenied(lacking_permission(permission))


def lacking_permission(permission: str) -> str:
    """Return the message for a user without this permission."""
    return gettext(
        "Your account lacks the permission %(permission)s. The administrator gives it, best by putting "
        "the account into the group Operator or Administrator."
    ) % {"permission": permission}


class OpenOnLoopback(BasePermission):
    """Allow users, and requests that need no account unless another site's page sent them.

    Sessions are protected by the CSRF token, and other sites cannot send a user's token. A view's
    `permissions` name the permission for each method; without one, any account is enough.
    """

    message = _(
        "This needs an account: send the header 'Authorization: Token <your token>' "
        "(tokens are made in the admin), or log in."
    )

    def has_permission(self, request: Any, view: Any) -> bool:
        if request.user and request.user.is_authenticated:
            method = "GET" if request.method == "HEAD" else request.method
            permission = getattr(view, "permissions", {}).get(method)
            if permission:
                require(request, permission)
            return True
        if needs_account(request):
            return False
        # Other sites cannot read answers to safe methods, as no answer has a CORS header.
        if request.method not in SAFE_METHODS and is_cross_site(request):
            raise PermissionDenied(
                gettext(
                    "Another site's page sent this request. Call the API from this server's own "
                    "pages or from a program, or name the site in CSRF_TRUSTED_ORIGINS."
                )
            )
        return True


def to_login(request: HttpRequest) -> HttpResponseRedirect:
    """Lead to the login, and from there to what was asked for, or to the page whose form was sent."""
    address = request.get_full_path()
    sender = request.headers.get("Referer", "")
    if request.method not in SAFE_METHODS and url_has_allowed_host_and_scheme(
        sender, request.get_host()
    ):
        address = urlsplit(sender)._replace(scheme="", netloc="").geturl()
    return redirect_to_login(address, reverse(settings.LOGIN_URL))


def page_access(view: Callable[..., Any]) -> Callable[..., Any]:
    """Redirect requests that need an account but have none to the login page."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if needs_account(request) and not request.user.is_authenticated:
            return to_login(request)
        return view(request, *args, **kwargs)

    return guarded


def page_permission(permission: str) -> Callable[..., Any]:
    """Like `page_access`, and answer 403 to users without the permission."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @page_access
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not may(request, permission):
                raise DjangoPermissionDenied(lacking_permission(permission))
            return view(request, *args, **kwargs)

        return guarded

    return decorate
