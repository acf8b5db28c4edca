"""What a backup holds, and in which entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps
from django.core import serializers
from django.db import models

FORMAT: Final = 1  # raised when an older program could not read what is written
MANIFEST: Final = "manifest.json"
DELETED: Final = "deleted.json"
ROWS_AN_ENTRY: Final = 1_000

# Made by `migrate`, never replaced.
MADE_BY_MIGRATE: Final = {"contenttypes.contenttype", "auth.permission"}
# What is of use to this installation only. Milvus is made anew, so there is nothing to forget in it.
LEFT_OUT: Final = MADE_BY_MIGRATE | {
    "sessions.session",
    "enrollment.removal",
    "django_tasks_database.dbtaskresult",
    "axes.accessattempt",
    "axes.accessattemptexpiration",
    "axes.accessfailurelog",
    "axes.accesslog",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands first in a backup: enough to say whether it can be read here."""

    format: int
    created_at: str
    migrations: dict[str, list[str]]  # of each application whose rows are in it
    rows: dict[str, int]  # of each model
    vectors: list[dict[str, Any]]  # model, fingerprint of the weights, count


def backed_up_models() -> list[type[models.Model]]:
    """The models whose rows are backed up; those that others name by natural keys come first."""
    every = serializers.sort_dependencies(
        [(config, None) for config in apps.get_app_configs()], allow_cycles=True
    )
    return [
        model
        for model in every
        if model._meta.label_lower not in LEFT_OUT and model._meta.managed and not model._meta.proxy
    ]
