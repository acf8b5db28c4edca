"""`manage.py erase_person ID`: erase a person with everything, and write the signed receipt."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from enrollment.desk import Ground, erase_by_id
from enrollment.management.receipts import add_receipts_argument, check_folder, hand_out
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
        add_receipts_argument(parser)

    def handle(self, **options: Any) -> None:
        check_folder(options["receipts"])
        try:
            signed = erase_by_id(options["person_id"], Ground(options["ground"]))
        except RecognitionError as error:
            raise CommandError(error.message) from error
        hand_out(self, [signed], options["receipts"])
