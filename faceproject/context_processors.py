"""What every page knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recognition.api.access import needs_account, open_to

if TYPE_CHECKING:
    from django.http import HttpRequest


def door(request: HttpRequest) -> dict[str, str]:
    """`open_to`: to whom the server is open without an account, for those who come in so."""
    return {"open_to": "" if needs_account(request) else open_to()}
