"""`manage.py benchmark`: time detection, alignment, embedding and search on this machine."""

from __future__ import annotations

import json
import os
import platform
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from recognition.benchmark import Sample, Timing, measure, read_sample
from recognition.conf import get_settings
from recognition.detection import chosen_detector
from recognition.evaluation import EvaluationError
from recognition.exceptions import RecognitionError
from recognition.networks import NETWORKS, load_network, usable_names

GALLERIES: Final = (1_000, 10_000)
WIDTH: Final = 50  # characters of the label column


class Command(BaseCommand):
    help = (
        "Measures how fast this machine finds faces (in pictures of 640 and 1920 pixels), aligns them, "
        "embeds them by each model, and searches galleries of made-up vectors, in an embedded database "
        "of its own. Changes nothing; the running server may stay up, but slows it down."
    )

    requires_system_checks = ["recognition"]  # 'check' shows the other notes

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "pictures",
            type=Path,
            nargs="?",
            help="Folder or zip with pictures to measure with; by default a made-up one without a face.",
        )
        parser.add_argument(
            "--model", action="append", choices=list(NETWORKS), help="Default: all with weights."
        )
        parser.add_argument(
            "--gallery",
            type=_positive_whole,
            nargs="*",
            default=list(GALLERIES),
            metavar="SIZE",
            help="How many vectors to search among; default: 1000 10000.",
        )
        parser.add_argument(
            "--seconds",
            type=_positive,
            default=2.0,
            help="How long each step is measured, at least three times (default 2).",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")

    def handle(self, **options: Any) -> None:
        models = options["model"] or usable_names()
        try:
            sample = read_sample(options["pictures"])
            machine = _machine({model: str(load_network(model).device) for model in models})
            self._print_machine(machine)
            self._print_sample(sample, options["pictures"])
            timings = []
            for timing in measure(sample, models, options["gallery"], options["seconds"]):
                self.stdout.write(_line(timing))
                timings.append(timing)
            if options["json"]:
                figures = {"machine": machine, "timings": [asdict(item) for item in timings]}
                options["json"].write_text(json.dumps(figures, indent=1) + "\n")
        except (EvaluationError, RecognitionError, OSError) as error:
            raise CommandError(str(error)) from error
        self._print_missing(options["model"] or list(NETWORKS), models)

    def _print_machine(self, machine: dict[str, Any]) -> None:
        devices = ", ".join(sorted(set(machine["devices"].values()))) or "–"
        text = _("%(cores)d cores, load %(load).1f; networks on %(devices)s; Python %(python)s")
        self.stdout.write(text % (machine | {"devices": devices}))

    def _print_sample(self, sample: Sample, given: Path | None) -> None:
        if given is None:
            self.stdout.write(
                _("With a made-up picture that shows nobody; give a folder of photos.")
            )
        else:
            count = len(sample.images)
            text = ngettext(
                "With %(count)d picture; in %(found)d of them a face is found.",
                "With %(count)d pictures; in %(found)d of them a face is found.",
                count,
            )
            self.stdout.write(text % {"count": count, "found": sample.with_face})
        median, best, rate = _("median"), _("best"), _("a second")
        self.stdout.write(f"{'':<{WIDTH}}{median:>10} {best:>12} {rate:>10}")

    def _print_missing(self, wanted: list[str], measured: list[str]) -> None:
        for model in wanted:
            if model not in measured:
                text = _("%(model)s has no weights here and was not measured.")
                self.stderr.write(text % {"model": model})


def _line(timing: Timing) -> str:
    return (
        f"{_label(timing):<{WIDTH}}{timing.median_ms:>7.1f} ms {timing.best_ms:>9.1f} ms "
        f"{timing.per_second:>10.1f}"
    )


def _label(timing: Timing) -> str:
    match timing.step:
        case "detect":
            text = _("find the faces of a picture of %(size)d pixels")
        case "align":
            text = _("align a face")
        case "embed":
            text = ngettext(
                "%(model)s: embed %(size)d face",
                "%(model)s: embed %(size)d faces at once",
                timing.size or 0,
            )
        case "picture_to_embedding":
            text = _("%(model)s: from a file to its embedding")
        case _:
            text = _("search among %(size)d vectors")
    return text % {"size": timing.size, "model": timing.model}


def _machine(devices: dict[str, str]) -> dict[str, Any]:
    """Return the conditions of the measurement; `devices` gives the device of each model."""
    settings = get_settings()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],  # 1.0 for each busy core
        "devices": devices,
        "detector": chosen_detector().name,
        "detection_max_side": settings.detection_max_side,
        "torch_threads": settings.torch_threads,
        "flip_tta": settings.flip_tta,
        "index": settings.milvus_index,
    }


def _positive_whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(_("'%(given)s' is no whole number of 1 or more.") % {"given": text})
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(_("'%(given)s' is no number of 0 or more.") % {"given": text})
    return number
