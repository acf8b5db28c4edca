"""Embeddings to be indexed while nobody waits for them."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Final

from django.conf import settings

from enrollment.index.indexing import index_embeddings

# Ids of embeddings that the server's thread is asked for; None asks it to end. What is lost here with
# the process is found by the thread's next pass.
requested: Final[SimpleQueue[list[int] | None]] = SimpleQueue()
thread_runs: Final = threading.Event()


def request_indexing(ids: list[int]) -> None:
    """Has the embeddings indexed while nobody waits: by the worker, or by the server's own thread.

    Where there is neither, as in a management command, it is done at once.
    """
    if settings.TASKS_BACKEND == "immediate" and thread_runs.is_set():
        requested.put(ids)
    else:
        index_embeddings.enqueue(ids)
