"""Helpers for long loops: batches and progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
    """A wrapper that shows the progress of a loop: items, label, and their number (None: unknown)."""

    def __call__(
        self, items: Iterable[Item], label: str, total: int | None, /
    ) -> Iterable[Item]: ...


def untracked(items: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
    """Return the items unchanged, without showing progress."""
    return items


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last list may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
