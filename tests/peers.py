"""A stand-in for the kernel's socket table, because Django's test client has no socket."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from types import SimpleNamespace

from django.http import HttpRequest, HttpResponse

from recognition.api.peer import PEER


class PeerMiddleware:
    """Treat requests from a loopback address as sent by a program of the server's user."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        is_own = ipaddress.ip_address(request.META["REMOTE_ADDR"]).is_loopback
        request.META.setdefault(PEER, SimpleNamespace(is_own=is_own))
        return self.get_response(request)
