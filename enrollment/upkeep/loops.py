"""Long loops: a batch at a time, and with their progress shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
    """Shows how far a loop is: its items, what is being done, how many there are (None: not known)."""

    def __call__(
        self, items: Iterable[Item], label: str, total: int | None, /
    ) -> Iterable[Item]: ...


def untracked(items: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
    """What stands in for a progress bar."""
    return items


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
