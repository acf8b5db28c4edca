"""Who may ask: open to this machine, closed to every other, unless the administrator says otherwise.

A first try and the existing clients need no account as long as they come from the machine itself.
A request counts as local only when its socket, its Host header and the absence of forwarding headers
all say so: a reverse proxy on the same machine must not open the gallery to the world.
"""

from __future__ import annotations

import ipaddress
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from rest_framework.permissions import BasePermission

if TYPE_CHECKING:
    from collections.abc import Callable

FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via")


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address (no port) can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local(request: HttpRequest) -> bool:
    """Whether the request was made on this machine, straight to this server."""
    if any(header in request.headers for header in FORWARDING_HEADERS):
        return False
    if request.META.get("SERVER_PROTOCOL") == "HTTP/1.0":
        return False  # nginx as it comes: adds no header, sends its own Host, but speaks HTTP/1.0
    domain, _port = split_domain_port(request.get_host())
    return (
        is_loopback_name(settings.HOST)
        and is_loopback_name(request.META.get("REMOTE_ADDR", ""))
        and is_loopback_name(domain)
    )


def is_cross_site(request: HttpRequest) -> bool:
    """Whether a browser says that another site's page sent this request."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    origin = request.headers.get("Origin")
    return bool(origin) and urlsplit(origin).netloc != request.get_host()


def needs_account(request: HttpRequest) -> bool:
    """Whether this request must name a user (API: token; pages: session)."""
    if settings.API_AUTH_REQUIRED is not None:
        return settings.API_AUTH_REQUIRED
    return not is_local(request)


class OpenOnLoopback(BasePermission):
    """Lets users in, and everybody where no account is needed, but no other site's page."""

    message = _(
        "This needs an account: send the header 'Authorization: Token <your token>' "
        "(tokens are made in the admin), or log in."
    )

    def has_permission(self, request: Any, view: Any) -> bool:
        if request.user and request.user.is_authenticated:
            return True
        return not needs_account(request) and not is_cross_site(request)


def page_access(view: Callable[..., Any]) -> Callable[..., Any]:
    """Sends those who need an account and have none to the login page."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if needs_account(request) and not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), reverse(settings.LOGIN_URL))
        return view(request, *args, **kwargs)

    return guarded
