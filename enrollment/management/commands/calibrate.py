"""`manage.py calibrate`: measure decision thresholds on the own gallery."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from enrollment.gallery import Weights, compared_weights, thresholds_in_force
from enrollment.judging import Measurement, measure_gallery, save_calibration
from enrollment.management.counts import people, pictures
from enrollment.models import Calibration
from recognition.decision import Thresholds
from recognition.evaluation import plot
from recognition.exceptions import RecognitionError
from recognition.management.options import writable
from recognition.networks import NETWORKS


class Command(BaseCommand):
    help = (
        "Compares pairs of enrolled pictures, of one person and of different people, draws their "
        "similarities as a PNG, and proposes from which similarity on two faces match. The running "
        "server may stay up: Milvus is not needed."
    )

    requires_system_checks = ["recognition", "files"]  # 'check' shows the other warnings

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", choices=list(NETWORKS), help="Default: DEFAULT_MODEL.")
        parser.add_argument(
            "--fmr",
            "--far",
            type=float,
            default=0.001,
            help="False-match rate: the share of pairs of different people that may be taken for one "
            "(default 0.001). --far is its old name.",
        )
        parser.add_argument("--seed", type=int, default=0, help="Draw other pairs.")
        parser.add_argument(
            "--plot",
            type=writable,
            metavar="FILE.png",
            help="Where the picture goes; by default calibration-MODEL.png in DATA_DIR.",
        )
        store = parser.add_mutually_exclusive_group()
        store.add_argument(
            "--save", action="store_true", help="Have the proposed thresholds decide from now on."
        )
        store.add_argument(
            "--forget",
            action="store_true",
            help="Go back to the thresholds that came with the weights.",
        )

    def handle(self, **options: Any) -> None:
        if not 0 < options["fmr"] < 0.5:
            message = _("--fmr is a share between 0 and 0.5, not %(fmr)g.")
            raise CommandError(message % {"fmr": options["fmr"]})
        try:
            weights = compared_weights(options["model"])
            if weights is None:
                message = _("No model has weights here: put a weights file into WEIGHTS_DIR.")
                raise CommandError(message)
            if options["forget"]:
                self._forget(weights)
            else:
                self._calibrate(weights, options)
        except (RecognitionError, OSError) as error:
            raise CommandError(str(error)) from error

    def _calibrate(self, weights: Weights, options: dict[str, Any]) -> None:
        measurement = measure_gallery(weights, options["fmr"], options["seed"])
        path = options["plot"] or settings.DATA_DIR / f"calibration-{weights.model}.png"
        _draw(measurement, path)
        self._print_proposal(measurement)
        self.stdout.write(_("The similarities are drawn in %(path)s.") % {"path": path})
        self._print_in_force(weights)
        if options["save"]:
            save_calibration(measurement)
            self.stdout.write(_("Stored: the proposed thresholds decide from now on."))
        else:
            self.stdout.write(_("Nothing is stored. Add --save to have them decide."))

    def _print_proposal(self, measurement: Measurement) -> None:
        message = _(
            "%(model)s: %(genuine)d pairs of one person and %(impostors)d of different people, from "
            "%(pictures)s of %(persons)s."
        )
        self.stdout.write(
            message
            % {
                "model": measurement.weights.model,
                "genuine": measurement.genuine_pairs,
                "impostors": measurement.impostor_pairs,
                "pictures": pictures(measurement.pictures),
                "persons": people(measurement.persons),
            }
        )
        if measurement.confirmed or measurement.rejected:
            message = _(
                "Among them are those that operators judged: %(confirmed)d confirmed as one person's, "
                "%(rejected)d rejected."
            )
            judged = {"confirmed": measurement.confirmed, "rejected": measurement.rejected}
            self.stdout.write(message % judged)
        for name in ("match", "review"):
            threshold = getattr(measurement, name)
            message = _(
                "Proposed: %(name)s from %(similarity).4f. %(fmr)g of the pairs of different people "
                "reach it at most, and %(recognised).1f %% of the pairs of one person."
            )
            self.stdout.write(
                message
                % {
                    "name": name,
                    "similarity": threshold.similarity,
                    "fmr": threshold.fmr,
                    "recognised": 100 * measurement.recognised(threshold),
                }
            )
        self.stdout.write(
            _(
                "The pictures of different people that are most alike. If two of them show one person, "
                "correct that ('manage.py audit_gallery' finds more) and calibrate again:"
            )
        )
        for pair in measurement.most_alike:
            message = _("  pictures %(first)d and %(second)d: %(similarity).4f")
            self.stdout.write(message % pair._asdict())

    def _print_in_force(self, weights: Weights) -> None:
        thresholds = thresholds_in_force(weights)
        if thresholds is None:
            self.stdout.write(_("In force until now: none."))
            return
        message = _("In force until now: match from %(match).4f, review from %(review).4f.")
        self.stdout.write(message % _similarities(thresholds))

    def _forget(self, weights: Weights) -> None:
        Calibration.objects.filter(model=weights.model, fingerprint=weights.fingerprint).delete()
        thresholds = thresholds_in_force(weights)
        if thresholds is None:
            message = _("Forgotten. The weights came with no thresholds: nothing decides now.")
        else:
            message = _(
                "Forgotten. In force now: match from %(match).4f, review from %(review).4f."
            )
            message %= _similarities(thresholds)
        self.stdout.write(message)


def _similarities(thresholds: Thresholds) -> dict[str, float]:
    return {"match": thresholds.match.similarity, "review": thresholds.review.similarity}


def _draw(measurement: Measurement, path: Path) -> None:
    name = measurement.weights.model
    marks = {
        "match": measurement.match.similarity,
        "review": measurement.review.similarity,
    }
    plot({name: measurement.verification}, path, {name: marks})
