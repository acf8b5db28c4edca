"""Vectors of one partition in memory, for exact search.

For each search Milvus Lite checks the state of every row in a Python loop: 140 ms among 100,000 rows, of
which the arithmetic takes 10. Here the state is kept up to date by writes instead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recognition.vector_store.base import EMBEDDING_DIM

# 256 MB, of which the system gives what is used. Fewer products of larger matrices wait less for the
# threads of the BLAS: 8 blocks in place of one took four times as long on a busy machine.
BLOCK_ROWS: Final = 131_072
TIDY_ROWS: Final = 1_024  # smaller blocks are not worth tidying
ROW_BYTES: Final = EMBEDDING_DIM * 4
NO_ID: Final = -1  # marks a row that was deleted or replaced
_CELLS: Final = 16_000_000  # similarities computed at once, 4 bytes each
_COPIED_ROWS: Final = 16_384
# The rounding of a matrix product depends on the number of queries. Rows this close to the last place
# are compared again one by one.
_ROUNDING: Final = 1e-5

Found = list[tuple[int, float]]


class _Block:
    """Rows are written once and never changed, so a search can read them while others are added."""

    __slots__ = ("ids", "live", "used", "vectors")

    def __init__(self) -> None:
        self.vectors = np.empty((BLOCK_ROWS, EMBEDDING_DIM), np.float32)
        self.ids = np.empty(BLOCK_ROWS, np.int64)
        self.used = self.live = 0

    @property
    def is_full(self) -> bool:
        return self.used == BLOCK_ROWS


@dataclass(slots=True, eq=False)
class _Request:
    """A search that waits for its answer."""

    queries: np.ndarray
    limit: int
    found: list[Found] | None = None


class ResidentVectors:
    """Vectors by id. Thread-safe; searches and writes do not wait for each other.

    A search sees the vectors at one moment. Searches that arrive while another one computes are
    answered together, as a matrix product with many queries costs little more than with one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for microseconds, or while a load copies its vectors
        self._turn = threading.Lock()  # held by the search that computes
        self._waiting: list[_Request] = []
        self._blocks: list[_Block] = []
        self._places: dict[int, tuple[_Block, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """Memory used by the vectors, without the free rows of the last block."""
        return sum(block.used for block in self._blocks) * ROW_BYTES

    def put(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        """Add (N, 512) vectors of any length, replacing those with the same ids."""
        with self._lock:
            self._forget(ids)
            self._append(ids, vectors)
            self._tidy()

    def remove(self, ids: Iterable[int]) -> None:
        """Remove these ids; absent ones are ignored."""
        with self._lock:
            self._forget(ids)
            self._tidy()

    def differs_from(self, ids: Sequence[int], vectors: np.ndarray) -> bool:
        """Return whether ids or vectors differ from these, which are all that should be here."""
        with self._lock:
            if self._places.keys() != set(ids):
                return True
            for start in range(0, len(ids), _COPIED_ROWS):
                places = [self._places[id_] for id_ in ids[start : start + _COPIED_ROWS]]
                here = np.stack([block.vectors[row] for block, row in places])
                unit = normalised(vectors[start : start + _COPIED_ROWS])
                if not np.allclose(here, unit, rtol=0, atol=1e-6):
                    return True
            return False

    def search(self, queries: np.ndarray, limit: int) -> list[Found]:
        """Return ids and cosines of the `limit` nearest to each of (N, 512) queries, best first, ties by id."""
        request = _Request(normalised(queries), limit)
        with self._lock:
            self._waiting.append(request)
        with self._turn:
            if request.found is None:
                with self._lock:
                    asked, self._waiting = self._waiting, []
                if request not in asked:  # the search that took it along failed
                    asked.append(request)
                self._answer(asked)
        return request.found or []

    # Writing

    def _append(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        done = 0
        while done < len(ids):
            if not self._blocks or self._blocks[-1].is_full:
                self._blocks.append(_Block())
            block = self._blocks[-1]
            start = block.used
            stop = min(start + len(ids) - done, BLOCK_ROWS, start + _COPIED_ROWS)
            part = ids[done : done + stop - start]
            block.vectors[start:stop] = normalised(vectors[done : done + stop - start])
            block.ids[start:stop] = part
            self._places.update((id_, (block, row)) for row, id_ in enumerate(part, start))
            block.used = stop
            block.live += stop - start
            done += stop - start

    def _forget(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            if place := self._places.pop(id_, None):
                block, row = place
                block.ids[row] = NO_ID
                block.live -= 1

    def _tidy(self) -> None:
        """Free blocks with less than half of their rows alive, after moving these rows."""
        for block in [b for b in self._blocks if b.used >= TIDY_ROWS and b.live < b.used // 2]:
            self._blocks.remove(block)
            rows = np.flatnonzero(block.ids[: block.used] != NO_ID)
            self._append(block.ids[rows].tolist(), block.vectors[rows])

    # Searching

    def _answer(self, asked: Sequence[_Request]) -> None:
        with self._lock:
            parts = [(b.vectors[: b.used], b.ids[: b.used].copy()) for b in self._blocks]
        ids = np.concatenate([np.empty(0, np.int64), *(part for _vectors, part in parts)])
        queries = np.concatenate([request.queries for request in asked])
        limits = [request.limit for request in asked for _query in request.queries]
        step = max(1, _CELLS // max(len(ids), 1))
        found: list[Found] = []
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            for query, cosines, limit in zip(
                some, _cosines(some, parts, ids), limits[start:], strict=False
            ):
                found.append(_nearest(query, cosines, limit, parts, ids))
        for request in asked:
            count = len(request.queries)
            request.found, found = found[:count], found[count:]


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return (N, 512) float32 vectors with length 1; zero vectors stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1)[:, None].astype(np.float32))


Parts = Sequence[tuple[np.ndarray, np.ndarray]]  # vectors and ids of each block


def _cosines(queries: np.ndarray, parts: Parts, ids: np.ndarray) -> np.ndarray:
    """Return the cosine of each query with each row, (queries, rows) float32; -2 for deleted rows."""
    cosines = np.empty((len(queries), len(ids)), np.float32)
    start = 0
    for vectors, _ids in parts:
        stop = start + len(vectors)
        if len(queries) == 1:  # matrix times vector is faster
            np.dot(vectors, queries[0], out=cosines[0, start:stop])
        else:
            cosines[:, start:stop] = (vectors @ queries.T).T
        start = stop
    cosines[:, ids == NO_ID] = -2
    return cosines


def _nearest(
    query: np.ndarray, cosines: np.ndarray, limit: int, parts: Parts, ids: np.ndarray
) -> Found:
    """Return the nearest rows. Their cosines are computed again row by row, so equal vectors tie."""
    least = -1.5
    if limit < len(cosines):
        least = max(least, np.partition(cosines, -limit)[-limit] - _ROUNDING)
    rows = np.flatnonzero(cosines >= least)
    if not len(rows):
        return []
    vectors = np.concatenate(list(_taken(parts, rows)))
    exact = np.einsum("ij,j->i", vectors, query, dtype=np.float64).astype(np.float32)
    order = np.lexsort((ids[rows], -exact))[:limit]
    return list(zip(ids[rows[order]].tolist(), exact[order].tolist(), strict=True))


def _taken(parts: Parts, rows: np.ndarray) -> Iterable[np.ndarray]:
    """Yield the vectors of these rows (ascending numbers across all blocks), block by block."""
    start = 0
    for vectors, _ids in parts:
        stop = start + len(vectors)
        first, last = np.searchsorted(rows, (start, stop))
        yield vectors[rows[first:last] - start]
        start = stop
