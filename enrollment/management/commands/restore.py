"""`manage.py restore FILE`: restore an installation from a backup."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils.translation import gettext as _

from enrollment.backups import restore, verify_archive
from enrollment.management.counts import people, pictures
from enrollment.upkeep import refuse_beside_server
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar


class Command(BaseCommand):
    help = (
        "Puts what 'backup' wrote to FILE into this installation, which must be empty, and makes "
        "Milvus from the vectors in it. All of it or nothing. Stop the server first."
    )
    requires_system_checks = ["recognition", "files"]  # 'check' shows the other warnings

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--check", action="store_true", help="Only verify FILE; write nothing.")
        mode.add_argument(
            "--overwrite",
            action="store_true",
            help="Delete all people, pictures and accounts that are here, and put FILE in their place.",
        )
        parser.add_argument(
            "--without-erasures",
            action="store_true",
            help="Bring back who and what was erased since FILE was made, too.",
        )
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        path: Path = options["file"]
        try:
            if options["check"]:
                count = verify_archive(path)
                self.stdout.write(_("%(count)d entries, all whole.") % {"count": count})
                return
            refuse_beside_server()
            report = restore(
                path,
                overwrite=options["overwrite"],
                without_erasures=options["without_erasures"],
                track=progress_bar(options["no_progress"]),
            )
        except (RecognitionError, DatabaseError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            message = _("Interrupted. Run 'manage.py reindex --check' to see what is there.")
            raise CommandError(message, returncode=130) from None
        for note in report.notes:
            self.stderr.write(note)
        message = _(
            "%(persons)s, %(pictures)s and %(embeddings)d embeddings restored; "
            "%(indexed)d can be searched."
        )
        self.stdout.write(
            message
            % {
                "persons": people(report.rows["enrollment.person"]),
                "pictures": pictures(report.pictures),
                "embeddings": report.rows["enrollment.faceembedding"],
                "indexed": report.indexed,
            }
        )
        if report.erased_persons or report.erased_pictures:
            message = _(
                "Erased again, as they were after the backup: %(persons)s and %(pictures)s."
            )
            counts = {
                "persons": people(report.erased_persons),
                "pictures": pictures(report.erased_pictures),
            }
            self.stdout.write(message % counts)
        if report.failed:
            message = _("%(count)d vectors did not reach Milvus. Run 'manage.py reindex'.")
            raise CommandError(message % {"count": report.failed})
