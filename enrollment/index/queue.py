"""Embeddings to be indexed while nobody waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final

from django.conf import settings

from enrollment.index.indexing import index_embeddings, index_rows

# What the server's thread is asked to do. What is lost here with the process is found by its next pass.
requested: Final[SimpleQueue[Callable[[], object]]] = SimpleQueue()
thread_runs: Final = threading.Event()


def request_indexing(ids: list[int]) -> None:
    """Has the embeddings indexed while nobody waits: by the worker, or by the server's own thread.

    Where there is neither, as in a management command, it is done at once.
    """
    if settings.TASKS_BACKEND == "immediate" and thread_runs.is_set():
        requested.put(partial(index_rows, ids))
    else:
        index_embeddings.enqueue(ids)
