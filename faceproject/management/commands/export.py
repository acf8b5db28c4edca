"""`manage.py export`, in the place of django-import-export's command, which reads any table unnoted."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _


class Command(BaseCommand):
    help = "Not offered: people are imported and exported under People and in the admin."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")

    def handle(self, **options: Any) -> NoReturn:
        raise CommandError(
            _(
                "People are imported and exported under People and in the admin, where the journal notes it."
            )
        )
