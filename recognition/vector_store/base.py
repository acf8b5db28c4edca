"""The contract that every engine keeps, and the values that go in and out.

One collection of one fixed schema; each pair of model and weights fingerprint has its own
partition, so that vectors of different networks never meet. Lookups and deletes go by integer ids
only: nothing that a person typed ever reaches a filter expression.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Final, TypeVar

import numpy as np

Item = TypeVar("Item")

COLLECTION: Final = "face_embeddings"
DEFAULT_PARTITION: Final = "_default"  # Milvus's own; we write nothing there: strays
EMBEDDING_DIM: Final = 512
# Milvus counts bytes: 200 characters of person_id and 4,096 of image_path, 4 bytes each at most.
VARCHAR_BYTES: Final = {"person_id": 800, "image_path": 16_384, "created_at": 64}
MAX_HITS: Final = 16_384  # a server's window of results ends there

BATCH_ROWS = 1_000  # rows an upsert or delete sends at once
PAGE_ROWS = 10_000  # rows read at once; at most MAX_HITS
FLUSH_ROWS = 256  # Milvus Lite searches unflushed rows one by one, about 50 µs each
BULK_FLUSH_ROWS = 10_000  # within one upsert: a flush for every batch doubles its time


@dataclass(frozen=True, slots=True)
class VectorRow:
    """What is stored; `embedding` is 512 float32, L2-normalised."""

    id: int
    embedding: np.ndarray = field(repr=False)
    person_id: str
    image_path: str
    created_at: str


@dataclass(frozen=True, slots=True)
class VectorHit:
    """One found row; `similarity` is the cosine, -1 to 1, higher is nearer."""

    id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What is stored beside the vector, to compare with SQL."""

    id: int
    person_id: str
    image_path: str


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How a new collection finds the nearest; `m`, `ef_construction` and `ef` are of HNSW alone.

    `FLAT` compares with every vector: exact. `HNSW` (Malkov and Yashunin 2018) walks a graph: at
    hundreds of thousands quicker, at the price of some neighbours that it misses.
    """

    kind: str = "FLAT"
    m: int = 16
    ef_construction: int = 200
    ef: int = 256

    def build_params(self, *, is_lite: bool) -> tuple[str, dict[str, int]]:
        """Type and parameters to create the index with.

        FLAT of Milvus Lite computes in NumPy and normalises all vectors again for each search: 31 ms
        among 20,000 and 360 ms among 100,000, where FAISS over one cell with all takes 10 and 50 ms.
        """
        if self.kind == "HNSW":
            return "HNSW", {"M": self.m, "efConstruction": self.ef_construction}
        return ("IVF_FLAT", {"nlist": 1}) if is_lite else ("FLAT", {})

    def search_params(self, kind: str, built_with: Mapping[str, Any], limit: int) -> dict[str, int]:
        """What to search the index with that is there, which may be older than the settings."""
        if kind == "HNSW":
            return {"ef": max(self.ef, limit)}
        if kind == "IVF_FLAT":
            return {"nprobe": int(built_with.get("nlist", 1))}
        return {}


def partition_name(model: str, fingerprint: str) -> str:
    """The partition of one model with one weights file; both of word characters (ValueError)."""
    name = f"{model}_{fingerprint}"
    if not re.fullmatch(r"[A-Za-z_]\w{1,254}", name, re.ASCII):
        raise ValueError(f"{name!r} cannot name a partition: letters, digits and _ are expected.")
    return name


class VectorStore(ABC):
    """Vectors by integer id. Thread-safe; opens at the first call.

    Every failure of the engine is a VectorStoreUnavailable; values that cannot be stored are a
    ValueError. An id lives in one partition: Milvus Lite keeps one row and one tombstone per id. To
    move an id, delete it from the old partition before the upsert into the new one.
    """

    is_embedded: ClassVar[bool]  # whether this process alone can write, as long as it is open

    def upsert(self, partition: str, rows: Sequence[VectorRow]) -> None:
        """Write rows, replacing those of the same id; the next search finds them."""
        unique = list({row.id: row for row in rows}.values())
        for row in unique:
            _check_row(row)
        for batch in _batches(unique):
            self._upsert_batch(partition, batch)
        if unique:
            self._make_visible()

    def delete(self, partition: str, ids: Iterable[int]) -> None:
        """Forget these ids; absent ones and an absent partition are fine."""
        wanted = [int(id_) for id_ in ids]
        for batch in _batches(wanted):
            self._delete_batch(partition, batch)
        if wanted:
            self._make_visible()

    @abstractmethod
    def erase(self, partition: str, ids: Iterable[int]) -> None:
        """Have the files hold nothing more of these ids, which were deleted before.

        A server does so when its own time for it has come; it is asked to merge its segments.
        """

    def search(self, partition: str, vectors: np.ndarray, limit: int) -> list[list[VectorHit]]:
        """The `limit` nearest rows to each of (N, 512) float32 vectors, best first."""
        queries = as_matrix(vectors)
        if limit < 1 or not len(queries):
            return [[] for _query in queries]
        found = self._search(partition, queries, min(limit, MAX_HITS))
        return [[VectorHit(id_, _as_cosine(value)) for id_, value in hits] for hits in found]

    @abstractmethod
    def iterate(self, partition: str) -> Iterator[StoredRow]:
        """Every row of a partition, by pages; `DEFAULT_PARTITION` shows what is in none of ours."""

    @abstractmethod
    def partitions(self) -> list[str]:
        """The names of our partitions, sorted; Milvus's own `_default` is left out."""

    @abstractmethod
    def drop_partition(self, partition: str) -> None:
        """Forget a partition with all its rows; an absent one is fine. Not for `_default`."""

    @abstractmethod
    def clear(self) -> None:
        """Drop the collection, whatever its schema or state; the next call makes an empty one."""

    @abstractmethod
    def row_count(self) -> int:
        """Live rows of the whole collection: replaced and deleted ones are not counted."""

    @abstractmethod
    def flush(self) -> None:
        """Write what is in memory to disk and index it."""

    @abstractmethod
    def ping(self) -> bool:
        """True when the collection is open and answers; VectorStoreUnavailable otherwise."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database or the connection; the next call opens it again."""

    @abstractmethod
    def _upsert_batch(self, partition: str, rows: list[VectorRow]) -> None:
        """Write at most `BATCH_ROWS` rows of different ids, making the partition if need be."""

    @abstractmethod
    def _delete_batch(self, partition: str, ids: list[int]) -> None: ...

    @abstractmethod
    def _make_visible(self) -> None:
        """Have what was written found by the next search, quickly, by every client."""

    @abstractmethod
    def _search(
        self, partition: str, queries: np.ndarray, limit: int
    ) -> list[list[tuple[int, float]]]:
        """Ids and cosines for each of at least one query; 1 ≤ `limit` ≤ `MAX_HITS`."""


