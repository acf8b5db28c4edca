"""Vectors and files of deleted rows that still have to be removed from Milvus and the storage.

Deleting a person, a picture or an embedding records each of its vectors and files in the same
transaction, including those of cascaded rows, with a few queries for any number of rows. Names are
removed from the admin's history of the rows at the same time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.apps import apps
from django.db import models, transaction
from django.db.models import CharField, Q, Value
from django.db.models.functions import Cast, Concat
from django.dispatch import Signal
from django.utils.translation import gettext_lazy as _

from recognition.vector_store import partition_name

ROWS_AT_A_TIME: Final = 10_000  # SQLite takes 32,766 parameters

# Sent inside the transaction that recorded removals.
removals_noted = Signal()

# Lookups of the embeddings, and of the pictures, that are deleted together with a model's rows.
_EMBEDDINGS_OF: Final = {
    "Person": "face_image__person__in",
    "FaceImage": "face_image__in",
    "FaceEmbedding": "pk__in",
}
_PICTURES_OF: Final = {"Person": "person__in", "FaceImage": "pk__in"}


class Removal(models.Model):
    """A vector still to be deleted from Milvus, or a file still to be deleted from the picture
    storage."""

    embedding_id = models.BigIntegerField(null=True)
    partition = models.CharField(max_length=120, blank=True)
    file = models.CharField(
        max_length=200, blank=True, default="", db_default="", help_text="empty: it is a vector"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("pending deletion")
        verbose_name_plural = _("pending deletions")

    def __str__(self) -> str:
        return self.file or f"{self.partition} {self.embedding_id}"


def lock_rows(rows: models.QuerySet[Any]) -> list[int]:
    """Lock the rows until the transaction ends, in the order of their keys; return these.

    PostgreSQL locks what an UPDATE changes in no order: two that change the same rows at once could
    each wait for the other.
    """
    return [row.pk for row in rows.order_by("pk").only("pk").select_for_update(of=("self",))]


class DurablyDeletedQuerySet(models.QuerySet[Any]):
    """A queryset that records the vectors and files of the rows that it deletes."""

    def delete(self) -> tuple[int, dict[str, int]]:
        return self._delete(erase=True)

    delete.alters_data = True  # type: ignore[attr-defined]  # as Django marks its own
    delete.queryset_only = True  # type: ignore[attr-defined]

    def delete_into_trash(self) -> None:
        """Delete the rows and record their vectors; leave their files and the admin's history."""
        self._delete(erase=False)

    delete_into_trash.alters_data = True  # type: ignore[attr-defined]
    delete_into_trash.queryset_only = True  # type: ignore[attr-defined]

    def _delete(self, erase: bool) -> tuple[int, dict[str, int]]:
        by_model: Counter[str] = Counter()
        with transaction.atomic():
            ids = list(self.order_by("pk").values_list("pk", flat=True))
            for start in range(0, len(ids), ROWS_AT_A_TIME):
                rows = self.model._base_manager.filter(pk__in=ids[start : start + ROWS_AT_A_TIME])
                _record_removals_with(rows, erase)
                by_model.update(rows.delete()[1])
        return by_model.total(), dict(by_model)


class DurablyDeleted(models.Model):
    """A model that records the vectors and files of a row when the row is deleted."""

    objects = DurablyDeletedQuerySet.as_manager()

    class Meta:
        abstract = True

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            _record_removals_with(type(self)._base_manager.filter(pk=self.pk), erase=True)
            return super().delete(*args, **kwargs)


def _record_removals_with(rows: models.QuerySet[Any], erase: bool) -> None:
    """Lock rows of `Person`, `FaceImage` or `FaceEmbedding`, and their pictures, and record their
    vectors.

    With `erase` also record their files, and remove their names from the admin's history. A process
    that judges a picture may add a doubt about it meanwhile: it waits for the lock, and then finds
    the picture gone.
    """
    lock_rows(rows)
    name = rows.model.__name__
    embeddings = apps.get_model("enrollment.FaceEmbedding")._base_manager.all()
    vectors = embeddings.filter(**{_EMBEDDINGS_OF[name]: rows.values("pk")})
    files: list[str] = []
    if name in _PICTURES_OF:
        pictures = apps.get_model("enrollment.FaceImage")._base_manager.all()
        pictures = pictures.filter(**{_PICTURES_OF[name]: rows.values("pk")})
        locked = pictures.order_by("pk").select_for_update(of=("self",))
        named = list(locked.values_list("image", flat=True))
        if erase:
            files = named
            forget_in_history(
                {
                    kind.model: kind.annotate(text=Cast("pk", CharField())).values("text")
                    for kind in (rows, pictures)
                }
            )
    note_removals(vectors.values_list("pk", "model", "fingerprint"), files)


def forget_in_history(ids: Mapping[type[models.Model], Any]) -> None:
    """Remove names and changes from the admin's log entries of these rows; user and time are kept.

    `ids` holds the keys of each model as texts, or a subquery of them.
    """
    content_types = apps.get_model("contenttypes.ContentType").objects.get_for_models(*ids)
    about = Q()
    for model, texts in ids.items():
        about |= Q(content_type=content_types[model], object_id__in=texts)
    entries = apps.get_model("admin.LogEntry").objects.filter(about)
    entries.update(object_repr=Concat(Value("#"), "object_id"), change_message="")


def note_removals(vectors: Iterable[tuple[int, str, str]] = (), files: Iterable[str] = ()) -> None:
    """Record vectors (id, model, fingerprint) and stored files for removal after the commit."""
    noted = [
        Removal(embedding_id=pk, partition=partition_name(model, fingerprint))
        for pk, model, fingerprint in vectors
    ]
    noted += [Removal(file=file) for file in files if file]
    if noted:
        Removal.objects.bulk_create(noted, batch_size=ROWS_AT_A_TIME // 4)
        removals_noted.send(Removal)
