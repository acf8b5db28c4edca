"""Probes: `/livez` (does the process answer?) and `/readyz` (can it do its work?)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import get_language_from_request, gettext, override

if TYPE_CHECKING:
    from collections.abc import Callable


class ProbeMiddleware:
    """Answer probes before all other middleware, by IP address, over HTTP and without an account."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            match request.path_info:
                case "/livez":
                    return JsonResponse({"status": "alive"})
                case "/readyz":
                    with override(get_language_from_request(request)):
                        return _readiness()
        return self.get_response(request)


def _readiness() -> JsonResponse:
    from recognition.health import examine

    health = examine()
    reasons = list(health.errors)
    if health.loading:
        names = ", ".join(health.loading)
        reasons.append(gettext("Models are being loaded: %(names)s.") % {"names": names})
    if reasons:
        body = {"status": "not ready", "problems": reasons}
        return JsonResponse(body, status=503, headers={"Retry-After": "5"})
    return JsonResponse({"status": "ready"})
