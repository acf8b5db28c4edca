"""The contract of a vector store, and its data types.

There is one collection with a fixed schema. Each pair of model and weights fingerprint has its own
partition, so vectors of different networks are never compared. Rows are found and deleted by
integer id only, so no text from a user ever reaches a filter expression.
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

from recognition.instrumentation import timed
from recognition.neighbours import as_cosine

Item = TypeVar("Item")

COLLECTION: Final = "face_embeddings"
DEFAULT_PARTITION: Final = "_default"  # created by Milvus; we never write there
EMBEDDING_DIM: Final = 512
# Milvus counts bytes: 200 characters of person_id and 4,096 of image_path, 4 bytes each at most.
VARCHAR_BYTES: Final = {"person_id": 800, "image_path": 16_384, "created_at": 64}
MAX_HITS: Final = 16_384  # the most hits that a server returns
# SCANN divides vectors into cells. A search looks at all of them, as neighbours are in many: with a half
# it misses 1 of 100 among a million made-up vectors.
SCANN_CELLS: Final = 64
SCANN_COMPARED: Final = 200  # vectors of the nearest codes, in each segment of the data

BATCH_ROWS = 1_000  # rows in one upsert or delete call of a server
FILE_ROWS = (
    16_384  # rows that Milvus Lite writes to one file; smaller ones it merges again and again
)
PAGE_ROWS = 10_000  # rows in one page of a read; at most MAX_HITS
FLUSH_ROWS = 256  # Milvus Lite scans unflushed rows one by one, about 50 µs each
BULK_FLUSH_ROWS = (
    10_000  # of a Milvus Lite behind a server; flushing every batch would double its time
)


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A row to store; `embedding` is 512 float32, L2-normalised."""

    id: int
    embedding: np.ndarray = field(repr=False)
    person_id: str
    image_path: str
    created_at: str


