"""Finish the work that interrupted writes left, in a background thread of the server.

The rows in SQL are the queue, so nothing is lost with the thread. Of several servers one does it
(`leader`). Doing the same work twice, here and in another process, is harmless.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection, connections
from django.db.models import Max, Q, QuerySet
from django.utils import timezone
from django_tasks import TaskResultStatus
from django_tasks_db.models import DBTaskResult

from enrollment import corrections, enrolling, gallery, index, journal, judging, probes
from enrollment.imports import carry_out_imports, drop_claims, forget_old_jobs, leave_imports
from enrollment.index import batches, index_batches
from enrollment.models import ErasedId, FaceEmbedding, FaceImage, Removal, compute_again
from enrollment.upkeep.figures import LAST_PASS
from enrollment.upkeep.leader import Leadership
from enrollment.upkeep.picture_files import delete_leftover_files
from enrollment.upkeep.retention import delete_due_persons
from enrollment.upkeep.safe_copy import forget_old_copies
from enrollment.upkeep.settings_record import note_settings
from recognition.exceptions import RecognitionError
from recognition.networks import find_weights, usable_names
from recognition.networks.loader import load_failure
from recognition.vector_store import get_vector_store, partition_name

logger = logging.getLogger(__name__)

GRACE: Final = timedelta(minutes=10)  # another thread may still be working on younger rows
PAUSE: Final = 60.0  # seconds between a successful pass and the next
LOOKED_FOR_IMPORTS: Final = 5.0  # seconds: other processes leave imports in SQL, too
OTHERS_TAKE: Final = 2.0  # seconds between two batches of an import, at the most
AT_A_TIME: Final = 10.0  # seconds of work before other due work gets its turn
LISTS_KEPT: Final = 3600.0  # seconds from a look at the lists beside backups to the next
MEMORY_COMPARED: Final = 3600.0  # seconds from a comparison of the vectors in memory to the next
FILES_COMPARED: Final = 86400.0  # seconds from a comparison of the stored files to the next
FIRST_RETRY: Final = 1.0  # seconds after a pass that failed; doubled each time
LAST_RETRY: Final = 300.0
UPDATE_TAKES: Final = timedelta(days=7)  # at most, from the first server of it to the last
TASKS_KEPT: Final = timedelta(days=1)  # finished or aborted tasks of a worker

Status = FaceEmbedding.Status
Failure = FaceEmbedding.Failure

# Failures that may not happen again with the same picture and the same weights.
TRANSIENT: Final = (
    Failure.STORAGE_UNAVAILABLE,
    Failure.WEIGHTS_UNAVAILABLE,
    Failure.DETECTOR_UNAVAILABLE,
    Failure.OUT_OF_DEVICE_MEMORY,
)


@dataclass(frozen=True, slots=True)
class Work:
    """What a pass did, in numbers."""

    indexed: int = 0
    failed: int = 0
    deleted: int = 0  # vectors
    judged: int = 0  # indexed pictures compared with the gallery

    def __bool__(self) -> bool:
        return any(astuple(self))


def unfinished(before: datetime) -> QuerySet[FaceEmbedding]:
    """Return embeddings that still have to be copied to Milvus and can be.

    These are pending rows created before `before`, so that nobody is working on them, and failed
    rows. Left out are failures to compute that would only repeat, and rows without a vector whose
    weights are not in use (`reindex --keep`) or do not load.
    """
    ready = Q(vector__isnull=False)
    for name in usable_names():
        if not load_failure(name):
            ready |= Q(model=name, fingerprint=find_weights(name).fingerprint)
    waiting = Q(status=Status.PENDING, created_at__lt=before)
    failed = Q(vector__isnull=False) | Q(error__in=TRANSIENT)
    return FaceEmbedding.objects.filter(ready, waiting | Q(status=Status.FAILED) & failed)


def unjudged(before: datetime) -> QuerySet[FaceImage]:
    """Return pictures stored before `before` that were not compared with the gallery."""
    return judging.unjudged().filter(created_at__lt=before)


def forget_old_tasks() -> None:
    """Delete old tasks of `script/worker` that are finished or were aborted; keep those still to
    run."""
    old = DBTaskResult.objects.filter(enqueued_at__lt=timezone.now() - TASKS_KEPT)
    old.exclude(status=TaskResultStatus.READY).delete()


def note_missing() -> int:
    """Mark embeddings as pending that SQL has as indexed but Milvus lacks; return how many.

    Milvus lacks rows after it was emptied or restored, also of weights that are not in use and may
    come back. SQL is read first, so rows that are indexed or deleted meanwhile are not affected.
    """
    marked = 0
    indexed = FaceEmbedding.objects.filter(status=Status.INDEXED, vector__isnull=False)
    for model, fingerprint in indexed.order_by().values_list("model", "fingerprint").distinct():
        rows = indexed.filter(model=model, fingerprint=fingerprint)
        missing = set(rows.values_list("pk", flat=True))
        partition = partition_name(model, fingerprint)
        missing -= {row.id for row in get_vector_store().iterate(partition)}
        for ids in batches(sorted(missing), index.BATCH_SIZE):
            marked += rows.filter(pk__in=ids).update(status=Status.PENDING)
    return marked


def lacking() -> int:
    """Return how many embeddings SQL has as indexed more than Milvus holds, of all weights."""
    indexed = FaceEmbedding.objects.filter(status=Status.INDEXED).count()
    return indexed - get_vector_store().row_count()


def work_off(before: datetime, stopped: Callable[[], bool] = lambda: False) -> Work:
    """Finish the work left from before `before`; `stopped` is asked between batches.

    Raise `VectorStoreUnavailable` while Milvus is down; then nothing is changed.
    """
    if not _anything_left(before):
        return Work()
    get_vector_store().ping()
    deleted = index.apply_deletions()
    report = index.IndexReport()
    left = list(unfinished(before).order_by("pk").values_list("pk", flat=True))
    for ids, begun in index_batches(left):
        if stopped():
            break
        report += index.index_rows(ids, begun=begun)
    judged = 0
    waiting = list(unjudged(before).order_by("pk").values_list("pk", flat=True))
    for ids in batches(waiting, index.BATCH_SIZE):
        if stopped():
            break
        judging.judge(ids)
        judged += FaceImage.objects.filter(pk__in=ids).exclude(judged_at=None).count()
    return Work(report.indexed, report.failed, deleted, judged)


def _anything_left(before: datetime) -> bool:
    left = (Removal.objects.filter(file=""), unfinished(before), unjudged(before))
    return any(queryset.exists() for queryset in left)


def _truncate_wal() -> None:
    """Truncate SQLite's write-ahead log, which still holds the pages of deleted rows."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return
    with connection.cursor() as cursor:
        # A short timeout: waiting for a long reader, such as a backup, would block all writers.
        cursor.execute("PRAGMA busy_timeout = 100")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class BacklogThread(threading.Thread):
    """Finish leftover work at the start and then every minute, less often while it fails."""

    def __init__(self) -> None:
        super().__init__(name="backlog", daemon=True)
        self._stopping = threading.Event()
        self._failures = 0
        self._leadership = Leadership()
        self._led = False
        self._lacked: int | None = None  # embeddings that Milvus had too few at the last comparison
        self._computed = False
        self._listed: int | None = None  # the last erasure on the lists beside backups
        self._lists_due = time.monotonic()
        self._memory_due = self._files_due = time.monotonic() + MEMORY_COMPARED
        self._cut_short = False
        self._before, self._due = timezone.now(), time.monotonic()

    def run(self) -> None:
        index.thread_runs.set()
        LAST_PASS.set_to_current_time()
        self._due = time.monotonic()
        self._do(drop_claims)
        self._do(leave_imports)  # an earlier version's task may have another name now
        while not self._stopping.is_set():
            # Alternate, so that neither a full queue nor a long pass starves the other.
            self._pass_if_due()
            wait = min(self._due - time.monotonic(), LOOKED_FOR_IMPORTS)
            with suppress(queue.Empty):
                self._do(index.requested.get(timeout=max(0.0, wait)))
            self._do(self._carry_out_imports)
        self._leadership.give_up()
        index.thread_runs.clear()

    def stop(self, timeout: float) -> None:
        """End the thread after the current batch; wait at most `timeout` seconds."""
        self._stopping.set()
        index.requested.put(lambda: None)
        self.join(timeout)

    def _pass_if_due(self) -> None:
        if self._due <= time.monotonic():
            self._due = self._pass(self._before) + time.monotonic()
            self._before = timezone.now() - GRACE

    def _carry_out_imports(self) -> None:
        """Carry out the imports that wait; those of a worker only if it left them for long."""
        is_left = settings.TASKS_BACKEND == "database"
        before = timezone.now() - GRACE if is_left else None
        carry_out_imports(self._let_others_in, before)

    def _let_others_in(self) -> bool:
        """Do, between two batches of an import, what else is to be done; return whether to stop."""
        until = time.monotonic() + OTHERS_TAKE
        with suppress(queue.Empty):
            while time.monotonic() < until and not self._stopping.is_set():
                self._do(index.requested.get_nowait())
        if not self._stopping.is_set():
            self._pass_if_due()
        return self._stopping.is_set()

    def _do(self, asked: Callable[[], object]) -> None:
        try:
            asked()
        except Exception:  # noqa: BLE001 (the rows stay as they are: a later pass finds them)
            logger.exception("What was asked for in the background must wait")
        finally:
            connections.close_all()

    def _pass(self, before: datetime) -> float:
        """Run all due steps; return the seconds until the next pass.

        A step that fails does not prevent the others.
        """
        steps = (
            enrolling.forget_old_imports,
            enrolling.give_back_taken,
            forget_old_copies,
            self._list_erased,
            self._compare_memory,
            self._compute,
            partial(self._lead, before),
            _truncate_wal,
        )
        done = [self._attempt(step) for step in steps]
        connections.close_all()
        if not all(done):
            return self._retry()
        self._failures = 0
        LAST_PASS.set_to_current_time()
        return 0.0 if self._cut_short else PAUSE

    def _lead(self, before: datetime) -> bool:
        """Do what one of several servers does for all, if it is this one; return whether all went
        well."""
        led, self._led, self._cut_short = self._led, False, False
        self._led = self._leadership.held()
        if not self._led:
            return True
        if not led:  # finish also what was half done when the last one that led ended
            before = timezone.now()
        steps = (
            enrolling.forget_old_requests,
            forget_old_tasks,
            forget_old_jobs,
            gallery.forget_old_searches,
            self._forget_faces,
            journal.forget_old_lines,
            note_settings,
            self._delete_due_persons,
            self._empty_trash,
            self._remove_files,
            self._compare,
            partial(self._work_off, before),
            self._compare_files,
        )
        done = [self._attempt(step) for step in steps]
        return all(done)

    def _attempt(self, step: Callable[[], object]) -> bool:
        try:
            return step() is not False
        except (RecognitionError, DatabaseError) as error:
            logger.warning("Work that was left must wait: %s", error)
        except Exception:  # noqa: BLE001 (the thread must outlive whatever one pass meets)
            logger.exception("Work that was left could not be done")
        return False

    def _forget_faces(self) -> None:
        if forgotten := probes.forget_old_faces():
            logger.info("Deleted %d searched faces whose time is over", forgotten)

    def _delete_due_persons(self) -> None:
        if expired := delete_due_persons(self._stopping.is_set):
            logger.info("Deleted %d persons whose last day is over", expired)

    def _empty_trash(self) -> None:
        if erased := corrections.empty_trash(self._stopping.is_set):
            logger.info("Erased %d items of the trash whose time is over", erased)

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
        """Compare Milvus with SQL: its data may have been deleted or restored.

        That is done at the start, and again when a Milvus server holds fewer vectors than it did then.
        """
        if self._lacked is not None:
            try:
                if get_vector_store().is_embedded or lacking() <= self._lacked:
                    return
            except RecognitionError:  # the health tells that Milvus is away
                return
        if missing := note_missing():
            logger.warning("The vector database lacked %d embeddings; copying them", missing)
        self._lacked = 0 if get_vector_store().is_embedded else max(lacking(), 0)

    def _compare_memory(self) -> None:
        """Check, every hour, that searches see what the vector database holds; it reloads itself.

        If not, it may lack what SQL has, and is compared with that, too.
        """
        if time.monotonic() >= self._memory_due:
            if not get_vector_store().compare_memory():
                self._lacked = None
            self._memory_due = time.monotonic() + MEMORY_COMPARED

    def _compare_files(self) -> None:
        """Delete, an hour after the start and every day, stored files that no row names."""
        if time.monotonic() >= self._files_due:
            self._files_due = time.monotonic() + FILES_COMPARED
            delete_leftover_files()

    def _compute(self) -> None:
        """Complete, once, what servers of version 1.0 wrote: the last of them may have ended just now."""
        if not self._computed:
            compute_again(timezone.now() - UPDATE_TAKES)
            self._computed = True

    def _list_erased(self) -> None:
        """Write what was erased, also through other servers, beside the backups on this machine.

        That is done after an erasure, and every hour: a disk may have been full, or not been there.
        """
        last = ErasedId.objects.aggregate(last=Max("pk"))["last"]
        if last != self._listed or time.monotonic() >= self._lists_due:
            corrections.write_erased_lists()
            self._listed, self._lists_due = last, time.monotonic() + LISTS_KEPT

    def _retry(self) -> float:
        self._failures += 1
        return float(min(FIRST_RETRY * 2 ** (self._failures - 1), LAST_RETRY))
