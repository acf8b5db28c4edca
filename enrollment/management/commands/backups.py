"""`manage.py backups`: list the backups on record, and note which are deleted."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment.backups import delete_overdue, mark_deleted, state_of
from enrollment.corrections import write_erased_lists
from enrollment.models import BackupRecord
from recognition.exceptions import RecognitionError

MB = 1_000_000


class Command(BaseCommand):
    help = (
        "Lists the backups that 'backup' made: number, moment, people, pictures, size, last day, where "
        "each is. Also writes the list of erasures beside each that is at its place."
    )
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        act = parser.add_mutually_exclusive_group()
        act.add_argument(
            "--deleted", type=int, nargs="+", metavar="NUMBER", help="These are deleted: note it."
        )
        act.add_argument(
            "--delete-overdue",
            action="store_true",
            help="Delete the files whose last day is over, with their lists of erasures. Ends with 1, and names "
            "them, when some cannot be deleted.",
        )

    def handle(self, **options: Any) -> None:
        try:
            if options["deleted"]:
                count = mark_deleted(options["deleted"])
                self._say(
                    ngettext(
                        "%(count)d backup is noted as deleted.",
                        "%(count)d backups are noted as deleted.",
                        count,
                    ),
                    count,
                )
                return
            if options["delete_overdue"]:
                self._delete_overdue()
                return
        except RecognitionError as error:
            raise CommandError(error.message) from error
        write_erased_lists()
        records = BackupRecord.objects.all()
        for record in records:
            self.stdout.write("  ".join(_columns(record)))
        if not records:
            self.stdout.write(_("No backup is on record. 'manage.py backup FILE' makes one."))

    def _delete_overdue(self) -> None:
        done, left = delete_overdue()
        count = len(done)
        self._say(
            ngettext("%(count)d backup was deleted.", "%(count)d backups were deleted.", count),
            count,
        )
        if left:
            message = _(
                "Overdue, and not deleted:\n%(files)s\nDelete what is a backup, as an account that may, "
                "with the list .erased beside it, and note it: 'manage.py backups --deleted NUMBER'."
            )
            files = "\n".join(f"{record.pk:>4}  {record.file}: {reason}" for record, reason in left)
            raise CommandError(message % {"files": files})

    def _say(self, text: str, count: int) -> None:
        self.stdout.write(text % {"count": count})


def _columns(record: BackupRecord) -> list[str]:
    last_day = date_format(record.keep_until, "SHORT_DATE_FORMAT") if record.keep_until else "-"
    return [
        f"{record.pk:>4}",
        date_format(localtime(record.made_at), "SHORT_DATETIME_FORMAT"),
        f"{record.persons:>7}",
        f"{record.pictures:>8}",
        f"{record.size / MB:>9.1f} MB",
        last_day,
        str(state_of(record).value),
        record.file,
    ]
