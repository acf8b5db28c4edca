"""`manage.py evaluate`: measure the models on labelled pictures, and store the thresholds."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from recognition.decision import Thresholds, thresholds_of
from recognition.evaluation import (
    ConditionFigures,
    EvaluationError,
    Gallery,
    Pair,
    PictureSet,
    Verification,
    embed_pictures,
    group_rates,
    identification,
    measure_conditions,
    missing_pictures,
    open_pictures,
    plot,
    propose_thresholds,
    read_descriptors,
    read_labels,
    read_pairs,
    verify_all,
    verify_pairs,
)
from recognition.evaluation.report import (
    markdown_conditions,
    markdown_figures,
    markdown_groups,
    text_figures,
    without_folders,
)
from recognition.exceptions import RecognitionError
from recognition.management.options import positive_whole, require_with, writable
from recognition.management.progress import add_progress_argument, progress_bar
from recognition.networks import NETWORKS, find_weights, usable_names
from recognition.networks.descriptor import update_descriptor

Figures = dict[str, dict[str, Any]]
NOT_WITH_GROUPS = ("pairs", "identify", "conditions", "compare", "plot", "save")


class Command(BaseCommand):
    help = (
        "Measures models on folders or zips of pictures (one folder a person; faces.zip/folder is the "
        "folder inside the zip), from the photo to the embedding: verification of every picture with "
        "every other, or of the pairs in a CSV (image_a,image_b,same) or LFW's pairs.txt, and "
        "identification in a gallery, of strangers too. Intervals are of 95 %, by bootstrap over people."
    )

    requires_system_checks = ["recognition", "models"]  # 'check' shows the other notes

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "pictures", type=Path, nargs="+", help="folder or zip, a folder for each person"
        )
        parser.add_argument("--pairs", type=Path, help="verify these pairs instead of all")
        parser.add_argument(
            "--identify",
            action="store_true",
            help="measure identification too (as without --pairs)",
        )
        parser.add_argument(
            "--conditions",
            action="store_true",
            help="measure again with grey, small, blurred, dark, turned, covered, compressed crops",
        )
        parser.add_argument(
            "--groups",
            type=Path,
            metavar="LABELS.csv",
            help="instead: false-match rate within groups, of pictures of different people each; "
            "the CSV has the pictures' names in its first column and labels in the others",
        )
        parser.add_argument(
            "--sample", type=positive_whole, metavar="N", help="with --groups: take N by lot"
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
        parser.add_argument(
            "--plot", type=writable, help="write ROC, DET, histograms and conditions as PNG"
        )
        parser.add_argument("--json", type=writable, help="write the figures as JSON")
        parser.add_argument("--markdown", type=writable, help="write the figures as Markdown")
        parser.add_argument(
            "--save", action="store_true", help="store figures and thresholds with the weights"
        )
        add_progress_argument(parser)

    def handle(self, **options: Any) -> None:
        if not 0 < options["fmr"] < 1:
            raise CommandError(
                _("--fmr is a share between 0 and 1, not %(fmr)g.") % {"fmr": options["fmr"]}
            )
        require_with(options, "groups", "sample")
        track = progress_bar(options["no_progress"])
        try:
            if options["groups"]:
                self._measure_groups(options, track)
            else:
                self._measure_people(options, track)
        except (EvaluationError, RecognitionError, OSError) as error:
            raise CommandError(str(error)) from error

    def _measure_people(self, options: dict[str, Any], track: Callable[..., Any]) -> None:
        pictures = open_pictures(*options["pictures"])
        pairs = read_pairs(options["pairs"]) if options["pairs"] else []
        if missing := missing_pictures(pairs, pictures.members):
            raise CommandError(
                ngettext(
                    "%(count)d picture of the pairs is not in %(place)s: %(first)s.",
                    "%(count)d pictures of the pairs are not in %(place)s, the first of them %(first)s.",
                    len(missing),
                )
                % {
                    "count": len(missing),
                    "place": ", ".join(map(str, options["pictures"])),
                    "first": missing[0],
                }
            )
        in_pairs = {stem for pair in pairs for stem in pair[:2]}
        whole = options["identify"] or options["save"] or options["conditions"] or not pairs
        stems = sorted(pictures.members if whole else in_pairs)
        gallery = self._embed(options, track, pictures, stems, keep_crops=options["conditions"])
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
        vectors = self._vectors(options, gallery, in_pairs if pairs else set(gallery.stems))
        thresholds = {
            model: propose_thresholds(gallery.vectors[model], people, options["fmr"])
            if options["save"]
            else thresholds_of(model, gallery.fingerprints[model])
            for model in gallery.vectors
        }
        results = self._verifications(vectors, gallery, pictures.people, pairs)
        figures: Figures = {name: {} for name in vectors}
        for name, result in results.items():
            figures[name] |= result.figures(options["fmr"]) | {"intervals": result.intervals()}
            if known := thresholds.get(name):
                rates = result.at(known.match.similarity)
                figures[name] |= dict(zip(("fmr_at_match", "tar_at_match"), rates, strict=True))
        if options["identify"] or not pairs:
            for name, (_places, rows) in vectors.items():
                if len(rows) == len(people):
                    _add_identification(figures[name], rows, people, thresholds.get(name))
        conditions = self._conditions(options, track, gallery, people)
        for name, found in conditions.items():
            figures[name]["conditions"] = {key: asdict(value) for key, value in found.items()}
        self._present(options, figures, results, thresholds, conditions)
        if options["save"]:
            for model in gallery.vectors:
                if proposed := thresholds[model]:
                    self._save(model, proposed, options, people, gallery, figures[model])

    def _embed(
        self,
        options: dict[str, Any],
        track: Callable[..., Any],
        pictures: PictureSet,
        stems: Sequence[str],
        *,
        keep_crops: bool = False,
    ) -> Gallery:
        gallery = embed_pictures(
            pictures,
            stems,
            options["model"] or usable_names(),
            use_face_detection=not options["aligned"],
            keep_crops=keep_crops,
            track=lambda items, total: track(items, _("pictures"), total),
        )
        for file, reason in gallery.unusable.items():
            self.stderr.write(
                _("%(file)s: left out. %(reason)s") % {"file": file, "reason": reason}
            )
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
        return gallery

    def _vectors(
        self, options: dict[str, Any], gallery: Gallery, needed: set[str]
    ) -> dict[str, tuple[dict[str, int], np.ndarray]]:
        """Return, by model and for the compared system, the row of each picture and the vectors."""
        vectors = {name: (gallery.places, rows) for name, rows in gallery.vectors.items()}
        if options["compare"]:
            places, rows = read_descriptors(options["compare"])
            if missing := needed - places.keys():
                raise CommandError(
                    _("%(file)s has no vector of %(picture)s.")
                    % {"file": options["compare"], "picture": min(missing)}
                )
            stems = [stem for stem in gallery.stems if stem in places]
            others = {stem: place for place, stem in enumerate(stems)}
            vectors[options["compare"].stem] = (others, rows[[places[stem] for stem in stems]])
        return vectors

    def _verifications(
        self,
        vectors: dict[str, tuple[dict[str, int], np.ndarray]],
        gallery: Gallery,
        people: dict[str, str],
        pairs: list[Pair],
    ) -> dict[str, Verification]:
        """Verify the pairs of the file, or all pairs; return nothing when there are too few."""
        whom = [people[stem] for stem in gallery.stems]
        results = {
            name: verify_pairs(rows, places, pairs, people) if pairs else verify_all(rows, whom)
            for name, (places, rows) in vectors.items()
        }
        if pairs or all(result.is_enough for result in results.values()):
            return results
        self.stderr.write(_("There are too few pairs to verify; only identification is measured."))
        return {}

    def _conditions(
        self,
        options: dict[str, Any],
        track: Callable[..., Any],
        gallery: Gallery,
        people: list[str],
    ) -> dict[str, dict[str, ConditionFigures]]:
        if gallery.crops is None:
            return {}
        return {
            model: measure_conditions(
                gallery.crops,
                rows,
                people,
                partial(gallery.embed, model),
                options["fmr"],
                lambda items: track(items, _("conditions"), len(items)),
            )
            for model, rows in gallery.vectors.items()
        }

    def _present(
        self,
        options: dict[str, Any],
        figures: Figures,
        results: dict[str, Verification],
        thresholds: dict[str, Thresholds | None],
        conditions: dict[str, dict[str, ConditionFigures]],
    ) -> None:
        self.stdout.write(text_figures(figures))
        tables = [markdown_figures(figures)]
        if conditions:
            tables.append(markdown_conditions(conditions, options["fmr"]))
            self.stdout.write("\n" + tables[-1])
        if options["markdown"]:
            options["markdown"].write_text("\n".join(tables), "utf-8")
        if options["plot"] and results:
            marked = {
                name: {"match": known.match.similarity, "review": known.review.similarity}
                for name, known in thresholds.items()
                if known
            }
            plot(results, options["plot"], marked, conditions)
        if options["json"]:
            options["json"].write_text(json.dumps(figures, indent=1) + "\n", "utf-8")

    def _save(
        self,
        model: str,
        thresholds: Thresholds,
        options: dict[str, Any],
        people: list[str],
        gallery: Gallery,
        figures: dict[str, Any],
    ) -> None:
        descriptor, path = update_descriptor(
            gallery.weights(model),
            match=thresholds.match,
            review=thresholds.review,
            curve=list(thresholds.curve),
            measured={
                **figures,
                "pictures": len(gallery.stems),
                "people": len(set(people)),
                "aligned": options["aligned"],
                "command": shlex.join(["manage.py", *map(without_folders, sys.argv[1:])]),
            },
        )
        self.stdout.write(
            _("%(model)s: match from %(match)s, review from %(review)s, stored in %(file)s")
            % {
                "model": model,
                "match": thresholds.match.similarity,
                "review": thresholds.review.similarity,
                "file": path.name,
            }
        )
        if options["verbosity"] > 1:
            self.stdout.write(json.dumps(asdict(descriptor), indent=1))

    def _measure_groups(self, options: dict[str, Any], track: Callable[..., Any]) -> None:
        if given := [f"--{name}" for name in NOT_WITH_GROUPS if options[name]]:
            raise CommandError(
                _("--groups measures pictures of different people; leave out %(given)s.")
                % {"given": ", ".join(given)}
            )
        pictures = open_pictures(*options["pictures"])
        stems = sorted(pictures.members)
        if options["sample"] and options["sample"] < len(stems):
            stems = np.random.default_rng(0).choice(stems, options["sample"], False).tolist()
        read_labels(options["groups"], stems)  # before the long work
        models = options["model"] or usable_names()
        self._thresholds({model: find_weights(model).fingerprint for model in models})
        gallery = self._embed(options, track, pictures, stems)
        thresholds = self._thresholds(gallery.fingerprints)
        labels = read_labels(options["groups"], gallery.stems)
        rates = {
            model: group_rates(rows, labels, thresholds[model])
            for model, rows in gallery.vectors.items()
        }
        table = markdown_groups(rates, thresholds)
        self.stdout.write(table)
        if options["markdown"]:
            options["markdown"].write_text(table, "utf-8")
        if options["json"]:
            content = {
                model: [asdict(rate) | {"fmr": rate.fmr} for rate in of_model]
                for model, of_model in rates.items()
            }
            options["json"].write_text(json.dumps(content, indent=1) + "\n", "utf-8")

    def _thresholds(self, fingerprints: Mapping[str, str]) -> dict[str, float]:
        """Return the stored match threshold of the weights of each model."""
        found = {}
        for model, fingerprint in fingerprints.items():
            if (known := thresholds_of(model, fingerprint)) is None:
                raise CommandError(
                    _(
                        "The weights of %(model)s have no thresholds: measure them with "
                        "'manage.py evaluate PICTURES --save' first."
                    )
                    % {"model": model}
                )
            found[model] = known.match.similarity
        return found


def _add_identification(
    figures: dict[str, Any],
    vectors: np.ndarray,
    people: Sequence[str],
    thresholds: Thresholds | None,
) -> None:
    found = identification(vectors, people)
    figures |= found.figures()
    figures["intervals"] = figures.get("intervals", {}) | found.intervals()
    if thresholds:
        raised = thresholds.for_search(found.persons)
        for name, threshold in (("match", raised.match), ("review", raised.review)):
            fpir, fnir = found.at(threshold.similarity)
            figures |= {f"fpir_at_{name}": fpir, f"fnir_at_{name}": fnir}
