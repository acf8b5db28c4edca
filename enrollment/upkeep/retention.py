"""Erase persons whose retention period is over.

They do not go into the trash: what is past its purpose may not be kept any longer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from enrollment.enrolling import erase_person
from enrollment.exceptions import PersonNotFound
from enrollment.gallery import persons_due


def delete_due_persons(stopped: Callable[[], bool] = lambda: False) -> int:
    """Erase all persons whose last day is over; return how many.

    Each is its own transaction; `stopped` is asked between two.
    """
    deleted = 0
    for person in persons_due().order_by("pk"):
        if stopped():
            break
        with suppress(PersonNotFound):  # another process was faster
            erase_person(person)
            deleted += 1
    return deleted
