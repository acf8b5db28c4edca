"""`manage.py audit_gallery`: find what makes searches return wrong results or none."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment.judging import Case, Diagnosis, examine_gallery, keep_examination
from enrollment.management.counts import pictures
from enrollment.models import Person
from recognition.exceptions import WeightsUnavailable
from recognition.management.progress import add_progress_argument, progress_bar
from recognition.networks import NETWORKS

EXAMPLES: Final = 5  # cases printed for each kind


class Command(BaseCommand):
    help = (
        "Looks for near-duplicate people, pictures under the wrong person, and whatever else makes "
        "searches answer wrongly; changes nothing. The running server may stay up. Exit code 1 when "
        "something is wrong; people with few or only doubtful pictures alone are not."
    )

    requires_system_checks = ["recognition", "files"]  # 'check' shows the other warnings

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", choices=list(NETWORKS), help="Default: DEFAULT_MODEL.")
        parser.add_argument("--json", action="store_true", help="Everything, for programs.")
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        track = progress_bar(options["no_progress"])
        try:
            diagnosis = examine_gallery(
                options["model"], lambda items, total: track(items, _("Comparing"), total)
            )
        except WeightsUnavailable as error:
            raise CommandError(error.message) from error
        keep_examination(diagnosis)
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(diagnosis), indent=1))
        else:
            self._print(diagnosis)
        if diagnosis.faults:
            raise CommandError(
                ngettext(
                    "%(count)d fault found. The report in the admin shows the pictures.",
                    "%(count)d faults found. The report in the admin shows the pictures.",
                    diagnosis.faults,
                )
                % {"count": diagnosis.faults}
            )

    def _print(self, diagnosis: Diagnosis) -> None:
        message = _("%(pictures)s compared in %(seconds).1f s.")
        numbers = {"pictures": pictures(diagnosis.pictures), "seconds": diagnosis.seconds}
        self.stdout.write(message % numbers)
        if diagnosis.thresholds is None:
            self.stdout.write(
                _(
                    "There are no thresholds for the weights in use, so nobody is called a duplicate: "
                    "run 'manage.py calibrate'."
                )
            )
        if not diagnosis.cases:
            self.stdout.write(_("Nothing found."))
        names = _names(diagnosis, EXAMPLES)
        for kind, cases in diagnosis.cases.items():
            self.stdout.write(f"{capfirst(kind.title)}: {len(cases)}. {kind.advice}")
            for case in cases[:EXAMPLES]:
                self.stdout.write(f"  {_line(case, names)}")
            if len(cases) > EXAMPLES:
                self.stdout.write("  …")


def _names(diagnosis: Diagnosis, limit: int | None = None) -> dict[int, str]:
    """Return the `person_id` by key of the persons in the first cases of each kind."""
    shown = {
        person
        for cases in diagnosis.cases.values()
        for case in cases[:limit]
        for person in case.persons
    }
    ids = sorted(shown)
    names: dict[int, str] = {}
    for start in range(0, len(ids), 10_000):  # SQLite takes 32,766 parameters
        some = Person.objects.filter(pk__in=ids[start : start + 10_000])
        names.update(some.values_list("pk", "person_id"))
    return names


def _line(case: Case, names: dict[int, str]) -> str:
    parts = [" – ".join(names.get(person, "?") for person in case.persons)]
    if case.pictures:
        pictures = ", ".join(str(picture) for picture in case.pictures)
        parts.append(_("pictures %(ids)s") % {"ids": pictures})
    if case.similarity is not None:
        parts.append(_("similarity %(value).3f") % {"value": case.similarity})
    if case.own_similarity is not None:
        parts.append(_("to the person's own %(value).3f") % {"value": case.own_similarity})
    return "; ".join(parts)


def _as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    names = _names(diagnosis)
    return {
        "model": diagnosis.weights and diagnosis.weights.model,
        "fingerprint": diagnosis.weights and diagnosis.weights.fingerprint,
        "review": diagnosis.thresholds and diagnosis.thresholds.review.similarity,
        "pictures": diagnosis.pictures,
        "seconds": round(diagnosis.seconds, 3),
        "faults": diagnosis.faults,
        "findings": {
            kind.value: [
                asdict(case) | {"persons": [names.get(person) for person in case.persons]}
                for case in cases
            ]
            for kind, cases in diagnosis.cases.items()
        },
    }
