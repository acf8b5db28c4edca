"""The backups on record: what was made, how long it is kept, and who still lies in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from enrollment.backups.archive import ArchiveRefused, read_entries
from enrollment.backups.contents import MANIFEST
from enrollment.corrections import list_beside
from enrollment.exceptions import BackupNotFound
from enrollment.models import BackupRecord


class BackupState(Enum):
    """Where a backup is, as far as this machine can see."""

    THERE = _("there")
    OVERDUE = _("overdue: to be deleted")
    ELSEWHERE = _("not at its place")
    REPLACED = _("another backup has its name: note it when this one is deleted")
    DELETED = _("deleted")


def new_record(
    path: Path, size: int, made_at: datetime, rows: dict[str, int], days: int | None = None
) -> BackupRecord:
    """Return the unsaved record of a backup that is at `path` or is about to be.

    It is to be kept for `days` from today, by default for `BACKUP_KEEP_DAYS`; 0 sets no end.
    """
    count = settings.BACKUP_KEEP_DAYS if days is None else days
    return BackupRecord(
        made_at=made_at,
        file=str(path.resolve()),
        size=size,
        persons=rows.get("enrollment.person", 0),
        pictures=rows.get("enrollment.faceimage", 0),
        keep_until=timezone.localdate() + timedelta(days=count) if count else None,
    )


def state_of(record: BackupRecord) -> BackupState:
    if record.deleted_at:
        return BackupState.DELETED
    with suppress(ArchiveRefused):
        moment = _moment_of(record)
        if moment and moment != record.made_at:
            return BackupState.REPLACED
    if record.keep_until and record.keep_until < timezone.localdate():
        return BackupState.OVERDUE
    with suppress(OSError):  # of a folder that this account may not look into
        if Path(record.file).is_file():
            return BackupState.THERE
    return BackupState.ELSEWHERE


def _moment_of(record: BackupRecord) -> datetime | None:
    """Return when the backup was made that has this record's name now; None if there is no file.

    Raise `ArchiveRefused`, from its cause, for a file that does not tell.
    """
    path = Path(record.file)
    try:
        with closing(read_entries(path)) as entries:
            first = next(entries, None)
            content = first.content if first and first.name == MANIFEST else b""
        return datetime.fromisoformat(json.loads(content)["created_at"])
    except ArchiveRefused as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    except (ValueError, TypeError, KeyError) as error:
        message = gettext("%(file)s is no backup of this program.")
        raise ArchiveRefused(message % {"file": path.name}) from error


def mark_deleted(numbers: Iterable[int]) -> int:
    """Note that these backups are deleted; return how many were on hand. Raise `BackupNotFound`."""
    wanted = set(numbers)
    known = set(BackupRecord.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    if missing := sorted(wanted - known):
        message = gettext(
            "No backup on record has the number %(numbers)s. 'manage.py backups' lists them."
        )
        raise BackupNotFound(message % {"numbers": ", ".join(map(str, missing))})
    on_hand = BackupRecord.objects.on_hand().filter(pk__in=wanted)
    return int(on_hand.update(deleted_at=timezone.now()))


def delete_overdue() -> tuple[list[BackupRecord], list[tuple[BackupRecord, str]]]:
    """Delete the files of backups whose last day is over; return those that are deleted now, and those
    that are at their place and had to be left, each with the reason.

    A file that is not at its place, or whose name another backup has by now, stays on record: it may
    have been moved.
    """
    over = BackupRecord.objects.on_hand().filter(keep_until__lt=timezone.localdate())
    done, left = [], []
    for record in over:
        path = Path(record.file)
        try:
            if _moment_of(record) != record.made_at:
                continue
            path.unlink()
            list_beside(path).unlink(missing_ok=True)
        except (ArchiveRefused, OSError) as error:
            left.append((record, _reason(error)))
            continue
        mark_deleted([record.pk])
        done.append(record)
    return done, left


def _reason(error: ArchiveRefused | OSError) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return gettext("damaged, or no backup of this program")


def backups_holding(enrolled_at: datetime) -> QuerySet[BackupRecord]:
    """Return the backups on record that hold somebody who was enrolled at this moment."""
    found: QuerySet[BackupRecord] = BackupRecord.objects.on_hand().filter(made_at__gte=enrolled_at)
    return found
