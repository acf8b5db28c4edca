"""`manage.py enroll FOLDER`: enrol pictures from disk, one folder for each person."""

from __future__ import annotations

import csv
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from enrollment.enrolling import (
    FileResult,
    FileStatus,
    begin_import,
    check_readiness,
    clean_person_id,
    end_import,
    escaped,
    find_files,
    import_files,
    import_key,
)
from enrollment.models import TrashItem
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar


@dataclass(slots=True)
class _Tally:
    persons: set[str] = field(default_factory=set)
    counts: dict[FileStatus, int] = field(default_factory=lambda: dict.fromkeys(FileStatus, 0))
    doubtful: int = 0
    unsearchable: int = 0

    def add(self, result: FileResult) -> None:
        self.counts[result.status] += 1
        self.unsearchable += not result.searchable
        if result.status is FileStatus.ENROLLED:
            self.persons.add(result.person_id)
            self.doubtful += bool(result.doubts)


class Command(BaseCommand):
    help = (
        "Enrols the pictures of FOLDER: each folder in it is a person, its name the person's id. "
        "Pictures enrolled before are skipped, so it may be interrupted and run again."
    )

    requires_system_checks = ["recognition", "files"]  # 'check' shows the other warnings

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
        tally = _Tally()
        item = None if options["dry_run"] else begin_import(folder.resolve().name)
        try:
            self._import(folder, person_id, options, tally, import_key(item))
        except RecognitionError as error:
            self._summarise(tally, options["dry_run"], item)
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self._summarise(tally, options["dry_run"], item)
            message = _("Interrupted. What was enrolled is kept; run it again to go on.")
            raise CommandError(message, returncode=130) from None
        self._summarise(tally, options["dry_run"], item)
        if tally.unsearchable:
            message = _("%(count)d pictures cannot be found yet. Run 'manage.py reindex'.")
            raise CommandError(message % {"count": tally.unsearchable})

    def _import(
        self, folder: Path, person_id: str | None, options: dict[str, Any], tally: _Tally, key: str
    ) -> None:
        files = find_files(folder, person_id)
        results = import_files(
            files,
            use_face_detection=not options["no_face_detection"],
            on_several_faces=options["on_several_faces"],
            dry_run=options["dry_run"],
            key=key,
        )
        track = progress_bar(options["no_progress"])
        with _report(options["report"]) as write:
            for result in track(results, _("Enrolling"), len(files)):
                tally.add(result)
                if write:
                    write(result)
                elif result.status is FileStatus.REFUSED:
                    text = _("%(file)s: refused. %(reason)s")
                    self.stderr.write(text % {"file": result.shown_path, "reason": result.reason})
                elif result.warnings:
                    reasons = {"file": result.shown_path, "reasons": " ".join(result.warnings)}
                    text = _("%(file)s: doubtful. %(reasons)s")
                    self.stderr.write(
                        (text if result.doubts else "%(file)s: %(reasons)s") % reasons
                    )

    def _summarise(self, tally: _Tally, dry_run: bool, item: TrashItem | None) -> None:
        message = _(
            "%(enrolled)d pictures of %(persons)d people enrolled (%(doubtful)d doubtful), "
            "%(skipped)d skipped, %(refused)d refused, %(ignored)d ignored."
        )
        if dry_run:
            message = _("Dry run, nothing written: ") + message
        counts = {status.value: count for status, count in tally.counts.items()}
        counts |= {"persons": len(tally.persons), "doubtful": tally.doubtful}
        self.stdout.write(message % counts)
        if undo := end_import(item, counts[FileStatus.ENROLLED]):
            text = _("'manage.py trash undo %(number)d' takes this import back, until %(until)s.")
            until = timezone.localtime(undo.erase_at).strftime("%Y-%m-%d %H:%M")
            self.stdout.write(text % {"number": undo.pk, "until": until})


def _clean(person_id: str | None) -> str | None:
    try:
        return None if person_id is None else clean_person_id(person_id)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from error


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
