"""Helpers for long loops: batches and progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from django.utils.translation import gettext

from enrollment import index

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


def index_batches(ids: Sequence[int], track: Track = untracked) -> Iterator[list[int]]:
    """Yield the embeddings in batches for `index.index_rows`, and show how many are done."""
    done = iter(track(range(len(ids)), gettext("Indexing"), len(ids)))
    for batch in index.in_batches(ids, index.BATCH_SIZE, index.COPY_SIZE):
        yield batch
        for _one in islice(done, len(batch)):
            pass
