"""`manage.py enroll FOLDER`: enrol pictures from disk, one folder for each person."""

from __future__ import annotations

import csv
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from enrollment.enrolling import clean_person_id
from enrollment.imports import (
    FileResult,
    FileStatus,
    Follower,
    FoundFile,
    ImportOptions,
    begin_folder_import,
    check_readiness,
    each_file,
    escaped,
    find_files,
)
from enrollment.management.counts import people, pictures
from enrollment.models import ImportJob
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar


@dataclass(slots=True)
class _Tally:
    """Counts of what became of the files, each of which `say` tells; `bar` is their progress."""

    say: Callable[[FileResult], object]
    bar: Iterator[object]
    persons: set[str] = field(default_factory=set)
    counts: dict[FileStatus, int] = field(default_factory=lambda: dict.fromkeys(FileStatus, 0))
    doubtful: int = 0
    unsearchable: int = 0

    def add(self, results: Sequence[FileResult]) -> None:
        for result in results:
            self.counts[result.status] += 1
            self.unsearchable += not result.searchable
            if result.status is FileStatus.ENROLLED:
                self.persons.add(result.person_id)
                self.doubtful += bool(result.doubts)
            next(self.bar, None)
            self.say(result)

    def end(self) -> None:
        """Take the bar away."""
        for _left in self.bar:
            pass


class Command(BaseCommand):
    help = (
        "Enrols the pictures of FOLDER: each folder in it is a person, its name the person's id. "
        "Pictures enrolled before are skipped, so it may be interrupted and run again."
    )

    requires_system_checks = ["recognition", "models", "files"]  # 'check' shows the other warnings

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waited: set[int] = set()  # imports of which it was said that they are waited for

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="FOLDER")
        parser.add_argument("--person-id", help="Everything in FOLDER shows this one person.")
        parser.add_argument("--dry-run", action="store_true", help="Look at all, write nothing.")
        faces = parser.add_mutually_exclusive_group()
        # Always on now; kept because scripts may pass it.
        faces.add_argument("--require-face", action="store_true", help=SUPPRESS)
        faces.add_argument(
            "--no-face-detection",
            action="store_true",
            help="The pictures are aligned crops of faces already.",
        )
        parser.add_argument(
            "--on-several-faces",
            choices=["largest", "refuse"],
            default="largest",
            help="What becomes of a picture of several faces: its largest is enrolled (default), or none.",
        )
        parser.add_argument(
            "--report", type=Path, metavar="FILE.csv", help="Write what became of each file here."
        )
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        folder, person_id = options["folder"], _clean(options["person_id"])
        if not folder.is_dir():
            raise CommandError(_("%(folder)s is not a folder.") % {"folder": folder})
        if not options["dry_run"]:
            _refuse_unready()
        found = find_files(folder, person_id)
        how = ImportOptions(not options["no_face_detection"], options["on_several_faces"])
        with _report(options["report"]) as write:
            track = progress_bar(options["no_progress"])
            bar = iter(track(range(len(found)), _("Enrolling"), len(found)))
            tally = _Tally(write or self._say, bar)
            if options["dry_run"]:
                self._look(found, how, tally)
                return
            folder = folder.resolve()
            label = f"{folder.name} ({person_id})" if person_id else folder.name
            self._import(folder, label, found, how, tally)
        if tally.unsearchable:
            message = _("%(count)d pictures cannot be found yet. Run 'manage.py reindex'.")
            raise CommandError(message % {"count": tally.unsearchable})

    def _look(self, found: list[FoundFile], how: ImportOptions, tally: _Tally) -> None:
        try:
            for result in each_file(found, how, dry_run=True):
                tally.add([result])
        except RecognitionError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise _interrupted() from None
        finally:
            self._summarise(tally, None)

    def _import(
        self, folder: Path, label: str, found: list[FoundFile], how: ImportOptions, tally: _Tally
    ) -> None:
        """Carry the import out as a job, and summarise it. Raise `CommandError` if it did not end well."""
        running = None
        try:
            job = begin_folder_import(folder, found, label=label, options=how, waits=self._wait)
            running = Follower(job, tally.add)
            running.follow(self._wait)
        except RecognitionError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            if running:
                running.end_early()
            raise _interrupted() from None
        finally:
            if running:
                self._summarise(tally, running.job)
        if job.state == ImportJob.State.FAILED:
            raise CommandError(job.error)
        if job.state == ImportJob.State.CANCELLED:
            raise CommandError(_("The import was cancelled. What was enrolled is kept."))

    def _wait(self, job: ImportJob) -> None:
        """Say once for what the command waits."""
        if job.pk not in self.waited:
            self.waited.add(job.pk)
            text = _("Import %(number)d of this folder is %(state)s; waiting for it.")
            state = job.get_state_display()
            self.stderr.write(text % {"number": job.pk, "state": state})

    def _say(self, result: FileResult) -> None:
        if result.status is FileStatus.REFUSED:
            text = _("%(file)s: refused. %(reason)s")
            self.stderr.write(text % {"file": result.shown_path, "reason": result.reason})
        elif result.warnings:
            reasons = {"file": result.shown_path, "reasons": " ".join(result.warnings)}
            text = _("%(file)s: doubtful. %(reasons)s")
            self.stderr.write((text if result.doubts else "%(file)s: %(reasons)s") % reasons)

    def _summarise(self, tally: _Tally, job: ImportJob | None) -> None:
        tally.end()
        message = _(
            "%(pictures)s of %(persons)s enrolled (%(doubtful)d doubtful), "
            "%(skipped)d skipped, %(refused)d refused, %(ignored)d ignored."
        )
        if job is None:
            message = _("Dry run, nothing written: ") + message
        counts = {status.value: count for status, count in tally.counts.items()}
        counts["doubtful"] = tally.doubtful
        words = {
            "pictures": pictures(counts[FileStatus.ENROLLED.value]),
            "persons": people(len(tally.persons)),
        }
        self.stdout.write(message % (counts | words))
        if job and (undo := job.undo):
            text = _("'manage.py trash undo %(number)d' takes this import back, until %(until)s.")
            until = timezone.localtime(undo.erase_at).strftime("%Y-%m-%d %H:%M")
            self.stdout.write(text % {"number": undo.pk, "until": until})


def _clean(person_id: str | None) -> str | None:
    try:
        return None if person_id is None else clean_person_id(person_id)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from error


def _interrupted() -> CommandError:
    message = _("Interrupted. What was enrolled is kept; run it again to go on.")
    return CommandError(message, returncode=130)


def _refuse_unready() -> None:
    try:
        check_readiness()
    except RecognitionError as error:
        raise CommandError(str(error)) from error


@contextmanager
def _report(path: Path | None) -> Iterator[Any]:
    if path is None:
        yield None
        return
    try:
        # Line-buffered, so that an interrupted run still reports the files before.
        file = path.open("w", buffering=1, newline="", encoding="utf-8")
    except OSError as error:
        message = _("The report %(path)s cannot be written: %(error)s.")
        raise CommandError(message % {"path": path, "error": error.strerror}) from error
    with file:
        writer = csv.writer(file)
        writer.writerow(["file", "person_id", "status", "reason", "face_detected", "warnings"])
        yield lambda result: writer.writerow(
            escaped(value)
            for value in (
                result.shown_path,
                result.person_id,
                result.status,
                result.reason,
                result.face_detected,
                " ".join(result.warnings),
            )
        )
