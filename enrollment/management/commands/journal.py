"""`manage.py journal`: verify the journal, or export it."""

from __future__ import annotations

import csv
import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment.journal import COLUMNS, as_row, find_lines, record, verify
from enrollment.models import Action
from recognition.management.options import require_with

LINES_AT_A_TIME: Final = 1000


class Command(BaseCommand):
    help = (
        "Exports who did or saw what, as JSON lines or CSV, oldest first; or verifies that no line was "
        "changed or removed (exit code 1 when one was). The running server may stay up."
    )
    requires_system_checks = ["files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--verify", action="store_true", help="Compute every hash again, and export nothing."
        )
        parser.add_argument(
            "--head",
            default="",
            metavar="HASH",
            help="With --verify: a hash that was a chain's last one and was kept elsewhere, such as on a "
            "receipt. Only so are lines found that were removed at the end.",
        )
        parser.add_argument("--format", choices=["json", "csv"], default="json")
        parser.add_argument("--person", default="", metavar="ID", help="Only of this person's id.")
        parser.add_argument("--who", default="", help="Only of this account, token or command.")
        parser.add_argument("--action", default="", choices=Action.values, metavar="ACTION")
        parser.add_argument("--since", type=_instant, help="A day or time, as 2027-01-31T12:00.")
        parser.add_argument("--until", type=_instant, help="Likewise; not included itself.")

    def handle(self, **options: Any) -> None:
        require_with(options, "verify", "head")
        if options["verify"]:
            self._verify(options["head"])
        else:
            self._export(options)

    def _verify(self, known_head: str) -> None:
        found = verify(known_head)
        for problem in found.problems:
            self.stderr.write(problem)
        for name, last in found.heads.items():
            self.stdout.write(f"{name} {last or '-'}")
        if found.problems:
            raise CommandError(_("The journal was tampered with, or damaged."))
        text = ngettext(
            "%(count)d line, unchanged and whole.",
            "%(count)d lines, unchanged and whole.",
            found.lines,
        )
        self.stdout.write(text % {"count": found.lines})

    def _export(self, options: dict[str, Any]) -> None:
        lines = find_lines(
            person_id=options["person"],
            who=options["who"],
            action=options["action"],
            since=options["since"],
            until=options["until"],
        ).order_by("at", "pk")
        rows = map(as_row, lines.iterator(LINES_AT_A_TIME))
        count = 0
        table = csv.DictWriter(self.stdout, COLUMNS) if options["format"] == "csv" else None
        if table:
            table.writeheader()
        for row in rows:
            count += 1
            if table:
                texts = {name: json.dumps(row[name]) for name in ("facts", "persons")}
                table.writerow(row | texts)
            else:
                self.stdout.write(json.dumps(row))
        record(Action.EXPORTED, facts={"what": "journal", "count": count})


def _instant(text: str) -> datetime:
    try:
        day = parse_date(text)
        found = datetime(day.year, day.month, day.day) if day else parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise ArgumentTypeError(
            _(
                "'%(given)s' was given; a day or time is expected, as 2027-01-31 or 2027-01-31T12:00."
            )
            % {"given": text[:50]}
        )
    return found if timezone.is_aware(found) else timezone.make_aware(found)
