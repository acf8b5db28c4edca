"""Who may ask: open to the server's own user, closed to everybody else, unless the administrator
says otherwise.

A first try and the existing clients need no account as long as they are programs of the user who runs the
server, on the same machine, connected straight to it: who could read the database's file anyway. What
the kernel says of the connection decides (`recognition.api.peer`); a reverse proxy on the same machine
must not open the gallery to the world.
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
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.urls import reverse
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

FORWARDING_HEADERS = ("Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip")
FORWARDING_PREFIXES = ("X-Forwarded-", "X-Original-", "Cf-")


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address (no port) can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_forwarded(request: HttpRequest) -> bool:
    """Whether a proxy says that it passes on somebody else's request."""
    return any(
        name in FORWARDING_HEADERS or name.startswith(FORWARDING_PREFIXES)
        for name in request.headers
    )


def is_own(request: HttpRequest) -> bool:
    """Whether a program of the server's own user made the request, straight to this server."""
    if not is_loopback_name(settings.HOST) or is_forwarded(request):
        return False
    try:
        domain, _port = split_domain_port(request.get_host())
    except DisallowedHost:
        return False
    if not is_loopback_name(domain):
        return False  # a name that another site made mean this machine (DNS rebinding)
    peer = request.META.get(PEER)
    return peer is not None and peer.is_own


def is_cross_site(request: HttpRequest) -> bool:
    """Whether a browser says that another site's page sent this request."""
    origin = request.headers.get("Origin")
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return False
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    return bool(origin) and urlsplit(origin).netloc != request.get_host()


def needs_account(request: HttpRequest) -> bool:
    """Whether this request must name a user (API: token; pages: session)."""
    if settings.API_AUTH_REQUIRED is not None:
        return settings.API_AUTH_REQUIRED
    return not is_own(request)


def is_let_in(request: HttpRequest) -> bool:
    """Whether who sends this may do more than log in. Looks at no body."""
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
    """To whom the server is open without an account, in a sentence; empty when to nobody."""
    if settings.API_AUTH_REQUIRED is False:
        return gettext("Open without an account to everybody who reaches it (API_AUTH_REQUIRED=0).")
    if settings.API_AUTH_REQUIRED or not is_loopback_name(settings.HOST) or not is_supported():
        return ""
    return gettext(
        "Open without an account to programs and browsers of the user %(user)s on this machine. "
        "Everybody else needs an account."
    ) % {"user": own_user()}


def may(request: Any, permission: str) -> bool:
    """Whether who was let in may do this: a user what their groups allow, who needs no account all.

    Logging in can so take rights away on the machine itself: a user is held to what they are. A token
    with a scope allows no more than that.
    """
    user = request.user
    if not user.is_authenticated:
        return True
    in_scope = getattr(getattr(request, "auth", None), "allows", None)
    return user.has_perm(permission) and (in_scope is None or in_scope(permission))


def require(request: Any, permission: str) -> None:
    """Refuses the call, in a sentence, when who was let in may not do this."""
    if not may(request, permission):
        raise PermissionDenied(lacking_permission(permission))


def lacking_permission(permission: str) -> str:
    """The sentence for one who may not do this."""
    return gettext(
        "Your account lacks the permission %(permission)s. The administrator gives it, best by putting "
        "the account into the group Operator or Administrator."
    ) % {"permission": permission}


class OpenOnLoopback(BasePermission):
    """Lets users in, and everybody where no account is needed, but no other site's page.

    (A user's session is guarded by its CSRF token, and no other site can send a user's token.)
    A view's `permissions` name what a user needs for each method; without one, any account will do.
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
        # What is only read stays unreadable to other sites: no answer carries a CORS header.
        if request.method not in SAFE_METHODS and is_cross_site(request):
            raise PermissionDenied(
                gettext(
                    "Another site's page sent this request. Call the API from this server's own "
                    "pages or from a program, or name the site in CSRF_TRUSTED_ORIGINS."
                )
            )
        return True


def page_access(view: Callable[..., Any]) -> Callable[..., Any]:
    """Sends those who need an account and have none to the login page."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if needs_account(request) and not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), reverse(settings.LOGIN_URL))
        return view(request, *args, **kwargs)

    return guarded


def page_permission(permission: str) -> Callable[..., Any]:
    """As `page_access`; a user without the permission gets the page that says so (403)."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @page_access
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not may(request, permission):
                raise DjangoPermissionDenied(lacking_permission(permission))
            return view(request, *args, **kwargs)

        return guarded

    return decorate
