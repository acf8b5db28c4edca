"""Days as options of commands."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import date
from typing import Final

from django.utils.translation import gettext as _

MOST_DAYS: Final = 36_500


def day(text: str) -> date:
    """Return the day, which is written as 2027-12-31. Raise `ArgumentTypeError`."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(_("This is no day. Write it as 2027-12-31.")) from error
