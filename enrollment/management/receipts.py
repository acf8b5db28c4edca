"""Receipts of erasures, as commands hand them out: nobody else has them."""

from __future__ import annotations

import errno
import os
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from enrollment.desk import receipt_json, save_receipt


def add_receipts_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--receipts",
        type=Path,
        metavar="FOLDER",
        help="Where a receipt is written as a page and as JSON; it is printed otherwise.",
    )


def check_folder(folder: Path | None) -> None:
    """Raise `CommandError` unless receipts can be written to the folder, before anybody is erased."""
    if folder and not folder.is_dir():
        message = _("There is no folder %(folder)s. Make it first: whoever is erased is erased.")
        raise CommandError(message % {"folder": folder})
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        message = _("%(file)s cannot be written: %(reason)s.")
        raise CommandError(message % {"file": folder, "reason": os.strerror(errno.EACCES)})


def hand_out(command: BaseCommand, receipts: Iterable[dict[str, Any]], folder: Path | None) -> None:
    """Write each receipt to the folder, and print it where there is none or it does not take it."""
    for signed in receipts:
        try:
            lines = [f"{path}\n" for path in save_receipt(signed, folder)] if folder else []
        except OSError as error:
            message = _(
                "%(folder)s does not take the receipt: %(reason)s. It is printed instead: keep it, the "
                "person is erased."
            )
            command.stderr.write(message % {"folder": folder, "reason": error.strerror})
            lines = []
        for line in lines or [receipt_json(signed)]:
            command.stdout.write(line, ending="")
