"""Carry out imports: claim one, work on it batch by batch, and end it.

The rows are the queue. Whoever works on a job claims it for a while and renews the claim with every
batch; when a process dies, another goes on once the claim is over. What was enrolled is known by its
upload key, so nothing is enrolled twice and nothing is left out.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone, translation
from django_tasks import task

from enrollment import enrolling, index, journal
from enrollment.enrolling import UploadStored
from enrollment.imports.batch_enrolment import (
    BATCH_PICTURES,
    FileResult,
    ImportOptions,
    each_file,
    key_of_file,
)
from enrollment.imports.downloads import each_fetched
from enrollment.imports.faces import note_faces, offer_refused
from enrollment.imports.found_files import FileStatus, FoundFile
from enrollment.imports.staging import details_of, found_in, has_files, source_of
from enrollment.judging import doubts_of
from enrollment.models import FaceImage, ImportFile, ImportJob, Person, TrashItem, new_item
from recognition.exceptions import RecognitionError
from recognition.sentences import gettext

logger = logging.getLogger(__name__)

State = ImportJob.State
Step = ImportFile.Step
Rank = ImportFile.Rank
CLAIMED: Final = timedelta(minutes=1)  # longer than a batch takes
BATCH: Final = 16  # pictures; what a pause waits for, and how often progress is noted
_OUTCOME: Final = (
    *("step", "status", "reason", "code", "warnings", "person_id", "face_detected"),
    *("person_pk", "searchable", "picture_pk", "rank"),
)


def request_imports() -> None:
    """Have the waiting imports carried out in the background, or at once where nobody else does."""
    if not index.server_takes(wake):
        work_off_imports.enqueue()


def leave_imports() -> None:
    """Leave the waiting imports to the server, which looks for some every few seconds, or the worker."""
    if settings.TASKS_BACKEND == "database":
        work_off_imports.enqueue()


def wake() -> None:
    """Do nothing: the server's thread looks for imports after whatever it was asked for."""


@task()
def work_off_imports() -> None:
    """Carry out all imports that wait, in a worker."""
    carry_out_imports()


def drop_claims() -> None:
    """Take up at once what a killed server was at, where one server alone uses the database."""
    if connection.vendor != "postgresql":
        ImportJob.objects.exclude(claim="").update(claim="", claimed_until=None)


def carry_out_imports(
    stopped: Callable[[], bool] = lambda: False, before: datetime | None = None
) -> int:
    """Carry out every import that waits (since `before`); return on how many it worked.

    `stopped` is asked between batches.
    """
    worked = 0
    while job := _claim_next(before):
        _work_on(job, stopped)
        worked += 1
        if stopped():
            break
    return worked


def _waiting(before: datetime | None) -> QuerySet[ImportJob]:
    now = timezone.now()
    unfinished = Q(state__in=[State.CHECKING, State.RUNNING])
    unfinished |= Q(state=State.CANCELLED, finished_at=None)
    free = Q(claimed_until=None) | Q(claimed_until__lt=now)
    waiting = ImportJob.objects.filter(unfinished, free)
    return waiting.filter(changed_at__lt=before) if before else waiting


def _claim_next(before: datetime | None) -> ImportJob | None:
    for job in list(_waiting(before).order_by("pk")):
        if job.state != State.CANCELLED and not has_files(job):
            continue  # they are on another machine
        if claimed := _claim(job, before):
            return claimed
    return None


def _claim(job: ImportJob, before: datetime | None = None) -> ImportJob | None:
    claim, until = secrets.token_hex(8), timezone.now() + CLAIMED
    if _waiting(before).filter(pk=job.pk).update(claim=claim, claimed_until=until):
        return ImportJob.objects.filter(pk=job.pk, claim=claim).first()
    return None


def carry_out_import(job: ImportJob, stopped: Callable[[], bool] = lambda: False) -> bool:
    """Work on this import, unless another process does or it does not wait; return whether it did."""
    claimed = _claim(job)
    if claimed:
        _work_on(claimed, stopped)
    return claimed is not None


