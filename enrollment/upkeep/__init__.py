"""Maintenance: repair the copies of SQL, delete persons whose time is over, back up and restore."""

from enrollment.upkeep.archive import verify_archive
from enrollment.upkeep.backing_up import backup
from enrollment.upkeep.backlog import BacklogThread
from enrollment.upkeep.drift import Finding, Kind, Reconciliation
from enrollment.upkeep.figures import Waiting, waiting_work
from enrollment.upkeep.leader import SETTING_UP, one_at_a_time
from enrollment.upkeep.reconciliation import known_models, reconcile
from enrollment.upkeep.restoring import restore
from enrollment.upkeep.retention import delete_due_persons

__all__ = [
    "SETTING_UP",
    "BacklogThread",
    "Finding",
    "Kind",
    "Reconciliation",
    "Waiting",
    "backup",
    "delete_due_persons",
    "known_models",
    "one_at_a_time",
    "reconcile",
    "restore",
    "verify_archive",
    "waiting_work",
]
