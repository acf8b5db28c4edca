"""`manage.py db_worker`: do what `TASKS_BACKEND=database` leaves in SQL."""

from __future__ import annotations

from typing import Any

from django_tasks_db.management.commands import db_worker

from enrollment.upkeep import at_work


class Command(db_worker.Command):
    """The worker of django-tasks, beside which nothing replaces the database."""

    def handle(self, **options: Any) -> None:
        with at_work():
            super().handle(**options)
