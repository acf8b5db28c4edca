"""Remove vectors and files of deleted rows after the commit; failed removals are tried again."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet
from django_tasks import task

from enrollment.index.indexing import writing
from enrollment.index.queue import request_upsert, server_takes
from enrollment.models import Consent, FaceEmbedding, FaceImage, Removal, TrashedPart
from recognition.exceptions import RecognitionError
from recognition.log_text import first_line
from recognition.vector_store import get_vector_store

logger = logging.getLogger(__name__)

AT_A_TIME = 1_000


class _Run:
    """One run of `remove_deleted`, shared by all deletions in a transaction."""

    asked_for = False


# `.run` belongs to this thread's transaction, as each thread has its own connection.
_next = threading.local()


def request_removals(**kwargs: Any) -> None:
    """Run `remove_deleted` once after the commit, in the background.

    Each deletion registers its own hook, because a rolled-back savepoint drops the hooks made in
    it. The first remaining hook starts the run and the others do nothing.
    """
    run = getattr(_next, "run", None) or _Run()
    _next.run = run

    def ask_once() -> None:  # no partial: when one fails, Django 5.2 drops the hooks after it
        if run.asked_for:
            return
        run.asked_for, _next.run = True, None
        if not server_takes(remove_deleted.func):
            remove_deleted.enqueue()

    transaction.on_commit(ask_once, robust=True)


@task()
def remove_deleted() -> None:
    """Remove the recorded files and vectors. What cannot be removed stays recorded."""
    remove_files()
    try:
        apply_deletions()
    except RecognitionError as error:
        logger.error(
            "Vectors of deleted pictures stay in Milvus until it answers: %s", first_line(error)
        )


def remove_files() -> tuple[int, int]:
    """Delete the recorded files; return how many were removed and how many failed."""
    storage = FaceImage._meta.get_field("image").storage
    removed = kept = last = 0
    waiting = Removal.objects.exclude(file="").order_by("pk")
    while notes := list(waiting.filter(pk__gt=last)[:AT_A_TIME]):
        last = notes[-1].pk
        in_use = files_in_use([note.file for note in notes])
        done = []
        for note in notes:
            try:
                if note.file not in in_use:  # in use again after a restore
                    storage.delete(note.file)
            except Exception:  # noqa: BLE001 (each storage fails with classes of its own)
                logger.exception("The file %s of a deleted picture stays in the storage", note.file)
            else:
                done.append(note.pk)
        Removal.objects.filter(pk__in=done).delete()
        removed += len(done)
        kept += len(notes) - len(done)
    return removed, kept


def files_in_use(names: Sequence[str]) -> set[str]:
    """Return those of the stored files that a picture, a consent or the trash holds."""
    pictures = FaceImage.objects.filter(image__in=names).order_by().values_list("image", flat=True)
    trashed = TrashedPart.objects.filter(file__in=names).order_by().values_list("file", flat=True)
    # One query: between two, a file could pass from the one to the other.
    documents = Consent.objects.filter(document__in=names).order_by()
    return set(pictures.union(trashed, documents.values_list("document", flat=True)))


def apply_deletions() -> int:
    """Delete the recorded vectors from Milvus and erase them from its files; return how many.

    Vectors of rows that were restored meanwhile stay, and are copied again: a run before this one may
    have deleted them and was interrupted. What is recorded meanwhile is left to the next run, and what
    another one did meanwhile is done: who waits for this waits for two runs at most.
    """
    applied = 0
    store = get_vector_store()
    recorded = Removal.objects.filter(file="").order_by("pk")
    asked = _last(recorded)
    with writing:
        last = _last(recorded) if recorded.filter(pk__lte=asked).exists() else 0
        while notes := list(recorded.filter(pk__lte=last)[:AT_A_TIME]):
            rows = FaceEmbedding.objects.filter(pk__in=[note.embedding_id for note in notes])
            restored = set(rows.values_list("pk", flat=True))
            by_partition: defaultdict[str, list[int]] = defaultdict(list)
            for note in notes:
                if note.embedding_id is not None and note.embedding_id not in restored:
                    by_partition[note.partition].append(note.embedding_id)
            for partition, ids in by_partition.items():
                store.delete(partition, ids)
                store.erase(partition, ids)
            with transaction.atomic():
                if rows.exists():
                    request_upsert(rows, same_persons=True)
                Removal.objects.filter(pk__in=[note.pk for note in notes]).delete()
            applied += len(notes)
    return applied


def _last(recorded: QuerySet[Removal]) -> int:
    return recorded.aggregate(last=Max("pk"))["last"] or 0
