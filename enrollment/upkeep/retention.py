"""Erase persons whose retention period is over.

They do not go into the trash: what is past its purpose may not be kept any longer.
"""

from __future__ import annotations

from collections.abc import Callable

from enrollment.corrections import erase_each, erase_person
from enrollment.gallery import persons_due


def delete_due_persons(stopped: Callable[[], bool] = lambda: False) -> int:
    """Erase all persons whose last day is over; return how many.

    Each is its own transaction; `stopped` is asked between two.
    """
    return erase_each(persons_due().order_by("pk"), erase_person, stopped)
