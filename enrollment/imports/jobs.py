"""Imports as jobs: what there is, and to confirm, pause, resume and cancel one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from enrollment import journal
from enrollment.enrolling import job_folder
from enrollment.imports.batch_enrolment import check_readiness
from enrollment.imports.execution import request_imports
from enrollment.imports.found_files import FileStatus
from enrollment.imports.staging import has_files
from enrollment.models import ImportFile, ImportJob
from recognition.exceptions import RecognitionError
from recognition.sentences import gettext

State = ImportJob.State
Step = ImportFile.Step
UNCONFIRMED_KEPT: Final = timedelta(days=1)
PAUSED_KEPT: Final = timedelta(days=7)


class ImportGone(RecognitionError):
    """The import does not exist, or not in the state that this takes."""

    code = "import_gone"
    status = 404


class ImportBusy(RecognitionError):
    """The import is in a state in which this cannot be done."""

    code = "import_busy"
    status = 409


# Asking


def find_imports(owner: int) -> QuerySet[ImportJob]:
    """Return the imports that this account may see: its own, and those that were confirmed."""
    return ImportJob.objects.filter(Q(owner=owner) | Q(started_at__isnull=False))


def get_import(number: int, owner: int) -> ImportJob:
    """Return the import with this number. Raise `ImportGone`."""
    job = find_imports(owner).filter(pk=number).first()
    if job is None:
        raise _gone()
    return job


def _gone() -> ImportGone:
    return ImportGone(gettext("This import is gone. Upload the file again."))


def counts_of(job: ImportJob) -> dict[str, int]:
    """Return how many files have each `FileStatus`, and how many are `left` to be looked at."""
    counts = dict.fromkeys([*FileStatus, "left"], 0)
    rows = job.files.order_by().values_list("status", "step").annotate(count=Count("pk"))
    done = {Step.DONE} if job.is_confirmed else {Step.DONE, Step.CHECKED}
    for status, step, count in rows:
        counts[status if step in done else "left"] += count
    return {str(name): count for name, count in counts.items()}


def seconds_left(job: ImportJob, left: int) -> float | None:
    """Return how long the files that are left take at the rate so far, None before it is known."""
    return left * job.seconds / job.handled if job.handled and job.is_at_work else None


# Deciding


def start_import(job: ImportJob) -> None:
    """Confirm an import that was looked at. Raise `ImportBusy`."""
    now = timezone.now()
    author = asdict(journal.current_author())
    if not _change(
        job, [State.READY], State.RUNNING, started_at=now, author=author, handled=0, seconds=0
    ):
        raise ImportBusy(
            gettext("This import was begun already, or is still being looked at. Reload its page.")
        )
    request_imports()


def pause_import(job: ImportJob) -> None:
    """Let the import rest after the present batch. Raise `ImportBusy`."""
    if not _change(job, [State.RUNNING], State.PAUSED):
        raise ImportBusy(gettext("Only an import in progress can be paused."))


def resume_import(job: ImportJob) -> None:
    """Go on with an import that was paused or has stopped. Raise `ImportBusy`."""
    state = State.RUNNING if job.is_confirmed else State.CHECKING
    if not _change(job, [State.PAUSED, State.FAILED], state, error="", handled=0, seconds=0):
        raise ImportBusy(gettext("Only an import that is paused or has stopped can go on."))
    request_imports()


def cancel_import(job: ImportJob) -> None:
    """Stop the import. What is enrolled stays until it is undone. Raise `ImportBusy`.

    One that was not confirmed leaves nothing.
    """
    if not job.is_confirmed:
        if ImportJob.objects.filter(pk=job.pk, started_at=None).delete()[0]:
            shutil.rmtree(job_folder(job), ignore_errors=True)
            job.state = State.CANCELLED
            return
        _read_again(job)
    if not _change(job, [State.RUNNING, State.PAUSED, State.FAILED], State.CANCELLED):
        raise ImportBusy(gettext("This import is over. Undo takes back what it enrolled."))
    request_imports()


DECISIONS: Final[Mapping[str, Callable[[ImportJob], None]]] = {
    "start": start_import,
    "pause": pause_import,
    "resume": resume_import,
    "cancel": cancel_import,
}


def decide(job: ImportJob, act: str) -> None:
    """Do one of `DECISIONS`; raise what `check_readiness` raises before pictures are enrolled by it."""
    if act in ("start", "resume"):
        check_readiness()
    DECISIONS[act](job)


def _change(job: ImportJob, before: list[State], after: State, **values: Any) -> bool:
    now = timezone.now()
    mine = ImportJob.objects.filter(pk=job.pk, state__in=before)
    changed = mine.update(state=after, changed_at=now, **values)
    _read_again(job)
    return bool(changed)


def _read_again(job: ImportJob) -> None:
    """Read the job's row anew. Raise `ImportGone` when somebody has cancelled it meanwhile."""
    try:
        job.refresh_from_db()
    except ImportJob.DoesNotExist as error:
        raise _gone() from error


# Forgetting


def stop_imports_without_files() -> None:
    """Stop the imports whose files are not here, as in a restored backup, which has none of them.

    Those that nobody confirmed are dropped.
    """
    for job in ImportJob.objects.filter(finished_at=None):
        if job.is_confirmed:
            _stop_without_files(job)
        elif not has_files(job):
            cancel_import(job)


def _stop_without_files(job: ImportJob) -> None:
    if not has_files(job):
        gone = gettext("The files of this import are gone. Upload them again.")
        _change(job, [State.RUNNING, State.PAUSED], State.FAILED, error=gone)


def forget_old_jobs() -> None:
    """Drop imports that nobody confirmed, end those that rest for long, delete old reports and files."""
    now = timezone.now()
    for job in ImportJob.objects.filter(started_at=None, changed_at__lt=now - UNCONFIRMED_KEPT):
        cancel_import(job)
    resting = ImportJob.objects.filter(state__in=[State.PAUSED, State.FAILED])
    for job in resting.filter(changed_at__lt=now - PAUSED_KEPT):
        _change(job, [State.PAUSED, State.FAILED], State.CANCELLED)
    for job in ImportJob.objects.filter(state=State.RUNNING, changed_at__lt=now - UNCONFIRMED_KEPT):
        _stop_without_files(job)
    over = ImportJob.objects.filter(finished_at__isnull=False)
    over.filter(finished_at__lt=now - timedelta(days=settings.JOURNAL_DAYS)).delete()
