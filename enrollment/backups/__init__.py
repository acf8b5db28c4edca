"""Backups: make one, keep a record of it, and restore an installation from it."""

from enrollment.backups.archive import verify_archive
from enrollment.backups.records import (
    BackupState,
    backups_holding,
    delete_overdue,
    mark_deleted,
    state_of,
)
from enrollment.backups.restoration import restore
from enrollment.backups.snapshot import backup

__all__ = [
    "BackupState",
    "backup",
    "backups_holding",
    "delete_overdue",
    "mark_deleted",
    "restore",
    "state_of",
    "verify_archive",
]
