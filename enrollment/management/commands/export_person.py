"""`manage.py export_person ID FILE`: everything that is kept of a person, as a ZIP for that person."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment.desk import export_person
from enrollment.gallery import get_person
from recognition.exceptions import RecognitionError
from recognition.private_file import whole_file


class Command(BaseCommand):
    help = (
        "Writes everything that is kept of a person to FILE, a ZIP: pictures, details, origins, searches, "
        "history and documents, to be read by people and by programs."
    )
    requires_system_checks = ["recognition", "files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("person_id", metavar="ID")
        parser.add_argument("file", type=Path, metavar="FILE")

    def handle(self, **options: Any) -> None:
        path: Path = options["file"]
        try:
            person = get_person(options["person_id"])
            with whole_file(path, may_replace=False) as file:
                content = export_person(person, file)
        except RecognitionError as error:
            raise CommandError(error.message) from error
        except FileExistsError as error:
            message = _("%(file)s is there already. Give a name that is not, or delete it first.")
            raise CommandError(message % {"file": path}) from error
        except OSError as error:
            message = _("%(file)s cannot be written: %(reason)s.")
            raise CommandError(message % {"file": path, "reason": error.strerror}) from error
        count = len(content["pictures"])
        text = ngettext(
            "%(count)d picture was exported.", "%(count)d pictures were exported.", count
        )
        self.stdout.write(text % {"count": count})
