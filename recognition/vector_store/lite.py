"""The embedded database: Milvus Lite on a folder, inside this process.

It is used through its documented engine API, so no port or socket is open to others, and no gRPC or
pymilvus is involved.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from recognition.exceptions import VectorStoreUnavailable
from recognition.vector_store import base
from recognition.vector_store.base import (
    COLLECTION,
    DEFAULT_PARTITION,
    EMBEDDING_DIM,
    VARCHAR_BYTES,
    FairLock,
    StoredRow,
    VectorIndex,
    VectorRow,
    VectorStore,
    as_entity,
    as_matrix,
)
from recognition.vector_store.errors import (
    database_failed,
    database_locked,
    folder_is_file,
    other_schema,
)
from recognition.vector_store.lite_rows import (
    Stored,
    append_file,
    flush,
    rewrite_files,
    stored_rows,
)
from recognition.vector_store.resident import ROW_BYTES, ResidentVectors

if TYPE_CHECKING:
    from milvus_lite import Collection, CollectionSchema, MilvusLite


logger = logging.getLogger(__name__)

PARTIAL: Final = ".idx.part"  # an index file that is being written
MEMORY_BYTES: Final = 1024 * 1024 * 1024


class LiteVectorStore(VectorStore):
    """A folder that one process can open at a time; others get `VectorStoreLocked`.

    With a `FLAT` index, partitions that are searched are also held in memory, up to `memory` bytes,
    and searched there. They are loaded at the first search and follow every write.
    """

    is_embedded = True

    def __init__(
        self,
        folder: str | Path,
        index: VectorIndex = VectorIndex(),  # noqa: B008 (frozen)
        memory: int = MEMORY_BYTES,
    ) -> None:
        self._folder = Path(folder)
        self._index = index
        self._memory = 0 if index.kind == "HNSW" else memory
        # Written by the thread with the lock, read by searches. None: the partition is too large.
        self._resident: dict[str, ResidentVectors | None] = {}
        # Milvus Lite allows one writer, and a search during a flush would miss the rows being flushed.
        self._lock = FairLock()
        self._database: MilvusLite | None = None
        self._collection: Collection | None = None
        self._unflushed = 0

    @property
    def searched_in(self) -> str:
        fits = self._memory and None not in self._resident.values()
        return "memory" if fits else "milvus_lite"

    def iterate(self, partition: str) -> Iterator[StoredRow]:
        with self._opened() as collection:
            sources = Stored(collection, partition).sources
        return stored_rows(sources)

    def partitions(self) -> list[str]:
        with self._opened() as collection:
            return sorted(set(collection.list_partitions()) - {DEFAULT_PARTITION})

    def drop_partition(self, partition: str) -> None:
        with self._opened() as collection:
            self._resident.pop(partition, None)
            if collection.has_partition(partition):
                collection.drop_partition(partition)

    def clear(self) -> None:
        with self._lock, _failures_translated():
            self._resident.clear()
            self._open_database().drop_collection(COLLECTION)
            # Without its schema file, Milvus Lite does not see a collection, and then fails to create a
            # new one in its place. So remove its folder too, which depends on Milvus Lite's file layout.
            # test_damaged_folder_is_refused_until_cleared fails when an upgrade changes the layout.
            shutil.rmtree(self._folder / "collections" / COLLECTION, ignore_errors=True)
            self._collection = None
            self._unflushed = 0

    def row_count(self) -> int:
        with self._opened() as collection:
            return int(collection.num_entities)

    def flush(self) -> None:
        with self._opened() as collection:
            self._flush(collection)

    def ping(self) -> bool:
        with self._opened():
            return True

    def close(self) -> None:
        with self._lock:
            self._resident.clear()
            if self._database:
                self._database.close()
            self._database = self._collection = None
            self._unflushed = 0

    def compare_memory(self) -> bool:
        same = True
        for partition in list(self._resident):
            with self._opened() as collection:
                if (resident := self._resident.get(partition)) is not None:
                    stored = Stored(collection, partition)
                    if resident.differs_from(stored.ids, stored.vectors):
                        del self._resident[partition]
                        same = False
        if not same:
            logger.error("Vectors in memory differed from the embedded database and are read again")
        return same

    def erase(self, partition: str, ids: Iterable[int]) -> None:
        with self._opened() as collection:
            if not collection.has_partition(partition):
                return
            self._flush(collection)
        with _failures_translated():
            rewrite_files(collection, partition, {int(id_) for id_ in ids})

    def _upsert_batch(self, partition: str, rows: list[VectorRow]) -> None:
        with self._opened() as collection:
            if not collection.has_partition(partition):
                collection.create_partition(partition)
            vectors = as_matrix(np.stack([row.embedding for row in rows]))
            with self._followed(partition) as resident:
                # Neither way by upsert(), which looks up each older row to complete fields; ours are complete.
                if len(rows) < base.FLUSH_ROWS:
                    entities = [as_entity(row, row.embedding.tolist()) for row in rows]
                    collection.insert(entities, partition_name=partition)
                    self._unflushed += len(rows)
                else:
                    self._flush(collection)  # what was written before comes before
                    append_file(collection, partition, rows, vectors)
                if resident is not None:
                    resident.put([row.id for row in rows], vectors)

    def _delete_batch(self, partition: str, ids: list[int]) -> None:
        with self._opened() as collection:
            if collection.has_partition(partition):
                with self._followed(partition) as resident:
                    collection.delete(ids, partition_name=partition)
                    if resident is not None:
                        resident.remove(ids)
                self._unflushed += len(ids)

    @contextmanager
    def _followed(self, partition: str) -> Iterator[ResidentVectors | None]:
        """Yield the vectors in memory that must follow a write; when it fails, they are reloaded later."""
        try:
            yield self._resident.get(partition)
            if self._resident.get(partition) is not None and not self._fits():
                self._resident[partition] = None
        except BaseException:
            self._resident.pop(partition, None)
            raise

    def _make_visible(self) -> None:
        """Flush when many rows are unflushed: these are visible but slow to search."""
        with self._opened() as collection:
            if self._unflushed >= base.FLUSH_ROWS:
                self._flush(collection)

    def _search(
        self, partition: str, queries: np.ndarray, limit: int
    ) -> list[list[tuple[int, float]]]:
        # Without the lock, so that a search does not wait for a flush.
        if (resident := self._resident.get(partition)) is not None:
            return resident.search(queries, limit)
        with self._opened() as collection:
            if not collection.has_partition(partition):
                return [[] for _query in queries]
            if (resident := self._loaded(collection, partition)) is None:
                return self._search_engine(collection, partition, queries, limit)
        return resident.search(queries, limit)

    def _search_engine(
        self, collection: Collection, partition: str, queries: np.ndarray, limit: int
    ) -> list[list[tuple[int, float]]]:
        """Search with Milvus Lite's own index."""
        index = collection.get_index_info("embedding")
        found = collection.search(
            list(queries),
            top_k=limit,
            metric_type="COSINE",
            partition_names=[partition],
            output_fields=[],
            anns_field="embedding",
            search_params=self._index.search_params(
                index["index_type"], index["build_params"], limit
            ),
        )
        return [[(int(hit["id"]), hit["distance"]) for hit in hits] for hits in found]

    def _loaded(self, collection: Collection, partition: str) -> ResidentVectors | None:
        """Return the partition's vectors in memory, loaded if necessary; None if they do not fit."""
        if partition not in self._resident:
            self._resident[partition] = None
            if self._fits(collection.partition_num_entities(partition) * ROW_BYTES):
                stored = Stored(collection, partition)
                resident = ResidentVectors()
                resident.put(stored.ids, stored.vectors)
                self._resident[partition] = resident
        return self._resident[partition]

    def _fits(self, more: int = 0) -> bool:
        held = sum(each.nbytes for each in self._resident.values() if each is not None)
        return bool(self._memory) and held + more <= self._memory

    @contextmanager
    def _opened(self) -> Iterator[Collection]:
        """Yield the collection while holding the lock; translate the engine's errors."""
        with self._lock, _failures_translated():
            if self._collection is None:
                self._collection = self._open_collection(self._open_database())
            yield self._collection

    def _open_database(self) -> MilvusLite:
        if self._database is None:
            try:
                self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._folder.mkdir(mode=0o700, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise folder_is_file(error) from error
            self._database = _engine().MilvusLite(str(self._folder))
            for cut_off in self._folder.rglob(f"*{PARTIAL}"):  # by a crash
                cut_off.unlink()
        return self._database

    def _open_collection(self, database: MilvusLite) -> Collection:
        if database.has_collection(COLLECTION):
            collection = database.get_collection(COLLECTION)
            if not _is_ours(collection.schema):
                raise other_schema()
        else:
            collection = database.create_collection(COLLECTION, _our_schema())
        if not collection.has_index("embedding"):
            kind, build = self._index.build_params(is_lite=True)
            index = {"index_type": kind, "metric_type": "COSINE", "params": build}
            collection.create_index("embedding", index)
        collection.load()
        try:
            # Rows recovered from the write-ahead log are slow to search until they are flushed.
            self._flush(collection)
        except Exception as error:  # noqa: BLE001 (a full disk hinders no search: they are in memory)
            logger.warning("The embedded database cannot write its log to a file yet: %s", error)
            self._unflushed = base.FLUSH_ROWS
        return collection

    def _flush(self, collection: Collection) -> None:
        flush(collection)
        self._unflushed = 0


@contextmanager
def _failures_translated() -> Iterator[None]:
    """Raise our errors for any exception of the engine, Python, Arrow or FAISS."""
    try:
        yield
    except VectorStoreUnavailable:
        raise
    except Exception as error:
        if isinstance(error, _engine().DataDirLockedError):
            raise database_locked() from error
        raise database_failed(error) from error


def _our_schema() -> CollectionSchema:
    engine = _engine()
    types, make = engine.DataType, engine.FieldSchema
    fields = [
        make("id", types.INT64, is_primary=True),
        make("embedding", types.FLOAT_VECTOR, dim=EMBEDDING_DIM),
        *(make(name, types.VARCHAR, max_length=size) for name, size in VARCHAR_BYTES.items()),
    ]
    return engine.CollectionSchema(fields)


def _is_ours(schema: CollectionSchema) -> bool:
    """Return whether the schema has our fields; text fields may be longer than ours."""
    expected = {field.name: field for field in _our_schema().fields}
    return {field.name for field in schema.fields} == expected.keys() and all(
        field.dtype == expected[field.name].dtype
        and field.is_primary == expected[field.name].is_primary
        and field.dim == expected[field.name].dim
        and not field.auto_id
        and (field.max_length or 0) >= (expected[field.name].max_length or 0)
        for field in schema.fields
    )


@lru_cache(maxsize=1)
def _engine() -> ModuleType:
    """Return Milvus Lite, imported at the first call (0.2 s)."""
    import faiss
    import milvus_lite

    # FAISS warns on standard error about cells with few vectors, and our index is a single cell. Neither
    # FAISS nor Milvus Lite has an option against it. So we replace the class in FAISS's module, where
    # Milvus Lite looks it up: test_few_vectors_are_indexed_without_a_word fails when that changes.
    class QuietIVFFlat(faiss.IndexIVFFlat):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.cp.min_points_per_centroid = 1

    vars(faiss)["IndexIVFFlat"] = QuietIVFFlat
    # Milvus Lite builds indexes in a thread of its own and reads any index file that is there, also one
    # that this thread is still writing or that a crash cut off. It calls FAISS by its module, too:
    # test_an_index_file_is_whole_or_absent fails when that changes.
    vars(faiss)["write_index"] = whole_files(faiss.write_index)
    engine: ModuleType = milvus_lite
    return engine


def whole_files(write: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    """Return `write(index, path)` as a function that leaves a whole file at `path`, or none."""

    def write_whole(index: Any, path: str) -> None:
        descriptor, partial = tempfile.mkstemp(dir=Path(path).parent, suffix=PARTIAL)
        os.close(descriptor)
        try:
            write(index, partial)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    return write_whole
