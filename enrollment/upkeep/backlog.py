"""What interrupted writes left to do, and the thread of the server that does it.

The rows are the queue: nothing is lost with the thread, and doing the same work twice, here and in
another process, changes nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.db import DatabaseError, connection, connections
from django.db.models import Q, QuerySet
from django.utils import timezone
from django_tasks import TaskResultStatus
from django_tasks_db.models import DBTaskResult

from enrollment import enrolling, gallery, index, judging
from enrollment.models import FaceEmbedding, FaceImage, Removal
from enrollment.upkeep.retention import delete_due_persons
from recognition.exceptions import RecognitionError
from recognition.networks import find_weights, usable_names
from recognition.networks.loader import load_failure
from recognition.vector_store import get_vector_store, partition_name

logger = logging.getLogger(__name__)

GRACE: Final = timedelta(minutes=10)  # what is younger may be another thread's work in hand
PAUSE: Final = 60.0  # seconds from a pass that succeeded to the next
AT_A_TIME: Final = 10.0  # seconds of work, then what else is due gets its turn
FIRST_RETRY: Final = 1.0  # seconds after a pass that failed; doubled each time
LAST_RETRY: Final = 300.0
TASKS_KEPT: Final = timedelta(days=1)  # what a worker did, or was killed over

Status = FaceEmbedding.Status
Failure = FaceEmbedding.Failure

# What may go well the next time with the same picture and the same weights.
TRANSIENT: Final = (
    Failure.STORAGE_UNAVAILABLE,
    Failure.WEIGHTS_UNAVAILABLE,
    Failure.DETECTOR_UNAVAILABLE,
    Failure.OUT_OF_DEVICE_MEMORY,
)


@dataclass(frozen=True, slots=True)
class Work:
    """What a pass did."""

    indexed: int = 0
    failed: int = 0
    deleted: int = 0  # vectors
    judged: int = 0  # indexed pictures compared with the gallery

    def __bool__(self) -> bool:
        return any(astuple(self))


def unfinished(before: datetime) -> QuerySet[FaceEmbedding]:
    """Embeddings that Milvus lacks and may still be given: those pending from before then, and those
    that failed, in which nobody has a hand any more.

    A failure to compute that would only repeat itself is not among them. Nor is what other weights than
    those in use must compute ('reindex --keep'), or those that do not load.
    """
    ready = Q(vector__isnull=False)
    for name in usable_names():
        if not load_failure(name):
            ready |= Q(model=name, fingerprint=find_weights(name).fingerprint)
    waiting = Q(status=Status.PENDING, created_at__lt=before)
    failed = Q(vector__isnull=False) | Q(error__in=TRANSIENT)
    return FaceEmbedding.objects.filter(ready, waiting | Q(status=Status.FAILED) & failed)


def unjudged(before: datetime) -> QuerySet[FaceImage]:
    """Pictures stored before then that were not compared with the gallery."""
    return judging.unjudged().filter(created_at__lt=before)


def forget_old_tasks() -> None:
    """Deletes what `script/worker` did, or was killed over; what is still to do stays."""
    old = DBTaskResult.objects.filter(enqueued_at__lt=timezone.now() - TASKS_KEPT)
    old.exclude(status=TaskResultStatus.READY).delete()


def note_missing() -> int:
    """Marks as pending what SQL calls indexed and Milvus, emptied or set back, lacks; how many.

    SQL is read first: what is indexed or deleted meanwhile changes nothing.
    """
    marked = 0
    for name in usable_names():
        fingerprint = find_weights(name).fingerprint
        rows = FaceEmbedding.objects.filter(
            model=name, fingerprint=fingerprint, status=Status.INDEXED, vector__isnull=False
        )
        missing = set(rows.values_list("pk", flat=True))
        if missing:
            missing -= {
                row.id for row in get_vector_store().iterate(partition_name(name, fingerprint))
            }
        for ids in _slices(sorted(missing)):
            marked += rows.filter(pk__in=ids).update(status=Status.PENDING)
    return marked


def work_off(before: datetime, stopped: Callable[[], bool] = lambda: False) -> Work:
    """Does what was left undone before then; between batches `stopped` may end it.

    Raises `VectorStoreUnavailable`, and leaves everything as it is, while Milvus is away.
    """
    if not _anything_left(before):
        return Work()
    get_vector_store().ping()
    deleted = index.apply_deletions()
    report = index.IndexReport()
    for ids in _batches(unfinished(before), stopped):
        report += index.index_rows(ids)
    judged = 0
    for ids in _batches(unjudged(before), stopped):
        judging.judge(ids)
        judged += FaceImage.objects.filter(pk__in=ids).exclude(judged_at=None).count()
    return Work(report.indexed, report.failed, deleted, judged)


def _anything_left(before: datetime) -> bool:
    left = (Removal.objects.filter(file=""), unfinished(before), unjudged(before))
    return any(queryset.exists() for queryset in left)


def _batches(rows: QuerySet[Any], stopped: Callable[[], bool]) -> Iterator[list[int]]:
    for ids in _slices(list(rows.order_by("pk").values_list("pk", flat=True))):
        if stopped():
            return
        yield ids


def _slices(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), index.BATCH_SIZE):
        yield ids[start : start + index.BATCH_SIZE]


def _empty_log() -> None:
    """SQLite's write-ahead log still holds the pages as they were before a deletion."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return
    with connection.cursor() as cursor:
        # Whoever reads a while longer, as a backup does, must not keep all others from writing.
        cursor.execute("PRAGMA busy_timeout = 100")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class BacklogThread(threading.Thread):
    """Works off what is left, once at the start and then every minute, less often while it fails."""

    def __init__(self) -> None:
        super().__init__(name="backlog", daemon=True)
        self._stopping = threading.Event()
        self._failures = 0
        self._compared = False
        self._cut_short = False

    def run(self) -> None:
        index.thread_runs.set()
        before, due = timezone.now(), time.monotonic()
        while not self._stopping.is_set():
            # In turns: neither a queue that is never empty nor a long pass puts the other off for ever.
            if due <= time.monotonic():
                due = self._pass(before) + time.monotonic()
                before = timezone.now() - GRACE
            with suppress(queue.Empty):
                self._do(index.requested.get(timeout=max(0.0, due - time.monotonic())))
        index.thread_runs.clear()

    def stop(self, timeout: float) -> None:
        """Ends it after the batch in hand; waits for that so many seconds."""
        self._stopping.set()
        index.requested.put(lambda: None)
        self.join(timeout)

    def _do(self, asked: Callable[[], object]) -> None:
        try:
            asked()
        except Exception:  # noqa: BLE001 (the rows stay as they are: a later pass finds them)
            logger.exception("What was asked for in the background must wait")
        finally:
            connections.close_all()

    def _pass(self, before: datetime) -> float:
        """Does what is due; seconds until the next.

        No step that fails keeps the others from being done.
        """
        steps = (
            enrolling.forget_old_requests,
            enrolling.forget_old_imports,
            forget_old_tasks,
            gallery.forget_old_searches,
            self._delete_due_persons,
            self._remove_files,
            self._compare,
            partial(self._work_off, before),
            _empty_log,
        )
        done = [self._attempt(step) for step in steps]
        connections.close_all()
        if not all(done):
            return self._retry()
        self._failures = 0
        return 0.0 if self._cut_short else PAUSE

    def _attempt(self, step: Callable[[], object]) -> bool:
        try:
            return step() is not False
        except (RecognitionError, DatabaseError) as error:
            logger.warning("Work that was left must wait: %s", error)
        except Exception:  # noqa: BLE001 (the thread must outlive whatever one pass meets)
            logger.exception("Work that was left could not be done")
        return False

    def _delete_due_persons(self) -> None:
        if expired := delete_due_persons(self._stopping.is_set):
            logger.info("Deleted %d persons whose last day is over", expired)

    def _remove_files(self) -> bool:
        removed, kept = index.remove_files()
        if removed:
            logger.info("Deleted %d files of deleted pictures", removed)
        return not kept

    def _work_off(self, before: datetime) -> bool:
        end = time.monotonic() + AT_A_TIME
        self._cut_short = False

        def stopped() -> bool:
            self._cut_short = time.monotonic() > end
            return self._cut_short or self._stopping.is_set()

        work = work_off(before, stopped)
        if work:
            logger.info(
                "Did what was left: %d embeddings indexed, %d failed, %d vectors deleted, %d "
                "pictures compared with the gallery",
                *astuple(work),
            )
        return not work.failed

    def _compare(self) -> None:
        """Once: the folder may have been deleted or brought back from another day."""
        if self._compared:
            return
        if missing := note_missing():
            logger.warning("The vector database lacked %d embeddings; copying them", missing)
        self._compared = True

    def _retry(self) -> float:
        self._failures += 1
        return float(min(FIRST_RETRY * 2 ** (self._failures - 1), LAST_RETRY))
