"""Indexing in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final

from django.conf import settings

from enrollment.index.indexing import index_embeddings, index_rows

# Work for the server's background thread. What a crash loses is found again by its next pass.
requested: Final[SimpleQueue[Callable[[], object]]] = SimpleQueue()
thread_runs: Final = threading.Event()


def request_indexing(ids: list[int]) -> None:
    """Index the embeddings in the background: in the worker or in the server's own thread.

    Without either, as in a management command, index them at once.
    """
    if settings.TASKS_BACKEND == "immediate" and thread_runs.is_set():
        requested.put(partial(index_rows, ids))
    else:
        index_embeddings.enqueue(ids)
