"""What keeps the copies equal to SQL, deletes what may not be kept, and makes and reads backups."""

from enrollment.upkeep.archive import verify_archive
from enrollment.upkeep.backlog import BacklogThread
from enrollment.upkeep.backups import backup, restore
from enrollment.upkeep.reconciliation import Finding, Kind, Reconciliation, known_models, reconcile
from enrollment.upkeep.retention import delete_due_persons

__all__ = [
    "BacklogThread",
    "Finding",
    "Kind",
    "Reconciliation",
    "backup",
    "delete_due_persons",
    "known_models",
    "reconcile",
    "restore",
    "verify_archive",
]
