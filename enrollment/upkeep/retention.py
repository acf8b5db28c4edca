"""Delete persons whose retention period is over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from enrollment.enrolling import delete_person
from enrollment.exceptions import PersonNotFound
from enrollment.gallery import persons_due


def delete_due_persons(stopped: Callable[[], bool] = lambda: False) -> int:
    """Delete all persons whose last day is over; return how many.

    Each deletion is its own transaction; `stopped` is asked between two.
    """
    deleted = 0
    for person in persons_due().order_by("pk"):
        if stopped():
            break
        with suppress(PersonNotFound):  # another process was faster
            delete_person(person)
            deleted += 1
    return deleted
