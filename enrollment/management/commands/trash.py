"""`manage.py trash`: list what can be undone, undo it, or erase it at once."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment import corrections
from enrollment.desk import erase_item_with_receipts
from enrollment.management.receipts import add_receipts_argument, check_folder, hand_out
from enrollment.web import error_text
from recognition.exceptions import RecognitionError


class Command(BaseCommand):
    help = "Lists what was deleted, moved, merged or imported; undoes it, or erases it at once."
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("list", help="What can be undone, newest first.")
        undo = acts.add_parser("undo", help="Take an act back; restore what was deleted.")
        undo.add_argument("item", type=int, help="Its number in the list.")
        undo.add_argument("--person-id", help="Another id, when somebody else has the old one.")
        erase = acts.add_parser("erase", help="Erase for good what an item holds.")
        erase.add_argument("item", type=int, help="Its number in the list.")
        add_receipts_argument(erase)

    def handle(self, **options: Any) -> None:
        if options["act"] == "list":
            self._list()
            return
        try:
            if options["act"] == "erase":
                self._erase(options["item"], options["receipts"])
                return
            item = corrections.trash_item(options["item"])
            restored = corrections.undo(item, person_id=options["person_id"])
        except (RecognitionError, ValidationError) as error:
            raise CommandError(error_text(error)) from error
        count = len(restored.pictures)
        text = ngettext(
            "Undone, with %(count)d picture.", "Undone, with %(count)d pictures.", count
        )
        self.stdout.write(text % {"count": count})

    def _erase(self, item: int, folder: Path | None) -> None:
        check_folder(folder)
        hand_out(self, erase_item_with_receipts(item), folder)
        self.stdout.write(_("Erased for good."))

    def _list(self) -> None:
        items = list(corrections.in_trash())
        for item in items:
            until = timezone.localtime(item.erase_at).strftime("%Y-%m-%d %H:%M")
            text = _("%(number)d  %(item)s, pictures: %(pictures)d, until %(until)s")
            values = {"number": item.pk, "item": item, "pictures": item.pictures, "until": until}
            self.stdout.write(text % values)
        if not items:
            self.stdout.write(_("The trash is empty."))
