"""Stage an import: unpack its ZIP, and lay its files where the job that enrols them finds them.

They lie below `DATA_DIR/imports`, readable by the server's account only, under numbers: no name of
a person is on the disk. `jobs` says when they go.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import IO, Any, Final

from django.db import transaction
from django.utils.translation import get_language

from enrollment import journal
from enrollment.enrolling import forget_old_imports, imports_folder, job_folder
from enrollment.imports.batch_enrolment import ImportOptions
from enrollment.imports.found_files import (
    NOBODYS,
    FileStatus,
    FoundFile,
    as_text,
    find_files,
    from_text,
    is_passed_over,
)
from enrollment.imports.table import find_table, read_table
from enrollment.imports.zip_archive import unpack
from enrollment.models import ImportFile, ImportJob, new_key
from recognition.imaging import EXTENSIONS

_SUFFIX: Final = re.compile(r"\.[a-z0-9]{1,8}")
_ROWS_AT_A_TIME: Final = 500


def stage_import(
    file: IO[bytes],
    filename: str,
    owner: int,
    *,
    details: Mapping[str, Any] | None = None,
    is_confirmed: bool = False,
    **options: Any,
) -> ImportJob:
    """Unpack the ZIP and store the job that looks at its pictures, or enrols them if confirmed.

    `details` are what people get who are new with it, as in `Upload`; `options` are those of
    `ImportOptions`. Raise what `unpack` raises.
    """
    forget_old_imports()
    home = Path(tempfile.mkdtemp(prefix="", dir=imports_folder()))
    try:
        reasons = unpack(file, home)
        table = find_table(home)
        found = read_table(table) if table else find_files(_root(home))
        refused = [FoundFile(home / "-", name, reason=reason) for name, reason in reasons.items()]
        return stage_files(
            [*refused, *found],
            label=filename,
            owner=owner,
            details=details,
            is_confirmed=is_confirmed,
            **options,
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def stage_files(
    found: Iterable[FoundFile],
    *,
    label: str,
    owner: int = 0,
    source: str = ImportJob.Source.ZIP,
    folder: Path | None = None,
    details: Mapping[str, Any] | None = None,
    is_confirmed: bool = False,
    **options: Any,
) -> ImportJob:
    """Copy the files into the folder of a new job, which is stored with them; see `stage_import`.

    Those of `folder` stay where they are.
    """
    job = ImportJob(
        key=new_key(),
        state=ImportJob.State.RUNNING if is_confirmed else ImportJob.State.CHECKING,
        source=source,
        label=label[:500],
        folder=as_text(folder) if folder else "",
        owner=owner,
        author=asdict(journal.current_author()),
        language=get_language() or "",
        options=ImportOptions(**options)._asdict(),
        details=plain(details or {}),
    )
    job.started_at = job.created_at if is_confirmed else None
    home = job_folder(job)
    if not job.folder:
        home.mkdir(mode=0o700)
    try:
        rows = rows_of(job, found)
        with transaction.atomic():
            job.save()
            ImportFile.objects.bulk_create(rows, batch_size=_ROWS_AT_A_TIME)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return job


def rows_of(job: ImportJob, found: Iterable[FoundFile], first: int = 1) -> list[ImportFile]:
    """Return unsaved rows for the files, numbered from `first`, after the files were copied."""
    return [_row(job, number, item) for number, item in enumerate(found, first)]


def _row(job: ImportJob, number: int, found: FoundFile) -> ImportFile:
    suffix = found.path.suffix.lower()
    row = ImportFile(
        job=job,
        number=number,
        path=found.shown_path[:1000],
        suffix=suffix if _SUFFIX.fullmatch(suffix) else "",
        address=found.address,
        person_id=found.person_id,
        details=plain({**({"name": found.name} if found.name else {}), **found.details}),
    )
    if found.reason:
        row.step, row.status = ImportFile.Step.DONE, found.status
        row.reason, row.code = found.reason, found.code
        is_refused = found.status is FileStatus.REFUSED
        row.rank = ImportFile.Rank.REFUSED if is_refused else ImportFile.Rank.GOOD
    is_elsewhere = bool(found.address or job.folder)
    if not is_elsewhere and (not found.reason or found.code == NOBODYS):
        shutil.copyfile(found.path, file_of(row))
        row.is_kept = True
    return row


def plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details with days as texts, for JSON."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in details.items()
    }


def details_of(row: ImportFile) -> dict[str, Any]:
    """Return what a person gets who is new with the file: `name`, and `Upload.details`."""
    details = {**row.job.details, **row.details}
    for name in ("keep_until", "consent_day"):
        if details.get(name):
            details[name] = date.fromisoformat(details[name])
    return details


def file_of(row: ImportFile) -> Path:
    """Return where the file of this row lies, while it is kept."""
    return job_folder(row.job) / f"{row.number}{row.suffix}"


def source_of(row: ImportFile) -> Path:
    """Return where the picture of this row is read from: its copy, or the file that was left there."""
    if not row.job.folder:
        return file_of(row)
    path = Path(row.job.folder, row.path)
    return path if path.exists() else Path(row.job.folder, from_text(row.path))


def has_files(job: ImportJob) -> bool:
    """Return whether the files of the job are on this machine, for this account to read."""
    return os.access(job.folder or job_folder(job), os.R_OK | os.X_OK)


def face_of(row: ImportFile) -> Path:
    """Return where the small picture of the row's face lies, while `has_face`."""
    return job_folder(row.job) / f"{row.number}.face"


def found_in(row: ImportFile) -> Path:
    """Return where lies what the check found in the row's file, for the run; see `Upload.found`."""
    return job_folder(row.job) / f"{row.number}.found"


def _root(folder: Path) -> Path:
    """Return the folder that contains the persons' folders; many ZIPs wrap them in one more folder.

    Some lists, and fewer loose pictures than folders, make that nobody's.
    """
    inside = _shown(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        below = _shown(inside[0].iterdir())
        folders = sum(path.is_dir() for path in below)
        if folders > sum(path.suffix.lower()[1:] in EXTENSIONS for path in below if path.is_file()):
            return inside[0]
    return folder


def _shown(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not is_passed_over(path)]
