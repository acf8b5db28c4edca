"""`manage.py consents ID`: list the consents of a person, record one, or remove one."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.files import File
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from enrollment.enrolling import add_consent, purposes_named, remove_consent
from enrollment.gallery import get_person
from enrollment.management.days import day
from enrollment.models import Person
from enrollment.web import error_text
from recognition.exceptions import RecognitionError
from recognition.management.options import require_with


class Command(BaseCommand):
    help = (
        "Lists the consents of a person; records one with --add, or removes one that was recorded by mistake "
        "with --remove. For a withdrawn consent there is 'manage.py erase_person ID --ground withdrawal'."
    )
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("person_id", metavar="ID")
        act = parser.add_mutually_exclusive_group()
        act.add_argument(
            "--add",
            nargs="?",
            const="",
            metavar="FILE",
            help="Record a consent, with its document if FILE is given: PDF, picture or text.",
        )
        act.add_argument("--remove", type=int, metavar="NUMBER", help="Its number in the list.")
        parser.add_argument(
            "--day",
            type=day,
            help="With --add: when it was given, not later than today, which it is otherwise.",
        )
        parser.add_argument("--expires", type=day, metavar="DAY", help="With --add: the last day.")
        parser.add_argument(
            "--purpose",
            action="append",
            default=[],
            metavar="NAME",
            help="With --add: what the person may be searched for; once for each.",
        )

    def handle(self, **options: Any) -> None:
        require_with(options, "add", "day", "expires", "purpose")
        try:
            person = get_person(options["person_id"])
            if options["add"] is not None:
                self._add(person, options)
            elif options["remove"] is not None:
                remove_consent(person, options["remove"])
            self._list(person)
        except (RecognitionError, ValidationError) as error:
            raise CommandError(error_text(error)) from error

    @staticmethod
    def _add(person: Person, options: dict[str, Any]) -> None:
        purposes = purposes_named(options["purpose"])
        with ExitStack() as opened:
            document = None
            if options["add"]:
                path = Path(options["add"])
                try:
                    document = File(opened.enter_context(path.open("rb")), path.name)
                except OSError as error:
                    message = _("%(file)s cannot be read: %(reason)s.")
                    values = {"file": path, "reason": error.strerror}
                    raise CommandError(message % values) from error
            add_consent(
                person,
                document=document,
                day=options["day"] or timezone.localdate(),
                expires=options["expires"],
                purposes=purposes,
            )

    def _list(self, person: Person) -> None:
        consents = list(person.consents.prefetch_related("purposes"))
        for consent in consents:
            text = _("%(number)d  %(day)s, expires: %(end)s, purposes: %(purposes)s  %(file)s")
            values = {
                "number": consent.pk,
                "day": consent.day.isoformat(),
                "end": consent.expires.isoformat() if consent.expires else "-",
                "purposes": ", ".join(map(str, consent.purposes.all())) or "-",
                "file": consent.file_name,
            }
            self.stdout.write((text % values).rstrip())
        if not consents:
            self.stdout.write(_("No consent is recorded."))
