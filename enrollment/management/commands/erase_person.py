"""`manage.py erase_person ID`: erase a person with everything, and write the signed receipt."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from enrollment.upkeep import Ground, erase_by_id, receipt_json, save_receipt
from recognition.exceptions import RecognitionError


class Command(BaseCommand):
    help = (
        "Erases a person with everything that is kept of them, in the trash too, at once and for good, and "
        "writes the signed receipt. Beside a running server with embedded Milvus, the server removes the vectors within a minute."
    )
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("person_id", metavar="ID")
        parser.add_argument(
            "--ground", choices=[ground.value for ground in Ground], default=Ground.REQUEST.value
        )
        parser.add_argument(
            "--receipts",
            type=Path,
            metavar="FOLDER",
            help="Where the receipt is written as a page and as JSON; it is printed otherwise.",
        )

    def handle(self, **options: Any) -> None:
        folder: Path | None = options["receipts"]
        if folder and not folder.is_dir():
            message = _(
                "There is no folder %(folder)s. Make it first: whoever is erased is erased."
            )
            raise CommandError(message % {"folder": folder})
        try:
            signed = erase_by_id(options["person_id"], Ground(options["ground"]))
        except RecognitionError as error:
            raise CommandError(error.message) from error
        if folder is None:
            self.stdout.write(receipt_json(signed), ending="")
            return
        for path in save_receipt(signed, folder):
            self.stdout.write(str(path))
