"""What Milvus Lite has no public call for: reading and writing rows by columns, a flush that loses nothing, rewriting
files without deleted rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recognition.vector_store import base
from recognition.vector_store.base import EMBEDDING_DIM, StoredRow, VectorRow, as_stored

if TYPE_CHECKING:
    from milvus_lite import Collection


class Stored:
    """A snapshot of the live rows of one partition.

    `ids` has N ids, `vectors` is (N, 512) float32, and `sources` are places for `stored_rows`.
    It reads what Milvus Lite's own query() reads, which makes a dict of each row in 64 µs.
    test_memory_holds_what_is_stored fails when an upgrade changes it.
    """

    def __init__(self, collection: Collection, partition: str) -> None:
        from milvus_lite.search.assembler import assemble_candidates
        from milvus_lite.search.bitmap import build_valid_mask

        segments, deletions = collection._read_snapshot()
        ids, numbers, vectors, sources, _mask = assemble_candidates(
            segments, collection._memtable, "embedding", [partition]
        )
        live = build_valid_mask(ids, numbers, deletions, memtable=collection._memtable)
        places = np.flatnonzero(live).tolist()
        self.ids: list[int] = [ids[place] for place in places]
        self.vectors: np.ndarray = vectors if live.all() else vectors[live]
        self.sources: list[tuple[Any, Any]] = [sources[place] for place in places]


def stored_rows(sources: Sequence[tuple[Any, Any]]) -> Iterator[StoredRow]:
    """What is stored beside the vectors, by pages: out of files by columns, of what is in no file yet by rows."""
    for start in range(0, len(sources), base.PAGE_ROWS):
        page = sources[start : start + base.PAGE_ROWS]
        for _same, group in groupby(page, key=lambda source: id(source[0])):
            of_one = list(group)
            holder, places = of_one[0][0], [place for _holder, place in of_one]
            if isinstance(places[0], int):
                table = holder.table.select(["id", "person_id", "image_path"])
                yield from map(as_stored, table.take(places).to_pylist())
            else:
                yield from (as_stored(holder.materialize_row(*place)) for place in places)


def flush(collection: Collection) -> None:
    """Write the rows in memory to files, or leave everything as it was and raise what went wrong.

    Milvus Lite begins a new memory and a new log before it writes. When the disk is full it has lost
    what was in memory, rows and deletions, and its next flush deletes the log that still holds it.
    test_rows_outlive_a_flush_that_failed fails when an upgrade changes it.
    """
    manifest = collection._manifest
    with collection._maintenance_lock:  # nothing is merged meanwhile
        memory, log, files = collection._memtable, collection._wal, deepcopy(manifest._partitions)
        try:
            collection.flush()
        except BaseException:
            if collection._wal is not log and not log._closed:
                collection._wal.close_and_delete()
                collection._memtable, collection._wal = memory, log
                manifest._partitions = files
            raise


@contextmanager
def _files_as_they_were_unless_done(collection: Collection) -> Iterator[None]:
    """Let nobody else change the collection's files; a block that fails leaves the list of them alone.

    Otherwise a file that holds erased rows would count as rewritten though the list on the disk, which
    the next start reads, still names it.
    """
    manifest = collection._manifest
    with collection._maintenance_lock:
        files = deepcopy(manifest._partitions)
        try:
            yield
        except BaseException:
            manifest._partitions = files
            raise


def append_file(
    collection: Collection, partition: str, rows: Sequence[VectorRow], vectors: np.ndarray
) -> None:
    """Write rows, whose embeddings are `vectors` ((N, 512) float32), to a new file of the partition.

    Milvus Lite's own insert() checks each of the 512 numbers of a row and copies them as Python's,
    first to its log and then to such a file: 0.2 ms a row. This does what its flush does with that
    file, so nothing may be unflushed. A crash leaves the file without an entry in the manifest, and
    the next start removes it. test_bulk_is_stored_like_single_rows fails when an upgrade changes it.
    """
    import pyarrow as pa
    from milvus_lite.schema.arrow_builder import build_data_schema
    from milvus_lite.storage.data_file import write_data_file

    schema = build_data_schema(collection.schema)
    first, last = collection._next_seq, collection._next_seq + len(rows) - 1
    columns = {
        "_seq": pa.array(range(first, last + 1), pa.uint64()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), EMBEDDING_DIM),
    }
    for name in set(schema.names) - columns.keys():
        columns[name] = pa.array([getattr(row, name) for row in rows], schema.field(name).type)
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    home = Path(collection.data_dir) / "partitions" / partition
    with _files_as_they_were_unless_done(collection):
        collection._next_seq = last + 1
        place = write_data_file(table, str(home), first, last)
        collection._manifest.add_data_file(partition, place)
        collection._manifest.current_seq = last
        collection._manifest.save()
        collection._refresh_segment_cache()
    collection._schedule_bg_maintenance()


def rewrite_files(collection: Collection, partition: str, ids: set[int]) -> None:
    """Rewrite the files of the partition that hold rows of these ids, without these rows.

    Milvus Lite does this by itself only when it has four files of a similar size, and has no public
    call for it. So this calls what its background compaction calls; searches can go on meanwhile.
    test_erased_rows_are_in_no_file fails when an upgrade changes it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(ids, pa.int64())
    home = Path(collection.data_dir) / "partitions" / partition
    with collection._maintenance_lock:
        for name in list(collection._manifest.get_data_files(partition)):
            held = pq.read_table(home / name, columns=[collection.pk_field])[0]
            if pc.any(pc.is_in(held, wanted)).as_py():
                with _files_as_they_were_unless_done(collection):
                    collection._compaction_mgr._compact_files(
                        partition, str(home), [name], collection._manifest, collection._delta_index
                    )
        collection._refresh_segment_cache()
        collection._cleanup_orphan_index_files()
    collection._ensure_loaded_segments_indexed()
