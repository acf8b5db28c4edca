"""Measures the models on labelled pictures, and stores the thresholds that follow from it."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import ArgumentParser
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from recognition.evaluation import (
    EvaluationError,
    Gallery,
    Pair,
    Verification,
    embed_pictures,
    identification,
    impostor_curve,
    impostor_scores,
    missing_pictures,
    open_pictures,
    plot,
    read_descriptors,
    read_pairs,
    review_fmr,
    threshold_of_impostors,
    verify_all,
    verify_pairs,
)
from recognition.exceptions import RecognitionError
from recognition.management.progress import add_progress_argument, progress_bar
from recognition.networks import NETWORKS, find_weights, usable_names
from recognition.networks.descriptor import (
    WeightsDescriptor,
    full_hash,
    read_descriptor,
    write_descriptor,
)


class Command(BaseCommand):
    help = (
        "Measures models on a folder or zip of pictures (one folder a person), from the photo to the "
        "embedding: verification of every picture with every other, or of the pairs in a CSV "
        "(image_a,image_b,same) or LFW's pairs.txt, and closed-set identification."
    )

    requires_system_checks = ["recognition"]  # without the notes: those stand in 'check'

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("pictures", type=Path, help="folder or zip, a folder for each person")
        parser.add_argument("--pairs", type=Path, help="verify these pairs instead of all")
        parser.add_argument(
            "--identify",
            action="store_true",
            help="measure rank-1 and rank-5 too (as without --pairs)",
        )
        parser.add_argument(
            "--model", action="append", choices=list(NETWORKS), help="default: all with weights"
        )
        parser.add_argument(
            "--aligned", action="store_true", help="the pictures are 112×112 aligned crops already"
        )
        parser.add_argument(
            "--fmr",
            "--far",
            type=float,
            default=0.001,
            help="false-match rate to find a threshold for (default 0.001); --far is its old name",
        )
        parser.add_argument(
            "--compare", type=Path, help=".npz of names and embedding: another system's vectors"
        )
        parser.add_argument("--plot", type=Path, help="write ROC and histograms as PNG")
        parser.add_argument("--json", type=Path, help="write the figures as JSON")
        parser.add_argument(
            "--save", action="store_true", help="store figures and thresholds with the weights"
        )
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        if not 0 < options["fmr"] < 1:
            raise CommandError(
                _("--fmr is a share between 0 and 1, not %(fmr)g.") % {"fmr": options["fmr"]}
            )
        try:
            self._evaluate(options)
        except (EvaluationError, RecognitionError, OSError) as error:
            raise CommandError(str(error)) from error

    def _evaluate(self, options: dict[str, Any]) -> None:
        pictures = open_pictures(options["pictures"])
        pairs = read_pairs(options["pairs"]) if options["pairs"] else []
        if missing := missing_pictures(pairs, pictures.members):
            raise CommandError(
                ngettext(
                    "%(count)d picture of the pairs is not in %(place)s: %(first)s.",
                    "%(count)d pictures of the pairs are not in %(place)s, the first of them %(first)s.",
                    len(missing),
                )
                % {"count": len(missing), "place": options["pictures"], "first": missing[0]}
            )
        in_pairs = {stem for pair in pairs for stem in pair[:2]}
        whole = options["identify"] or options["save"] or not pairs
        stems = sorted(pictures.members if whole else in_pairs)
        track = progress_bar(options["no_progress"])
        gallery = embed_pictures(
            pictures,
            stems,
            options["model"] or usable_names(),
            detect=not options["aligned"],
            track=lambda items, total: track(items, _("pictures"), total),
        )
        for file, reason in gallery.unusable.items():
            self.stderr.write(
                _("%(file)s: left out. %(reason)s") % {"file": file, "reason": reason}
            )
        if missing := missing_pictures(pairs, gallery.stems):
            raise CommandError(
                ngettext(
                    "%(count)d picture of the pairs cannot be used: %(first)s.",
                    "%(count)d pictures of the pairs cannot be used, the first of them %(first)s.",
                    len(missing),
                )
                % {"count": len(missing), "first": missing[0]}
            )
        people = [pictures.people[stem] for stem in gallery.stems]
        verifications = self._verifications(options, gallery, people, pairs)
        figures = {name: found.figures(options["fmr"]) for name, found in verifications.items()}
        if options["identify"] or not pairs:
            for model, vectors in gallery.vectors.items():
                figures.setdefault(model, {}).update(identification(vectors, people))
        self._print(gallery, figures)
        if options["plot"] and verifications:
            plot(verifications, options["plot"])
        if options["json"]:
            options["json"].write_text(json.dumps(figures, indent=1) + "\n")
        if options["save"]:
            for model in gallery.vectors:
                self._save(model, options, people, gallery, figures[model])

    def _verifications(
        self,
        options: dict[str, Any],
        gallery: Gallery,
        people: list[str],
        pairs: list[Pair],
    ) -> dict[str, Verification]:
        """By model: the pairs of the file, or all there are; none when those are too few."""

        def verify(vectors: np.ndarray, places: dict[str, int]) -> Verification:
            if pairs:
                return verify_pairs(vectors, places, pairs)
            return verify_all(vectors[[places[stem] for stem in gallery.stems]], people)

        results = {
            model: verify(vectors, gallery.places) for model, vectors in gallery.vectors.items()
        }
        if options["compare"]:
            places, vectors = read_descriptors(options["compare"])
            needed = {stem for pair in pairs for stem in pair[:2]} or set(gallery.stems)
            if missing := needed - places.keys():
                raise CommandError(
                    _("%(file)s has no vector of %(picture)s.")
                    % {"file": options["compare"], "picture": min(missing)}
                )
            results[options["compare"].stem] = verify(vectors, places)
        if pairs or all(result.is_enough for result in results.values()):
            return results
        self.stderr.write(_("There are too few pairs to verify; only identification is measured."))
        return {}

    def _print(self, gallery: Gallery, figures: dict[str, dict[str, Any]]) -> None:
        rows = list(dict.fromkeys(key for values in figures.values() for key in values))
        width = max(map(len, rows))
        self.stdout.write(
            _(
                "%(count)d pictures, %(whole)d taken whole (no face found or looked for), %(left)d left out"
            )
            % {
                "count": len(gallery.stems),
                "whole": gallery.without_face,
                "left": len(gallery.unusable),
            }
        )
        self.stdout.write(" " * width + "".join(f"  {name:>20}" for name in figures))
        for row in rows:
            values = "".join(f"  {_shown(row, item.get(row)):>20}" for item in figures.values())
            self.stdout.write(f"{row:<{width}}{values}")

    def _save(
        self,
        model: str,
        options: dict[str, Any],
        people: list[str],
        gallery: Gallery,
        figures: dict[str, Any],
    ) -> None:
        weights = find_weights(model)
        scores, fmr = impostor_scores(gallery.vectors[model], people), options["fmr"]
        known = read_descriptor(weights) or WeightsDescriptor(sha256=full_hash(weights))
        command = shlex.join(["manage.py", *(Path(part).name for part in sys.argv[1:])])
        descriptor = replace(
            known,
            match=threshold_of_impostors(scores, fmr),
            review=threshold_of_impostors(scores, review_fmr(fmr)),
            curve=impostor_curve(scores),
            measured={
                **figures,
                "pictures": len(gallery.stems),
                "people": len(set(people)),
                "aligned": options["aligned"],
                "command": command,
            },
        )
        path = write_descriptor(weights, descriptor)
        self.stdout.write(
            _("%(model)s: match from %(match)s, review from %(review)s, stored in %(file)s")
            % {
                "model": model,
                "match": descriptor.match.similarity,
                "review": descriptor.review.similarity,
                "file": path.name,
            }
        )
        if options["verbosity"] > 1:
            self.stdout.write(json.dumps(asdict(descriptor), indent=1))


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and "threshold" not in name.replace("tar_at_threshold", ""):
        return f"{value:.2%}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
