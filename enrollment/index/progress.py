"""Long loops in batches, with their progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Protocol, TypeVar

from django.utils.translation import gettext

from enrollment.index.indexing import BATCH_SIZE, COPY_SIZE, begin, in_batches
from recognition.embedding import Crop
from recognition.lookahead import Crew, one_ahead

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


def index_batches(
    ids: Sequence[int], track: Track = untracked, label: str = ""
) -> Iterator[tuple[list[int], Mapping[int, Future[Crop]]]]:
    """Yield the embeddings in batches for `index.index_rows`, and show how many are done.

    With a batch come its crops, which were begun while the batch before was worked on.
    """
    done = iter(track(range(len(ids)), label or gettext("Indexing"), len(ids)))
    with Crew() as crew:
        batches = in_batches(ids, BATCH_SIZE, COPY_SIZE)
        for batch, begun in one_ahead((batch, begin(crew, batch)) for batch in batches):
            yield batch, begun
            for _one in islice(done, len(batch)):
                pass
