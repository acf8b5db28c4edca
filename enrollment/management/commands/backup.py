"""`manage.py backup FILE`: write all data that must survive the loss of this machine into one file."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from enrollment.backups import backup
from enrollment.management.counts import people, pictures
from enrollment.management.days import MOST_DAYS
from recognition.conf import MIB
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar


class Command(BaseCommand):
    help = (
        "Writes people, pictures, vectors, accounts and weights to FILE, as they are at one moment; "
        "the server may go on serving. FILE holds biometric data: it is readable by its owner only."
    )
    requires_system_checks = ["files"]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument(
            "--keep-days",
            type=int,
            metavar="DAYS",
            help="How long FILE is to be kept, for 'manage.py backups'; 0: no end. BACKUP_KEEP_DAYS otherwise.",
        )
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        path: Path = options["file"]
        days = options["keep_days"]
        if days is not None and not 0 <= days <= MOST_DAYS:
            message = _("--keep-days is %(days)d; 0 to %(most)d were expected.")
            raise CommandError(message % {"days": days, "most": MOST_DAYS})
        try:
            if path.exists():
                raise FileExistsError
            report = backup(path, progress_bar(options["no_progress"]), keep_days=days)
        except RecognitionError as error:
            raise CommandError(str(error)) from error
        except FileExistsError as error:
            message = _("%(file)s is there already. Give a name that is not, or delete it first.")
            raise CommandError(message % {"file": path}) from error
        except OSError as error:
            message = _("%(file)s cannot be written: %(reason)s.")
            raise CommandError(message % {"file": path, "reason": error.strerror}) from error
        except KeyboardInterrupt:
            raise CommandError(_("Interrupted. No backup was made."), returncode=130) from None
        message = _("%(persons)s, %(pictures)s, %(embeddings)d embeddings: %(size).1f MB.")
        self.stdout.write(
            message
            % {
                "persons": people(report.rows["enrollment.person"]),
                "pictures": pictures(report.pictures),
                "embeddings": report.rows["enrollment.faceembedding"],
                "size": path.stat().st_size / MIB,
            }
        )
        if report.missing:
            message = _(
                "The storage lacks the files of %(pictures)s, which the backup has without them. "
                "'manage.py reindex --check' names them."
            )
            self.stderr.write(message % {"pictures": pictures(len(report.missing))})
