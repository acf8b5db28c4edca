"""Template context for all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recognition.api.access import needs_account, open_to

if TYPE_CHECKING:
    from django.http import HttpRequest


def door(request: HttpRequest) -> dict[str, str]:
    """Return `open_to`: who needs no account, for visitors who were let in without one."""
    return {"open_to": "" if needs_account(request) else open_to()}
