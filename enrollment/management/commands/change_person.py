"""`manage.py change_person ID`: correct what is kept of a person, or show it and who changed it."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import date
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from enrollment import journal
from enrollment.corrections import CHANGEABLE, change_person
from enrollment.gallery import get_person
from enrollment.management.days import day
from enrollment.models import Person
from enrollment.web import error_text
from recognition.exceptions import RecognitionError

LINES_SHOWN: Final = 10


class Command(BaseCommand):
    help = (
        "Changes what is given and nothing else. Shows what is kept of the person, and what was changed last, "
        "when and by whom."
    )
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", metavar="ID")
        parser.add_argument("--new-id", dest="person_id", metavar="ID", help="The new id.")
        parser.add_argument("--name")
        parser.add_argument("--notes")
        parser.add_argument("--legal-basis")
        parser.add_argument(
            "--keep-until",
            type=_day_or_none,
            metavar="DAY",
            help="The last day, as 2027-12-31; '': kept until somebody deletes them.",
        )

    def handle(self, **options: Any) -> None:
        given = {name: options[name] for name in CHANGEABLE if options[name] is not None}
        changes = {
            name: None if value == "" and name == "keep_until" else value
            for name, value in given.items()
        }
        try:
            person = get_person(options["id"])
            if changes:
                person = change_person(person, **changes)
            else:
                journal.note_look(person)
        except (RecognitionError, ValidationError) as error:
            raise CommandError(error_text(error)) from error
        self._show(person)

    def _show(self, person: Person) -> None:
        for name in CHANGEABLE:
            value = getattr(person, name)
            self.stdout.write(f"{name}: {'' if value is None else value}".rstrip())
        lines = list(journal.history_of(person, with_looks=False)[:LINES_SHOWN])
        names = journal.names_of(lines)
        for line in lines:
            at = timezone.localtime(line.at).strftime("%Y-%m-%d %H:%M")
            self.stdout.write(f"{at}  {journal.in_words(line, names)}")


def _day_or_none(text: str) -> date | str:
    """Return the day, or the empty text for none."""
    return day(text) if text else ""
