"""Figures about pending work, for monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone
from django_tasks import TaskResultStatus
from django_tasks_db.models import DBTaskResult
from prometheus_client import Gauge

from enrollment.models import FaceEmbedding, Removal

LAST_PASS: Final = Gauge(
    "faces_backlog_last_pass_timestamp_seconds",
    "When the server last looked for unfinished work and all went well, or started; 0 elsewhere.",
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The amount of pending work of one kind, and the age of the oldest part in seconds (0: none)."""

    count: int
    age: float


def waiting_work() -> dict[str, Waiting]:
    """Return the pending work by kind.

    `backlog`: embeddings that are still to be copied to Milvus; their age counts from the upload of
    the picture, also if only the person id changed. `outbox`: vectors and files of deleted
    pictures. `tasks`: work for `script/worker`.
    """
    pending = FaceEmbedding.objects.filter(status=FaceEmbedding.Status.PENDING)
    tasks = DBTaskResult.objects.filter(status=TaskResultStatus.READY)
    return {
        "backlog": _waiting(pending, "created_at"),
        "outbox": _waiting(Removal.objects.all(), "created_at"),
        "tasks": _waiting(tasks, "enqueued_at"),
    }


def _waiting(rows: QuerySet[Any], since: str) -> Waiting:
    # Both queries use an index; only the oldest row is read.
    oldest: datetime | None = rows.order_by("pk").values_list(since, flat=True).first()
    age = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    return Waiting(rows.count(), max(age, 0.0))
