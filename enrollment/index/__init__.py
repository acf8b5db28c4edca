"""Keep the vectors in Milvus in step with the rows in SQL."""

from enrollment.index.indexing import (
    BATCH_SIZE,
    COPY_SIZE,
    IndexReport,
    begin,
    complete_rows,
    compute,
    create_pending,
    in_batches,
    index_rows,
)
from enrollment.index.queue import request_indexing, requested, thread_runs
from enrollment.index.removals import (
    apply_deletions,
    files_in_use,
    remove_deleted,
    remove_files,
)
from enrollment.index.requesting import request_upsert, together
from enrollment.index.signals import register_signal_handlers

__all__ = [
    "BATCH_SIZE",
    "COPY_SIZE",
    "IndexReport",
    "apply_deletions",
    "begin",
    "complete_rows",
    "compute",
    "create_pending",
    "files_in_use",
    "in_batches",
    "index_rows",
    "register_signal_handlers",
    "remove_deleted",
    "remove_files",
    "request_indexing",
    "request_upsert",
    "requested",
    "thread_runs",
    "together",
]
