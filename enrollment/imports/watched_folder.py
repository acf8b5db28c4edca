"""A watched folder: what is laid into it is imported, and moved away with a report.

The folder has a folder for each person. What a look takes is moved into a hidden folder in it, so that
nothing is taken twice, imported as a job by the server, and moved to `done` or `refused` beside the
watched folder when that is over. Cut off at any line, the next look goes on.
"""

from __future__ import annotations

import csv
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from django.utils.translation import gettext

from enrollment.imports.execution import leave_imports
from enrollment.imports.found_files import FileStatus, FoundFile, find_files
from enrollment.imports.spreadsheet_cells import escaped
from enrollment.imports.staging import stage_files
from enrollment.models import ImportFile, ImportJob

SETTLED_SECONDS: Final = 10.0  # a file that was written to later may still be half-written
EMPTY_SECONDS: Final = 60.0  # an empty folder that changed later may be about to be filled
MOST_FILES: Final = 1000  # of one look
REPORT_COLUMNS: Final = ("file", "person_id", "status", "reason", "warnings")
_TAKEN: Final = ".taken"
_UNFINISHED: Final = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download")


@dataclass(slots=True)
class WatchedFolder:
    """The folder, and how what is in it is imported: `details` and `options` as in `stage_files`."""

    folder: Path
    details: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    settled_seconds: float = SETTLED_SECONDS

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()

    @property
    def done(self) -> Path:
        return self.folder.parent / "done"

    @property
    def refused(self) -> Path:
        return self.folder.parent / "refused"

    @property
    def taken(self) -> Path:
        return self.folder / _TAKEN

    def prepare(self) -> None:
        """Make the folders beside it, and put back what an earlier run took and did not import."""
        for folder in (self.taken, self.done, self.refused):
            folder.mkdir(mode=0o700, exist_ok=True)
        for home in self.taken.iterdir():
            if not home.name.isdecimal():
                _move_all(home, self.folder)

    def look(self) -> tuple[ImportJob | None, list[ImportJob]]:
        """Move away what was imported, then take what lies ready; return the job that imports that,
        if any, and those that were moved away."""
        filed = list(self._file_finished())
        self._drop_empty()
        found = list(self._ready())
        return (self._take(found) if found else None), filed

    def _ready(self) -> Iterator[FoundFile]:
        latest = time.time() - self.settled_seconds
        count = 0
        for found in find_files(self.folder):
            if found.status is FileStatus.IGNORED or found.path.suffix.lower() in _UNFINISHED:
                continue
            try:
                if found.path.is_symlink() or not found.path.is_file():
                    continue
                # Every write changes this time, also where the time of the content is preserved.
                if found.path.stat().st_ctime > latest:
                    continue
            except OSError:
                continue
            yield found
            count += 1
            if count == MOST_FILES:
                return

    def _take(self, found: Iterable[FoundFile]) -> ImportJob:
        home = self.taken / secrets.token_hex(4).translate(_LETTERS)
        moved = []
        try:
            for item in found:
                target = home / item.path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # somebody took it away again
                    item.path.rename(target)
                    moved.append(replace(item, path=target))
            job = stage_files(
                moved,
                label=self.folder.name,
                source=ImportJob.Source.WATCHED,
                details=self.details,
                is_confirmed=True,
                **self.options,
            )
        except BaseException:
            _move_all(home, self.folder)
            raise
        home.rename(self.taken / str(job.pk))
        leave_imports()
        return job

    def _file_finished(self) -> Iterator[ImportJob]:
        """Move the files of imports that are over to `done` and `refused`, each import with a report."""
        for home in sorted(self.taken.iterdir()):
            if not home.name.isdecimal():
                continue
            job = ImportJob.objects.filter(pk=int(home.name)).first()
            if job is None:  # forgotten since: nobody knows what became of it
                _move_all(home, self.refused)
            elif job.finished_at:
                self._file(job, home)
                yield job

    def _file(self, job: ImportJob, home: Path) -> None:
        rows = list(job.files.all())
        for row in rows:
            good = row.status in (FileStatus.ENROLLED, FileStatus.SKIPPED)
            source = home / row.path
            if row.path and source.is_file():
                _move(source, (self.done if good else self.refused) / row.path)
        _write_report(self.done / f"import-{job.pk}.csv", rows)
        _move_all(home, self.refused)  # of who was erased meanwhile: the report does not name them

    def _drop_empty(self) -> None:
        """Remove the folders of persons that are empty for a while."""
        latest = time.time() - EMPTY_SECONDS
        for path in self.folder.iterdir():
            with suppress(OSError):  # it is not empty, or is none
                if path.is_dir() and path != self.taken and path.stat().st_mtime < latest:
                    path.rmdir()


_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")  # numbers name jobs


def _move(source: Path, target: Path) -> None:
    """Move the file; a name that is taken gets a number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    number, free = 1, target
    while free.exists():
        number += 1
        free = target.with_stem(f"{target.stem} ({number})")
    shutil.move(source, free)


def _move_all(home: Path, to: Path) -> None:
    for path in sorted(home.rglob("*")):
        if path.is_file():
            _move(path, to / path.relative_to(home))
    shutil.rmtree(home, ignore_errors=True)


def _write_report(path: Path, rows: Iterable[ImportFile]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(REPORT_COLUMNS)
        for row in rows:
            status = row.status or gettext("not imported")
            values = [row.path, row.person_id, status, row.reason, " ".join(row.warnings)]
            writer.writerow(map(escaped, values))
