"""Protection of logins against guessing, and the lifetime of sessions.

django-axes stores the wrong passwords of the last hour in SQL, by account and address. After a few
of them, each further attempt must wait twice as long as the one before, up to a quarter of an hour.
Attempts during the wait are rejected without checking, even with the right password.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from math import ceil
from typing import Any, Final

from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.contrib.auth import SESSION_KEY
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from rest_framework.throttling import BaseThrottle

from enrollment import journal

logger = logging.getLogger(__name__)

# Wrong passwords without a wait: for one account, and from one address, which many users may share.
FREE: Final = {"username": 3, "ip_address": 12}
NO_TIME: Final = timedelta(0)
LONGEST_WAIT: Final = timedelta(minutes=15)
SEEN: Final = "seen"  # session key: when it was last renewed, in seconds since the epoch
RENEWED_EVERY: Final = 5 * 60


def wait_after(failures: int, free: int) -> timedelta:
    """Return how long logins are rejected after so many failures: 2 s, 4 s, 8 s … 15 minutes."""
    exponent = failures - free
    if exponent < 0:
        return NO_TIME
    return min(timedelta(seconds=2 ** min(exponent + 1, 20)), LONGEST_WAIT)


def client_address(request: HttpRequest) -> str | None:
    """Return the client's address, as reported by the trusted proxies if PROXIES is set."""
    try:
        return str(ipaddress.ip_address(BaseThrottle().get_ident(request)))
    except ValueError:
        return request.META.get("REMOTE_ADDR")


def counted_by(request: Any, _credentials: dict[str, Any] | None = None) -> list[str]:
    """Return the keys by which failures are counted: by account, and by address unless it is
    loopback.

    A proxy on this machine would put all clients at the loopback address.
    """
    address = getattr(request, "axes_ip_address", None) or getattr(request, "ip_address", None)
    is_own = not address or ipaddress.ip_address(address).is_loopback
    return ["username"] if is_own else ["username", "ip_address"]


def told_to_wait(request: HttpRequest, _response: Any, _credentials: Any) -> HttpResponse:
    """Return the page (429) for an attempt that was rejected without checking."""
    context = {"seconds": request.login_wait}
    response = render(request, "registration/wait.html", context, status=429)
    response.headers["Retry-After"] = str(request.login_wait)
    return response


class LoginHandler(AxesDatabaseHandler):
    """The django-axes handler with our waiting times."""

    def is_locked(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> bool:
        counted = zip(
            counted_by(request), self.get_user_attempts(request, credentials), strict=True
        )
        for parameter, attempts in counted:
            figures = attempts.aggregate(
                count=Sum("failures_since_start"), last=Max("attempt_time")
            )
            wait = wait_after(figures["count"] or 0, FREE[parameter])
            if wait and (left := figures["last"] + wait - request.axes_attempt_time) > NO_TIME:
                request.login_wait = ceil(left.total_seconds())
                return True
        return False

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: Any = None, **kwargs: Any
    ) -> None:
        super().user_login_failed(sender, credentials, request, **kwargs)
        if request is None:
            return
        reason = "Not read, too many before" if request.axes_locked_out else "Wrong password"
        name = journal.account_meant(credentials)
        whose = f"account {name!r}" if name else "no account"
        logger.warning("%s: %s, from %s", reason, whose, request.axes_ip_address)

    def reset_user_attempts(
        self, request: HttpRequest, credentials: dict[str, Any] | None = None
    ) -> int:
        """Delete the failures of the account that logged in, not others of its address."""
        name = (credentials or {}).get("username")
        return AccessAttempt.objects.filter(username=name).delete()[0]


class SessionRenewalMiddleware:
    """Extend a session to `SESSION_COOKIE_AGE` from the last request.

    It is written at most every few minutes, and not by pictures: a page asks for many, beside acts
    whose notes in the session they would put back to what these were.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        session = request.session
        is_picture = response.headers.get("Content-Type", "").startswith("image/")
        if session.accessed and SESSION_KEY in session and not is_picture:
            now = int(time.time())
            if now - session.get(SEEN, 0) >= RENEWED_EVERY:
                session[SEEN] = now
        return response
