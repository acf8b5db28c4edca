"""Maintenance: repair the copies of SQL, finish what was left, delete who is due, upgrade the data."""

from enrollment.upkeep.backlog import BacklogThread
from enrollment.upkeep.checks import register_checks
from enrollment.upkeep.drift import Finding, Kind, Reconciliation
from enrollment.upkeep.figures import Waiting, waiting_work
from enrollment.upkeep.leader import (
    SETTING_UP,
    at_work,
    free_locks_of_vanished,
    one_at_a_time,
    refuse_beside_server,
)
from enrollment.upkeep.reconciliation import known_models, reconcile
from enrollment.upkeep.safe_copy import is_unfinished as is_upgrade_unfinished
from enrollment.upkeep.trial import Trial
from enrollment.upkeep.upgrades import undo as undo_upgrade
from enrollment.upkeep.upgrades import upgrade

__all__ = [
    "BacklogThread",
    "Finding",
    "Kind",
    "Reconciliation",
    "SETTING_UP",
    "Trial",
    "Waiting",
    "at_work",
    "free_locks_of_vanished",
    "is_upgrade_unfinished",
    "known_models",
    "one_at_a_time",
    "refuse_beside_server",
    "reconcile",
    "register_checks",
    "undo_upgrade",
    "upgrade",
    "waiting_work",
]
