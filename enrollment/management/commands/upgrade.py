"""`manage.py upgrade`: bring the data up to this version, or leave it as it was."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from enrollment.upkeep import undo_upgrade, upgrade
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar


class Command(BaseCommand):
    help = (
        "Brings the data of an earlier version up to this one: copies both databases, migrates, checks, "
        "embeds again what was embedded with replaced weights, checks that it is found, and puts "
        "everything back when a check fails. Stop the server first. May be run again."
    )
    requires_system_checks = ["recognition", "files"]

    def check(self, **options: Any) -> None:
        """Show nothing unless there is an error: the server shows warnings at its start, and 'check' all."""
        found = checks.run_checks(tags=options["tags"])
        if any(message.is_serious() and not message.is_silenced() for message in found):
            super().check(**options)

    def add_arguments(self, parser: ArgumentParser) -> None:
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument(
            "--no-reindex",
            action="store_true",
            help="Leave the embedding to 'reindex', as the start of a server does.",
        )
        mode.add_argument(
            "--undo",
            action="store_true",
            help="Put back what the last upgrade began with. What came since is lost.",
        )
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        try:
            if options["undo"]:
                undo_upgrade(self.stdout.write)
                return
            track = progress_bar(options["no_progress"])
            upgrade(self.stdout.write, reindex=not options["no_reindex"], track=track)
        except (RecognitionError, OSError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            message = _("Interrupted. Run it again: it goes on, or begins anew.")
            raise CommandError(message, returncode=130) from None
        if not options["no_reindex"]:
            self.stdout.write(_("This is version %(version)s.") % {"version": settings.VERSION})
