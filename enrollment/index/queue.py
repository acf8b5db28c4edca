"""Request indexing: inside the transaction that makes it necessary, or in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from typing import Final

from django.conf import settings
from django.db import models, transaction

from enrollment.index.indexing import create_pending, index_embeddings, index_rows
from enrollment.models import FaceEmbedding, FaceImage, judge_again, lock_rows
from recognition.networks import usable_names

# Work for the server's background thread. What a crash loses is found again by its next pass.
requested: Final[SimpleQueue[Callable[[], object]]] = SimpleQueue()
thread_runs: Final = threading.Event()
_gathered: ContextVar[list[int] | None] = ContextVar("index_gathered", default=None)


def server_takes(work: Callable[[], object]) -> bool:
    """Leave the work to the server's own thread; return False where a worker does it, or where no such
    thread runs, as in a management command."""
    if settings.TASKS_BACKEND != "immediate" or not thread_runs.is_set():
        return False
    requested.put(work)
    return True


def request_indexing(ids: list[int]) -> None:
    """Index the embeddings in the background, or at once where nobody else does."""
    if not server_takes(partial(index_rows, ids)):
        index_embeddings.enqueue(ids)


def request_embeddings(face_images: Iterable[FaceImage]) -> None:
    """After the commit, embed the pictures with every model that has weights."""
    _enqueue_after_commit(create_pending(face_images, usable_names()))


def request_upsert(
    embeddings: models.QuerySet[FaceEmbedding], *, same_persons: bool = False
) -> None:
    """After the commit, copy what SQL says of these embeddings to Milvus again.

    The pictures are also judged again, unless they belong to the `same_persons` as before.
    """
    with transaction.atomic():
        ids = lock_rows(embeddings)
        if not same_persons:
            judge_again(FaceImage.objects.filter(pk__in=embeddings.values("face_image")))
        embeddings.update(status=FaceEmbedding.Status.PENDING)
        _enqueue_after_commit(ids)


@contextmanager
def together() -> Iterator[None]:
    """Within a transaction: what is requested in this block is done in one go after the commit."""
    ids: list[int] = []
    token = _gathered.set(ids)
    try:
        yield
    finally:
        _gathered.reset(token)
    _enqueue_after_commit(ids)


def _enqueue_after_commit(ids: list[int]) -> None:
    if (gathered := _gathered.get()) is not None:
        gathered += ids  # also those that are rolled back: they are copied as SQL has them
        return

    def enqueue() -> None:  # no partial: when one fails, Django 5.2 drops the hooks after it
        index_embeddings.enqueue(ids)

    if ids:
        transaction.on_commit(enqueue, robust=True)