@dataclass(slots=True)
class _Run:
    """The work of this process on a job that it has claimed."""

    job: ImportJob
    stopped: Callable[[], bool]
    noted: float = field(default_factory=time.monotonic)

    def mine(self) -> QuerySet[ImportJob]:
        return ImportJob.objects.filter(pk=self.job.pk, claim=self.job.claim)

    def goes_on(self, handled: int) -> bool:
        """Note that so many files were handled and renew the claim; return whether to go on."""
        now = time.monotonic()
        going = (
            self.mine()
            .filter(state=self.job.state)
            .update(
                handled=F("handled") + handled,
                seconds=F("seconds") + (now - self.noted),
                claimed_until=timezone.now() + CLAIMED,
                changed_at=timezone.now(),
            )
        )
        self.noted = now
        return bool(going) and not self.stopped()

    def fail(self, error: str) -> None:
        self.mine().update(state=State.FAILED, error=error, changed_at=timezone.now())


def _work_on(job: ImportJob, stopped: Callable[[], bool]) -> None:
    run = _Run(job, stopped)
    author = journal.Author(**job.author)
    with translation.override(job.language or None), journal.acting(lambda: author):
        try:
            if job.state == State.CHECKING:
                _check(run)
            elif job.state == State.RUNNING:
                _enrol(run)
            if run.mine().filter(state=State.CANCELLED).exists():
                remember_stored(job)
                _end(job, State.CANCELLED)
        except UploadStored:
            logger.warning("Import %d is carried out by another process, too", job.pk)
        except DatabaseError:  # nothing is known to be wrong with the import: it waits
            raise
        except RecognitionError as error:
            run.fail(error.message)
        except Exception:
            logger.exception("Import %d stopped", job.pk)
            run.fail(gettext("Something unexpected happened; the server's log tells what."))
        finally:
            run.mine().update(claim="", claimed_until=None)


def _check(run: _Run) -> None:
    """Look at every picture without enrolling it. One that was interrupted begins anew."""
    job = run.job
    if not _fetch(run):
        return
    job.files.filter(step=Step.CHECKED).update(step=Step.NEW)
    for rows, results in _batches(job, dry_run=True):
        _keep(rows, results, Step.CHECKED)
        note_faces(rows, results)
        if not run.goes_on(len(rows)):
            return
    if _each_refused(run, note_faces):
        run.mine().filter(state=State.CHECKING).update(state=State.READY, changed_at=timezone.now())


def _fetch(run: _Run) -> bool:
    """Fetch the pictures that are elsewhere yet; return whether to go on."""
    with closing(each_fetched(run.job)) as fetched:
        goes_on = all(run.goes_on(1) for _row in fetched)
    run.mine().update(handled=0, seconds=0)
    return goes_on


def _enrol(run: _Run) -> None:
    if not _fetch(run):
        return
    remember_stored(run.job)
    for rows, results in _batches(run.job):
        _keep(rows, results, Step.DONE)
        if not run.goes_on(len(rows)):
            return
    until = timezone.now() + timedelta(days=settings.KEEP_REFUSED_DAYS)

    def offer(rows: list[ImportFile]) -> None:
        offer_refused(rows, until, run.job.username)

    if not settings.KEEP_REFUSED_DAYS or _each_refused(run, offer):
        _end(run.job, State.DONE)


def remember_stored(job: ImportJob) -> None:
    """Mark the files whose pictures were stored before this was interrupted."""
    stored = FaceImage.objects.filter(upload_key__startswith=f"{job.key}:")
    pictures = {picture.upload_key: picture for picture in stored.select_related("person")}
    if not pictures:
        return
    found = {
        row: picture
        for row in _left(job)
        if (picture := pictures.get(key_of_file(job.key, row.path)))
    }
    if not found:
        return
    enrolling.sync_again(list(found.values()))
    doubts = doubts_of([picture.pk for picture in found.values()])
    for row, picture in found.items():
        row.step, row.status, row.picture_pk = Step.DONE, FileStatus.ENROLLED, picture.pk
        row.person_id, row.person_pk = picture.person.person_id, picture.person_id
        row.reason, row.code = "", ""
        row.warnings = [doubt.message for doubt in doubts[picture.pk]]
        row.rank = Rank.DOUBTFUL if row.warnings else Rank.GOOD
    ImportFile.objects.bulk_update(found, _OUTCOME, batch_size=100)