class FairLock:
    """A lock that whoever waits gets next: who lets it go cannot take it back before them."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._turn:
            self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


def as_matrix(vectors: np.ndarray) -> np.ndarray:
    """The vectors as (N, 512) float32 in one block; ValueError where they are not, or not finite."""
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != EMBEDDING_DIM or not np.isfinite(matrix).all():
        raise ValueError(f"Expected finite vectors of shape (N, 512), not {matrix.shape}.")
    return matrix


def as_entity(row: VectorRow, vector: Any) -> dict[str, Any]:
    """The row as Milvus takes it, with its vector in the form that the engine takes."""
    return {
        "id": row.id,
        "embedding": vector,
        "person_id": row.person_id,
        "image_path": row.image_path,
        "created_at": row.created_at,
    }


def as_stored(entity: Mapping[str, Any]) -> StoredRow:
    """The row out of an answer of Milvus."""
    return StoredRow(int(entity["id"]), entity["person_id"], entity["image_path"])


def _check_row(row: VectorRow) -> None:
    as_matrix(row.embedding[None])
    for name, limit in VARCHAR_BYTES.items():
        if (size := len(getattr(row, name).encode())) > limit:
            raise ValueError(f"{name} of row {row.id} has {size} bytes; at most {limit} fit.")


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), BATCH_ROWS):
        yield items[start : start + BATCH_ROWS]


def _as_cosine(value: float) -> float:
    """FAISS gives 1.0000002 for a vector and itself."""
    return max(-1.0, min(1.0, float(value)))
