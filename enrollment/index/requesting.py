"""Request embedding and copying, inside the transaction that makes it necessary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import models, transaction

from enrollment.index.indexing import create_pending, index_embeddings
from enrollment.models import FaceEmbedding, FaceImage, lock_rows
from recognition.networks import usable_names

_gathered: ContextVar[list[int] | None] = ContextVar("index_gathered", default=None)


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
            pictures = FaceImage.objects.filter(pk__in=embeddings.values("face_image"))
            lock_rows(pictures)
            pictures.update(judged_at=None)
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
