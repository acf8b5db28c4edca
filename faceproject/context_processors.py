"""Template context for all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enrollment.web import kept_for
from recognition.api.access import needs_account, open_to

if TYPE_CHECKING:
    from django.http import HttpRequest


def door(request: HttpRequest) -> dict[str, Any]:
    """Return what every page says: `open_to`, who needs no account, for visitors who were let in
    without one; `kept_for`, for how long searched faces are kept."""
    return {"open_to": "" if needs_account(request) else open_to(), "kept_for": kept_for()}
