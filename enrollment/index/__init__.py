"""Keep the vectors in Milvus in step with the rows in SQL."""

from enrollment.index.indexing import (
    BATCH_SIZE,
    IndexReport,
    complete_rows,
    compute,
    create_pending,
    index_rows,
)
from enrollment.index.progress import Track, batches, index_batches, untracked
from enrollment.index.queue import (
    request_indexing,
    request_upsert,
    requested,
    server_takes,
    thread_runs,
    together,
)
from enrollment.index.removals import apply_deletions, files_in_use, remove_deleted, remove_files
from enrollment.index.signals import register_signal_handlers

__all__ = [
    "BATCH_SIZE",
    "IndexReport",
    "Track",
    "apply_deletions",
    "batches",
    "complete_rows",
    "compute",
    "create_pending",
    "files_in_use",
    "index_batches",
    "index_rows",
    "register_signal_handlers",
    "remove_deleted",
    "remove_files",
    "request_indexing",
    "request_upsert",
    "requested",
    "server_takes",
    "thread_runs",
    "together",
    "untracked",
]
