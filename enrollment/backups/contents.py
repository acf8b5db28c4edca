"""The format of a backup: its entries and the models whose rows it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps
from django.core import serializers
from django.db import models

FORMAT: Final = 1  # increased when older programs cannot read the new format
MANIFEST: Final = "manifest.json"
DELETED: Final = "deleted.json"  # pictures that were deleted while the backup was made
ERASED: Final = "erased.json"  # items of the trash that were erased while it was made
ROWS_AN_ENTRY: Final = 1_000

# Rows that `migrate` creates; a restore never replaces them.
MADE_BY_MIGRATE: Final = {"contenttypes.contenttype", "auth.permission"}
# Rows that matter to this installation only. Pending removals too: a restore rebuilds Milvus.
LEFT_OUT: Final = MADE_BY_MIGRATE | {
    "sessions.session",
    "enrollment.removal",
    # Of nobody who is enrolled, and for days at most: a backup would keep them longer.
    "enrollment.searchanswer",
    "enrollment.probe",
    "django_tasks_database.dbtaskresult",
    "axes.accessattempt",
    "axes.accessattemptexpiration",
    "axes.accessfailurelog",
    "axes.accesslog",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The first entry of a backup: enough to tell whether it can be restored here."""

    format: int
    created_at: str
    migrations: dict[str, list[str]]  # of each application whose rows are in it
    rows: dict[str, int]  # of each model
    vectors: list[dict[str, Any]]  # model, fingerprint of the weights, count


def backed_up_models() -> list[type[models.Model]]:
    """Return the models whose rows are backed up, those referred to by natural keys first."""
    every = serializers.sort_dependencies(
        [(config, None) for config in apps.get_app_configs()], allow_cycles=True
    )
    return [
        model
        for model in every
        if model._meta.label_lower not in LEFT_OUT and model._meta.managed and not model._meta.proxy
    ]
