"""`manage.py migrate`: as Django's, by one process at a time, and with the table of the shared cache."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.commands import migrate

from enrollment.upkeep import SETTING_UP, one_at_a_time


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        # Several servers that start at the same time all bring the database up to date.
        with one_at_a_time(SETTING_UP, options["database"]):
            super().handle(*args, **options)
            call_command("createcachetable", database=options["database"], verbosity=0)
