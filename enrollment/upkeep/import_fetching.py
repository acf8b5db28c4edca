"""Fetch an import's pictures that are addresses, each into the file of its row."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from django.db.models import QuerySet
from django.utils.translation import gettext

from enrollment.enrolling import FileStatus, NotFetched, fetch_picture, file_of, job_folder
from enrollment.models import ImportFile, ImportJob
from recognition.ahead import in_order

_AHEAD: Final = 4  # pictures begun before their turn
MOST_BYTES: Final = 2 * 1024**3  # of one import, as a ZIP unpacks


def each_fetched(job: ImportJob) -> Generator[ImportFile]:
    """Fetch what has an address, and yield each row after it was noted whether its file is there.

    A file is there whole or not at all, so what an interrupted import fetched is not fetched again.
    """
    rows = list(_left(job))
    for row in rows:
        row.job = job
    held = sum(path.stat().st_size for path in job_folder(job).iterdir()) if rows else 0
    for row, reason in zip(rows, in_order(_fetch, rows, _AHEAD), strict=True):
        if reason:
            _refuse(_left(job).filter(pk=row.pk), reason)
        elif _left(job).filter(pk=row.pk).update(is_kept=True, address=""):
            held += file_of(row).stat().st_size
        else:  # somebody erased the person, or cancelled the import, meanwhile
            file_of(row).unlink(missing_ok=True)
        if held > MOST_BYTES:
            message = gettext("The pictures of one import take at most %(limit)d MB. Split it.")
            _refuse(_left(job), message % {"limit": MOST_BYTES >> 20})
            return
        yield row


def _left(job: ImportJob) -> QuerySet[ImportFile]:
    return job.files.exclude(address="").exclude(step=ImportFile.Step.DONE)


def _fetch(row: ImportFile) -> str:
    """Fetch the picture unless it is there; return why that failed, or nothing."""
    target = file_of(row)
    try:
        if not target.exists():
            fetch_picture(row.address, target)
    except FileNotFoundError:  # the import was cancelled, and its folder is gone
        return ""
    except NotFetched as error:
        return error.message
    return ""


def _refuse(rows: QuerySet[ImportFile], reason: str) -> None:
    values: dict[str, Any] = {"step": ImportFile.Step.DONE, "rank": ImportFile.Rank.REFUSED}
    values |= {"status": FileStatus.REFUSED, "code": NotFetched.code, "reason": reason}
    rows.update(address="", **values)
