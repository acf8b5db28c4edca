"""Maintenance: repair the copies of SQL, delete persons whose time is over, back up and restore."""

from enrollment.upkeep.archive import verify_archive
from enrollment.upkeep.backing_up import backup
from enrollment.upkeep.backlog import BacklogThread
from enrollment.upkeep.backup_records import (
    BackupState,
    backups_holding,
    delete_overdue,
    mark_deleted,
    state_of,
)
from enrollment.upkeep.checks import register_checks
from enrollment.upkeep.drift import Finding, Kind, Reconciliation
from enrollment.upkeep.figures import Waiting, waiting_work
from enrollment.upkeep.leader import SETTING_UP, free_locks_of_vanished, one_at_a_time
from enrollment.upkeep.person_export import export_name, export_person
from enrollment.upkeep.receipts import (
    Ground,
    erase_by_id,
    erase_item_with_receipts,
    erase_with_receipt,
    read_receipt,
    receipt_again,
    receipt_json,
    receipt_page,
    save_receipt,
    says_the_same,
    verify_receipt,
)
from enrollment.upkeep.reconciliation import known_models, reconcile
from enrollment.upkeep.restoring import restore
from enrollment.upkeep.safe_copy import is_unfinished as is_upgrade_unfinished
from enrollment.upkeep.trial import Trial
from enrollment.upkeep.upgrading import undo as undo_upgrade
from enrollment.upkeep.upgrading import upgrade

__all__ = [
    "BacklogThread",
    "BackupState",
    "Finding",
    "Ground",
    "Kind",
    "Reconciliation",
    "SETTING_UP",
    "Trial",
    "Waiting",
    "backup",
    "backups_holding",
    "delete_overdue",
    "erase_by_id",
    "erase_item_with_receipts",
    "erase_with_receipt",
    "export_name",
    "export_person",
    "free_locks_of_vanished",
    "is_upgrade_unfinished",
    "known_models",
    "mark_deleted",
    "one_at_a_time",
    "read_receipt",
    "receipt_again",
    "receipt_json",
    "receipt_page",
    "reconcile",
    "register_checks",
    "restore",
    "save_receipt",
    "says_the_same",
    "state_of",
    "undo_upgrade",
    "upgrade",
    "verify_archive",
    "verify_receipt",
    "waiting_work",
]