@dataclass(frozen=True, slots=True)
class VectorHit:
    """A row that a search found; `similarity` is the cosine, -1 to 1, higher is nearer."""

    id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What is stored beside the vector, for comparison with SQL."""

    id: int
    person_id: str
    image_path: str


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """The index of a new collection; `m`, `ef_construction` and `ef` apply to HNSW only.

    `FLAT` compares with every vector and is exact. `SCANN` (Guo et al. 2020) compares with short
    codes of all vectors, and exactly with the vectors of the nearest codes; Milvus Lite has no such
    index and takes `FLAT`. `HNSW` (Malkov and Yashunin 2018) searches a graph and misses some
    neighbours. `AUTO` is `SCANN` on a server and `FLAT` in Milvus Lite.
    """

    kind: str = "AUTO"
    m: int = 16
    ef_construction: int = 200
    ef: int = 256

    def build_params(self, *, is_lite: bool) -> tuple[str, dict[str, int | bool]]:
        """Return the index type and the parameters to create it with.

        The FLAT index of Milvus Lite normalises all vectors again in each search: 31 ms among
        20,000 vectors and 360 ms among 100,000. IVF_FLAT with one cell finds the same with FAISS in
        10 and 50 ms.
        """
        if self.kind == "HNSW":
            return "HNSW", {"M": self.m, "efConstruction": self.ef_construction}
        if self.kind in ("AUTO", "SCANN") and not is_lite:
            return "SCANN", {"nlist": SCANN_CELLS, "with_raw_data": True}
        return ("IVF_FLAT", {"nlist": 1}) if is_lite else ("FLAT", {})

    def search_params(self, kind: str, built_with: Mapping[str, Any], limit: int) -> dict[str, int]:
        """Return the search parameters for the existing index, which may be older than the
        settings."""
        if kind == "HNSW":
            return {"ef": max(self.ef, limit)}
        if kind == "IVF_FLAT":
            return {"nprobe": int(built_with.get("nlist", 1))}
        if kind == "SCANN":
            cells = int(built_with.get("nlist", SCANN_CELLS))
            return {"nprobe": cells, "reorder_k": max(SCANN_COMPARED, 2 * limit)}
        return {}


def partition_name(model: str, fingerprint: str) -> str:
    """Return the name of the partition for one model with one weights file.

    Raise `ValueError` unless both consist of word characters.
    """
    name = f"{model}_{fingerprint}"
    if not re.fullmatch(r"[A-Za-z_]\w{1,254}", name, re.ASCII):
        raise ValueError(f"{name!r} cannot name a partition: letters, digits and _ are expected.")
    return name


def model_of_partition(name: str) -> str:
    """Return the model of a partition that `partition_name` named; see `WeightsFile.fingerprint`."""
    return name.removesuffix("_flip").rpartition("_")[0]


class VectorStore(ABC):
    """Vectors by integer id. Thread-safe; connects at the first call.

    Every failure of the engine raises `VectorStoreUnavailable`; values that cannot be stored raise
    `ValueError`. An id may be in one partition only, because Milvus Lite keeps one row and one
    tombstone an id. To move an id, delete it from the old partition before the upsert into the new
    one.
    """

    is_embedded: ClassVar[bool]  # whether only this process can write while the store is open

    @property
    @abstractmethod
    def searched_in(self) -> str:
        """What compares the vectors: "memory" (this process, by itself), "milvus_lite" or "milvus"."""

    def upsert(self, partition: str, rows: Sequence[VectorRow]) -> None:
        """Write rows, replacing rows with the same id; the next search finds them."""
        unique = list({row.id: row for row in rows}.values())
        for row in unique:
            _check_row(row)
        for batch in _batches(unique, FILE_ROWS if self.is_embedded else BATCH_ROWS):
            self._upsert_batch(partition, batch)
        if unique:
            self._make_visible()

    def delete(self, partition: str, ids: Iterable[int]) -> None:
        """Delete these ids. Missing ids and a missing partition are no error."""
        wanted = [int(id_) for id_ in ids]
        for batch in _batches(wanted, BATCH_ROWS):
            self._delete_batch(partition, batch)
        if wanted:
            self._make_visible()

    @abstractmethod
    def erase(self, partition: str, ids: Iterable[int]) -> None:
        """Remove the data of already deleted ids from the files.

        A server is only asked to compact its segments, which it does at its own time.
        """

    def search(self, partition: str, vectors: np.ndarray, limit: int) -> list[list[VectorHit]]:
        """Return the `limit` nearest rows for each of (N, 512) float32 vectors, best first."""
        queries = as_matrix(vectors)
        if limit < 1 or not len(queries):
            return [[] for _query in queries]
        with timed("search"):
            found = self._search(partition, queries, min(limit, MAX_HITS))
        return [[VectorHit(id_, as_cosine(value)) for id_, value in hits] for hits in found]

    @abstractmethod
    def iterate(self, partition: str) -> Iterator[StoredRow]:
        """Yield every row of a partition; `DEFAULT_PARTITION` has rows outside our partitions."""

    @abstractmethod
    def partitions(self) -> list[str]:
        """Return the names of our partitions, sorted, without Milvus's own `_default`."""

    @abstractmethod
    def drop_partition(self, partition: str) -> None:
        """Drop a partition with its rows; a missing one is no error. Not for `_default`."""

    @abstractmethod
    def clear(self) -> None:
        """Drop the collection, whatever its schema or state; the next call creates an empty one."""

    @abstractmethod
    def row_count(self) -> int:
        """Return the number of live rows in all partitions, without replaced and deleted ones."""

    @abstractmethod
    def flush(self) -> None:
        """Write rows in memory to disk and index them."""

    def compare_memory(self) -> bool:
        """Return whether the vectors held in memory equal the stored ones; reload them if not."""
        return True

    @abstractmethod
    def ping(self) -> bool:
        """Return True if the collection is open and answers. Raise `VectorStoreUnavailable`."""

    @abstractmethod
    def close(self) -> None:
        """Close the database or the connection; the next call opens it again."""

    @abstractmethod
    def _upsert_batch(self, partition: str, rows: list[VectorRow]) -> None:
        """Write at most `FILE_ROWS` or `BATCH_ROWS` rows of different ids; create the partition if needed."""

    @abstractmethod
    def _delete_batch(self, partition: str, ids: list[int]) -> None: ...

    @abstractmethod
    def _make_visible(self) -> None:
        """Ensure that the next search of every client finds what was written, without delay."""

    @abstractmethod
    def _search(
        self, partition: str, queries: np.ndarray, limit: int
    ) -> list[list[tuple[int, float]]]:
        """Return ids and cosines for each query. Called with N ≥ 1 and 1 ≤ `limit` ≤ `MAX_HITS`."""


class FairLock:
    """A first-come lock: a thread that releases it cannot take it again before those that wait."""

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
    """Return the vectors as contiguous (N, 512) float32.

    Raise `ValueError` for another shape or values that are not finite.
    """
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != EMBEDDING_DIM or not np.isfinite(matrix).all():
        raise ValueError(f"Expected finite vectors of shape (N, 512), not {matrix.shape}.")
    return matrix


def as_entity(row: VectorRow, vector: Any) -> dict[str, Any]:
    """Return the row as a Milvus entity; `vector` is in the form that the engine accepts."""
    return {
        "id": row.id,
        "embedding": vector,
        "person_id": row.person_id,
        "image_path": row.image_path,
        "created_at": row.created_at,
    }


def as_stored(entity: Mapping[str, Any]) -> StoredRow:
    """Return the row from an entity that Milvus returned."""
    return StoredRow(int(entity["id"]), entity["person_id"], entity["image_path"])


def _check_row(row: VectorRow) -> None:
    as_matrix(row.embedding[None])
    for name, limit in VARCHAR_BYTES.items():
        if (size := len(getattr(row, name).encode())) > limit:
            raise ValueError(f"{name} of row {row.id} has {size} bytes; at most {limit} fit.")


def _batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
