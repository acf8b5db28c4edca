"""`manage.py receipt`: verify receipts of erasures, make one again, print the public key."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from enrollment.desk import read_receipt, receipt_again, receipt_json, says_the_same, verify_receipt
from enrollment.installation_key import installation_key, public_key
from enrollment.models import Receipt
from recognition.exceptions import RecognitionError
from recognition.management.options import require_with

MOST_BYTES = 2**20


class Command(BaseCommand):
    help = "Verifies a receipt of an erasure with the public key of the installation that made it."
    requires_system_checks = ["files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        act = parser.add_mutually_exclusive_group(required=True)
        act.add_argument("--verify", type=Path, metavar="FILE", help="A receipt, JSON or page.")
        act.add_argument(
            "--public-key", action="store_true", help="Print this installation's public key."
        )
        act.add_argument(
            "--again",
            type=int,
            metavar="NUMBER",
            help="Print this receipt again; needs --person-id.",
        )
        parser.add_argument("--person-id", help="The id that the receipt is about.")
        parser.add_argument(
            "--key", type=Path, metavar="PEM", help="The public key; this installation's otherwise."
        )

    def handle(self, **options: Any) -> None:
        require_with(options, "verify", "key")
        require_with(options, "again", "person_id")
        try:
            if options["verify"]:
                self._verify(options["verify"], options["key"])
            elif options["again"] is not None:
                again = receipt_again(options["again"], options["person_id"] or "")
                self.stdout.write(receipt_json(again), ending="")
            else:
                self.stdout.write(_own_key(), ending="")
        except RecognitionError as error:
            raise CommandError(error.message) from error

    def _verify(self, path: Path, key: Path | None) -> None:
        text = _read(path)
        signed = read_receipt(text)
        pem = _read(key) if key else _own_key()
        if not verify_receipt(signed, public_key(pem)):
            raise CommandError(
                _(
                    "The signature is not of this key: the receipt was altered, or another installation "
                    "made it. --key names that one's public key."
                )
            )
        self.stdout.write(_("The signature is right. The receipt says:"))
        for name, value in signed["receipt"].items():
            self.stdout.write(f"  {name}: {value}")
        if "<html" in text and not says_the_same(text, signed):
            self.stderr.write(
                _(
                    "The page words it in another way than this version does: believe what stands above."
                )
            )


def _own_key() -> str:
    """Return this installation's public key as PEM. Raise `DatabaseError` where there is no database.

    So none is made in a `DATA_DIR` that is mistyped, and published in the place of the right one.
    """
    Receipt.objects.exists()
    return installation_key().public_pem


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CommandError(_("%(file)s is too large for what is expected.") % {"file": path})
        return path.read_text()
    except UnicodeDecodeError as error:
        raise CommandError(_("%(file)s is no text.") % {"file": path}) from error
    except OSError as error:
        message = _("%(file)s cannot be read: %(reason)s.")
        raise CommandError(message % {"file": path, "reason": error.strerror}) from error
