"""Template context for all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrollment import inbox
from recognition.api.access import needs_account, open_to

if TYPE_CHECKING:
    from django.http import HttpRequest


def door(request: HttpRequest) -> dict[str, Any]:
    """Return what every page says: `open_to`, who needs no account, for visitors who were let in
    without one."""
    return {"open_to": "" if needs_account(request) else open_to()}


def inbox_count(request: HttpRequest) -> dict[str, Any]:
    """Return `inbox_count`, which says how many cards wait; nothing to visitors who must log in.

    It is asked for by templates that show it to who may browse, and counted anew every few seconds.
    """
    user = getattr(request, "user", None)  # none yet where a request was refused early
    is_let_in = user and (user.is_authenticated or not needs_account(request))
    return {"inbox_count": inbox.count if is_let_in else 0}