def _left(job: ImportJob) -> QuerySet[ImportFile]:
    return job.files.exclude(step=Step.DONE)


def _batches(
    job: ImportJob, *, dry_run: bool = False
) -> Iterator[tuple[list[ImportFile], list[FileResult]]]:
    """Yield the rows that are left with what became of them, some at a time."""
    rows = list(_left(job))
    for row in rows:
        row.job = job
    size = BATCH_PICTURES if job.folder else BATCH
    results = each_file(
        [_found(row) for row in rows],
        ImportOptions(**job.options),
        dry_run=dry_run,
        key="" if dry_run else job.key,
        at_a_time=None if job.folder else size,
    )
    for some in index.batches(rows, size):
        yield some, list(islice(results, len(some)))


def _found(row: ImportFile) -> FoundFile:
    details = details_of(row)
    name = details.pop("name", "")
    return FoundFile(
        source_of(row),
        row.path,
        row.person_id,
        name,
        details=details,
        found=found_in(row),
    )


def _keep(rows: list[ImportFile], results: list[FileResult], step: Step) -> None:
    """Store what became of the files."""
    ids = {result.person_id for result in results}
    persons = dict(Person.objects.filter(person_id__in=ids).values_list("person_id", "pk"))
    for row, result in zip(rows, results, strict=True):
        row.step, row.status, row.reason = step, result.status, result.reason
        row.code, row.warnings = result.code, result.warnings
        row.person_id, row.face_detected = result.person_id, result.face_detected
        row.person_pk = persons.get(result.person_id)
        row.searchable, row.picture_pk = result.searchable, result.picture
        row.rank = Rank.DOUBTFUL if result.warnings else Rank.GOOD
        if result.status is FileStatus.REFUSED:
            row.rank = Rank.REFUSED
    with transaction.atomic():  # an eighth of the time that `bulk_update` takes
        for row in rows:
            values = {name: getattr(row, name) for name in _OUTCOME}
            ImportFile.objects.filter(pk=row.pk).update(**values)


def _each_refused(run: _Run, act: Callable[[list[ImportFile]], None]) -> bool:
    """Do something with the refused files that are kept, some at a time; return whether to go on."""
    refused = run.job.files.filter(status=FileStatus.REFUSED, step=Step.DONE, is_kept=True)
    for some in index.batches(list(refused), BATCH):
        for row in some:
            row.job = run.job
        act(some)
        if not run.goes_on(0):
            return False
    return True


def _end(job: ImportJob, state: State) -> None:
    """Finish the import: what undoes it, its line in the journal; then its files go."""
    with journal.changes():
        mine = ImportJob.objects.filter(pk=job.pk, finished_at=None, state=job.state)
        if not mine.update(state=state, finished_at=timezone.now(), changed_at=timezone.now()):
            return
        done = job.files.filter(step=Step.DONE)
        counts = Counter(done.values_list("status", flat=True))
        if enrolled := counts[FileStatus.ENROLLED]:
            undo = new_item(
                TrashItem.Kind.IMPORT,
                job.label,
                facts={"key": job.key},
                created_at=job.started_at or timezone.now(),
                pictures=enrolled,
            )
            ImportJob.objects.filter(pk=job.pk).update(undo=undo)
        enrolled_rows = done.filter(status=FileStatus.ENROLLED)
        persons = enrolled_rows.order_by().values("person_id").distinct().count()
        facts = {**counts, "persons": persons}
        journal.record(journal.Action.IMPORTED, facts=facts)
    forget_files(job)


def forget_files(job: ImportJob) -> None:
    """Delete the files of an import that is over."""
    job.files.filter(is_kept=True).update(is_kept=False)
    job.files.exclude(address="").update(address="")
    ImportJob.objects.filter(pk=job.pk).update(folder="")
    job.files.filter(has_face=True).update(has_face=False)
    shutil.rmtree(enrolling.job_folder(job), ignore_errors=True)
