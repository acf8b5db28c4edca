"""Rate limits by kind of request; a view's `throttle_scope` names the kind."""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from django.core.cache import caches
from django.utils.connection import ConnectionProxy
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle

# One at a time: the framework reads the calls, and writes them with one more.
_counting: Final = Lock()


class ScopeThrottle(ScopedRateThrottle):
    """Count requests by user, or by address without one, for all servers together.

    `throttle_scope` may differ by method.
    """

    cache = ConnectionProxy(caches, "shared")

    @property
    def THROTTLE_RATES(self) -> Any:  # noqa: N802 (the framework's name)
        return api_settings.DEFAULT_THROTTLE_RATES

    def allow_request(self, request: Request, view: Any) -> bool:
        scope = getattr(view, "throttle_scope", None)
        self.scope = scope.get(request.method) if isinstance(scope, dict) else scope
        if not self.scope:
            return True
        self.rate = self.get_rate()
        self.num_requests, self.duration = self.parse_rate(self.rate)
        with _counting:
            return super(ScopedRateThrottle, self).allow_request(request, view)

    def wait(self) -> float | None:
        """Return the seconds until another request is let in.

        The framework knows none when there were more than are allowed by now, since the limit was lowered.
        """
        seconds: float | None = super().wait()
        if seconds is None and self.history:
            seconds = self.duration - (self.now - self.history[(self.num_requests or 0) - 1])
        return seconds
