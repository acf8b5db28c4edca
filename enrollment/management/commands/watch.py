"""`manage.py watch FOLDER`: import what is laid into a folder, for as long as it runs."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, close_old_connections
from django.utils.translation import gettext as _

from enrollment.enrolling import purposes_named
from enrollment.imports import SETTLED_SECONDS, WatchedFolder, counts_of
from enrollment.management.days import day as read_day
from enrollment.models import ImportJob, validate_not_past
from enrollment.upkeep import at_work
from enrollment.web import error_text
from recognition.exceptions import RecognitionError
from recognition.management.options import positive

MOST_SECONDS: Final = 24 * 3600


class Command(BaseCommand):
    help = (
        "Has the server import what is laid into FOLDER, a folder for each person, its name the "
        "person's id. What was imported is moved to 'done' and 'refused' beside FOLDER, with a "
        "report. It may be interrupted and run again."
    )

    requires_system_checks = ["files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="FOLDER")
        parser.add_argument("--once", action="store_true", help="Look once, and end.")
        parser.add_argument("--interval", type=float, default=5.0, metavar="SECONDS")
        parser.add_argument(
            "--settled",
            type=positive,
            default=SETTLED_SECONDS,
            metavar="SECONDS",
            help="How long nothing is written to a file before it is taken.",
        )
        parser.add_argument("--legal-basis", default="", help="Of people who are new.")
        parser.add_argument(
            "--keep-until",
            type=read_day,
            metavar="DAY",
            help="The last day of people who are new.",
        )
        parser.add_argument(
            "--purpose", action="append", default=[], help="What people who are new consent to."
        )
        parser.add_argument(
            "--no-face-detection",
            action="store_true",
            help="The pictures are aligned crops of faces already.",
        )
        parser.add_argument("--on-several-faces", choices=["largest", "refuse"], default="largest")

    def handle(self, **options: Any) -> None:
        folder = options["folder"]
        if not 0 < options["interval"] <= MOST_SECONDS:
            message = _(
                "--interval is %(given)g; more than 0 and at most %(most)d seconds were expected."
            )
            raise CommandError(message % {"given": options["interval"], "most": MOST_SECONDS})
        if not folder.is_dir():
            raise CommandError(_("%(folder)s is not a folder.") % {"folder": folder})
        watched = WatchedFolder(
            folder,
            _details(options),
            {
                "use_face_detection": not options["no_face_detection"],
                "on_several_faces": options["on_several_faces"],
            },
            options["settled"],
        )
        try:
            watched.prepare()
        except OSError as error:
            message = _("'done' and 'refused' cannot be made beside %(folder)s: %(error)s.")
            names = {"folder": folder, "error": error.strerror}
            raise CommandError(message % names) from error
        with suppress(KeyboardInterrupt), at_work():
            while True:
                self._look(watched)
                if options["once"]:
                    return
                time.sleep(options["interval"])
                close_old_connections()

    def _look(self, watched: WatchedFolder) -> None:
        try:
            job, filed = watched.look()
        except (DatabaseError, OSError, RecognitionError) as error:
            self.stderr.write(_("This look failed, the next goes on: %(error)s") % {"error": error})
            return
        for each in filed:
            self._say(_("Import %(number)d is over: %(counts)s."), each)
        if job:
            self._say(_("Import %(number)d: %(counts)s."), job)

    def _say(self, text: str, job: ImportJob) -> None:
        counts = ", ".join(f"{name} {count}" for name, count in counts_of(job).items() if count)
        self.stdout.write(text % {"number": job.pk, "counts": counts})


def _details(options: dict[str, Any]) -> dict[str, Any]:
    day = options["keep_until"]
    try:
        if day:
            validate_not_past(day)
        purposes = purposes_named(options["purpose"])
    except (RecognitionError, ValidationError) as error:
        raise CommandError(error_text(error)) from error
    details = {
        "legal_basis": options["legal_basis"],
        "keep_until": day,
        "purposes": [purpose.pk for purpose in purposes],
    }
    return {name: value for name, value in details.items() if value}
