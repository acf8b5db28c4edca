"""Imports of a folder on the server, which a command carries out and waits for.

They are jobs like any other: another process may go on with one whose command was killed, and the
command follows what another process does. The files stay where they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Final

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from enrollment import journal
from enrollment.imports.batch_enrolment import FileResult, ImportOptions
from enrollment.imports.execution import CLAIMED, carry_out_import, remember_stored
from enrollment.imports.found_files import FileStatus, FoundFile, as_text
from enrollment.imports.staging import rows_of, stage_files
from enrollment.judging import doubts_of
from enrollment.models import Doubt, ImportFile, ImportJob
from recognition.sentences import gettext
from recognition.vector_store import get_vector_store

State = ImportJob.State
Step = ImportFile.Step
LOOKED: Final = 1.0  # seconds between two looks at what another process does
_UNFINISHED: Final = (State.RUNNING, State.PAUSED, State.FAILED)
_ROWS_AT_A_TIME: Final = 500


def begin_folder_import(
    folder: Path,
    found: Sequence[FoundFile],
    *,
    label: str,
    options: ImportOptions,
    waits: Callable[[ImportJob], None],
) -> ImportJob:
    """Return the job that imports the files: a new one, or one of this folder that did not end.

    While another process carries out such a one it is waited for; `waits` is called at every look.
    """
    job = ImportJob(folder=as_text(folder), label=label[:500], options=options._asdict())
    while before := _unfinished(job):
        if get_vector_store().is_embedded:  # nobody else can be at it: its process was killed
            ImportJob.objects.filter(pk=before.pk).update(claim="", claimed_until=None)
        if _take_up(before, found):
            return before
        waits(before)
        time.sleep(LOOKED)
    return stage_files(
        found,
        label=label,
        source=ImportJob.Source.FOLDER,
        folder=folder,
        is_confirmed=True,
        **options._asdict(),
    )


def _unfinished(like: ImportJob) -> ImportJob | None:
    known = ImportJob.objects.filter(
        source=ImportJob.Source.FOLDER, state__in=_UNFINISHED, folder=like.folder, label=like.label
    )
    return next((job for job in known if job.options == like.options), None)


def _take_up(job: ImportJob, found: Sequence[FoundFile]) -> bool:
    """Go on with the job and what the folder holds now; return whether nobody else is at it.

    What it enrolled counts; everything else is tried again.
    """
    now = timezone.now()
    mine = ImportJob.objects.filter(Q(claimed_until=None) | Q(claimed_until__lt=now), pk=job.pk)
    values = {"author": asdict(journal.current_author()), "changed_at": now, "error": ""}
    held = {"claim": "taken up", "claimed_until": now + CLAIMED}
    if not mine.filter(state__in=_UNFINISHED).update(state=State.PAUSED, **values, **held):
        return False
    remember_stored(job)
    with transaction.atomic():
        enrolled = job.files.filter(step=Step.DONE, status=FileStatus.ENROLLED)
        job.files.exclude(pk__in=enrolled.values("pk")).delete()
        known = set(enrolled.values_list("path", flat=True))
        last = enrolled.aggregate(last=Max("number"))["last"] or 0
        rows = rows_of(job, (each for each in found if each.shown_path not in known), last + 1)
        ImportFile.objects.bulk_create(rows, batch_size=_ROWS_AT_A_TIME)
        ImportJob.objects.filter(pk=job.pk).update(
            state=State.RUNNING, claim="", claimed_until=None, handled=0, seconds=0
        )
    job.refresh_from_db()
    return True


class Follower:
    """Carries an import out, or waits while others do, and tells what became of its files.

    `tell` gets that in the order of the files, as it becomes known; what an earlier, killed command
    enrolled is told as skipped.
    """

    def __init__(self, job: ImportJob, tell: Callable[[Sequence[FileResult]], None]) -> None:
        self.job, self._tell, self._told = job, tell, 0
        before = job.files.filter(step=Step.DONE, status=FileStatus.ENROLLED)
        self._before = frozenset(before.values_list("pk", flat=True))

    def follow(self, waits: Callable[[ImportJob], None]) -> None:
        """Return when the import is over or stopped; `job` is current then.

        `waits` is called at every look at an import that is paused.
        """
        while True:
            self._tell_more()
            worked = carry_out_import(self.job, self._tell_more)
            self.job.refresh_from_db()
            if self.job.finished_at or self.job.state == State.FAILED:
                break
            if self.job.state == State.PAUSED:
                waits(self.job)
            if not worked:
                time.sleep(LOOKED)
        self._tell_rest()

    def end_early(self) -> None:
        """Cancel the import, whoever is at it. What is enrolled stays, and is undone as one."""
        mine = ImportJob.objects.filter(pk=self.job.pk, state__in=_UNFINISHED)
        mine.update(state=State.CANCELLED, changed_at=timezone.now())
        carry_out_import(self.job)
        self.job.refresh_from_db()
        self._tell_rest()

    def _tell_more(self) -> bool:
        while rows := _done_after(self.job, self._told):
            self._tell(self._results(rows))
            self._told = rows[-1].number
        return False

    def _tell_rest(self) -> None:
        done = self.job.files.filter(number__gt=self._told, step=Step.DONE)
        self._tell(self._results(list(done.order_by("number"))))

    def _results(self, rows: Sequence[ImportFile]) -> list[FileResult]:
        doubts = doubts_of([row.picture_pk for row in rows if row.warnings and row.picture_pk])
        results = [_result(row, doubts[row.picture_pk or 0]) for row in rows]
        for row, result in zip(rows, results, strict=True):
            if row.pk in self._before:
                result.status, result.reason = FileStatus.SKIPPED, gettext("Enrolled before.")
        return results


def _done_after(job: ImportJob, number: int) -> list[ImportFile]:
    """Return the next rows after this number that are done, up to the first that is not."""
    rows = job.files.filter(number__gt=number).order_by("number")[:_ROWS_AT_A_TIME]
    return list(takewhile(lambda row: row.step == Step.DONE, rows))


def _result(row: ImportFile, doubts: list[Doubt]) -> FileResult:
    said = {doubt.message for doubt in doubts}
    return FileResult(
        row.path,
        row.person_id,
        FileStatus(row.status),
        row.reason,
        face_detected=row.face_detected,
        searchable=row.searchable,
        doubts=doubts,
        mistakable=[text for text in row.warnings if text not in said],
        code=row.code,
        picture=row.picture_pk,
    )
