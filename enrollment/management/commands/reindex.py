"""`manage.py reindex`: make Milvus and the picture storage match SQL, or report the differences."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment.upkeep import Finding, Kind, Reconciliation, known_models, reconcile
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar


class Command(BaseCommand):
    help = (
        "Makes Milvus equal to SQL: adds what is missing, removes what is left over, embeds again "
        "what was made with replaced weights. May be interrupted and run again."
    )

    requires_system_checks = ["recognition", "models", "files"]  # 'check' shows the other warnings

    def add_arguments(self, parser: ArgumentParser) -> None:
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument(
            "--check", action="store_true", help="Only report; exit code 1 when something differs."
        )
        mode.add_argument(
            "--rebuild", action="store_true", help="Empty Milvus, then fill it from SQL."
        )
        parser.add_argument(
            "--keep",
            action="store_true",
            help="Leave the embeddings of other weights: they go on answering where those are in use.",
        )
        parser.add_argument("--model", help="Only the embeddings of this model; no files.")
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        self._check_model(options["model"])
        try:
            result = reconcile(
                mend=not options["check"],
                rebuild=options["rebuild"],
                keep=options["keep"],
                model=options["model"],
                track=progress_bar(options["no_progress"]),
            )
        except RecognitionError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            message = _("Interrupted. What was done is kept; run it again to go on.")
            raise CommandError(message, returncode=130) from None
        for note in result.notes:
            self.stderr.write(note)
        if options["check"]:
            self._report(result)
        else:
            self._summarise(result)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in (known := known_models()):
            message = _("There is no model '%(name)s'. Known models: %(known)s.")
            raise CommandError(message % {"name": name, "known": ", ".join(known)})

    def _report(self, result: Reconciliation) -> None:
        for kind in Kind:
            if finding := result.found.get(kind):
                self.stdout.write(_line(kind, finding))
        if result.found:
            count = sum(finding.count for finding in result.found.values())
            raise CommandError(
                ngettext(
                    "%(count)d difference from SQL. Run 'manage.py reindex' to mend it.",
                    "%(count)d differences from SQL. Run 'manage.py reindex' to mend them.",
                    count,
                )
                % {"count": count}
            )
        self.stdout.write(_("No difference: Milvus and the picture storage equal SQL."))

    def _summarise(self, result: Reconciliation) -> None:
        if result.computed or result.waiting:
            message = _(
                "%(computed)d embeddings computed; %(waiting)d wait for the server, which copies them "
                "to Milvus within a quarter of an hour."
            )
            self.stdout.write(message % {"computed": result.computed, "waiting": result.waiting})
            if not result.unmended:
                return
        if not result.changed and not result.unmended:
            self.stdout.write(_("Nothing to do: Milvus and the picture storage equal SQL."))
            return
        message = _(
            "%(indexed)d embeddings indexed, %(removed)d removed, %(partitions)d partitions dropped, "
            "%(files)d files deleted, %(judged)d pictures judged, %(unmended)d not mended."
        )
        self.stdout.write(
            message
            % {
                "indexed": result.indexed,
                "removed": result.removed,
                "partitions": result.dropped_partitions,
                "files": result.deleted_files,
                "judged": result.judged,
                "unmended": result.unmended.total(),
            }
        )
        if result.unmended:
            raise CommandError(_by_reason(result.unmended))


def _line(kind: Kind, finding: Finding) -> str:
    examples = ", ".join(str(example) for example in finding.examples)
    more = ", …" if finding.count > len(finding.examples) else ""
    return f"{finding.count} {kind.value}: {examples}{more}"


def _by_reason(unmended: Counter[str]) -> str:
    lines = [f"{count} × {reason}" for reason, count in unmended.most_common()]
    return "\n".join([_("Not everything could be mended:"), *lines])
