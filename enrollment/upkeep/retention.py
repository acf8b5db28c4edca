"""Persons whose last day is over are deleted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from enrollment.enrolling import delete_person
from enrollment.exceptions import PersonNotFound
from enrollment.gallery import persons_due


def delete_due_persons(stopped: Callable[[], bool] = lambda: False) -> int:
    """Deletes everybody whose last day is over; returns how many went.

    Each is a transaction of its own; between them `stopped` may end it.
    """
    deleted = 0
    for person in persons_due().order_by("pk"):
        if stopped():
            break
        with suppress(PersonNotFound):  # another process was faster
            delete_person(person)
            deleted += 1
    return deleted
