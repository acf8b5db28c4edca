"""`manage.py benchmark`: measure this service on this machine, alone and under load."""

from __future__ import annotations

import json
import os
import platform
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from faceproject.benchmark import (
    QUICK,
    BenchmarkError,
    Plan,
    Row,
    Target,
    measure_server,
    notes,
    plot,
    row_heading,
    row_line,
    timing_heading,
    timing_line,
)
from recognition.benchmark import (
    Sample,
    Timing,
    made_up_rows,
    measure_search,
    read_sample,
    steps_of,
)
from recognition.conf import get_settings
from recognition.detection import chosen_detector
from recognition.evaluation import EvaluationError
from recognition.exceptions import RecognitionError
from recognition.management.options import positive, positive_whole, require_with, writable
from recognition.networks import NETWORKS, load_network, usable_names
from recognition.threads import available_cores
from recognition.vector_store import LiteVectorStore, configured_index

PARTITION: Final = "benchmark"


class Command(BaseCommand):
    help = (
        "Measures each step from a picture to the nearest faces by itself, then the same over HTTP: a server "
        "of its own on an empty folder, loaded by 1, 4 and 16 clients, and galleries of made-up vectors. "
        "Compares with the parts and with limits. Changes nothing; whatever else runs slows it down."
    )

    requires_system_checks = ["recognition", "models"]  # 'check' shows the other notes

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
            type=positive_whole,
            nargs="*",
            metavar="SIZE",
            help="How many vectors to search among; default: 1000 10000.",
        )
        parser.add_argument(
            "--seconds",
            type=positive,
            help="How long each figure is measured, at least three times (default 2).",
        )
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--no-server", action="store_true", help="Only the steps, in this process."
        )
        where.add_argument(
            "--against",
            metavar="URL",
            help="Load this server too, with the same pictures; any that speaks the contract of docs/api.md. "
            "Nothing is stored in it.",
        )
        parser.add_argument("--token", default="", help="The token for the server of --against.")
        parser.add_argument(
            "--quick",
            action="store_true",
            help="Everything once, small: whether it works, not how fast it is.",
        )
        parser.add_argument(
            "--json", type=writable, metavar="FILE", help="Write the figures here too."
        )
        parser.add_argument(
            "--plot",
            type=writable,
            metavar="FILE",
            help="Draw latency by clients, and search time by gallery size, into this PNG.",
        )

    def handle(self, **options: Any) -> None:
        require_with(options, "against", "token")
        models = options["model"] or usable_names()
        plan = _plan(options)
        timings: list[Timing] = []
        rows: list[Row] = []
        try:
            other = Target(options["against"], options["token"]) if options["against"] else None
            sample = read_sample(options["pictures"], plan.made_up)
            machine = _machine({model: str(load_network(model).device) for model in models})
            self._print_machine(machine)
            self._print_sample(sample, options["pictures"])
            self.stdout.write(timing_heading())
            steps = list(steps_of(sample, models, plan.sides, plan.batches))
            for step in steps:
                timing = step.timed(plan.seconds)
                self._print(timing_line(timing))
                timings.append(timing)
            if options["no_server"]:
                found: Iterator[Timing | Row] = _searches(plan)
            else:
                self.stdout.write("\n" + row_heading(options["against"] or ""))
                found = measure_server(sample, models, steps, plan, other)
            for item in found:
                if isinstance(item, Row):
                    rows.append(item)
                    self._print(row_line(item))
                else:
                    timings.append(item)
                    self._print(timing_line(item, best=options["no_server"]))
            for note in notes(rows):
                self.stdout.write(note)
            if options["json"]:
                figures = {
                    "machine": machine,
                    "timings": [asdict(item) for item in timings],
                    "served": [row.as_dict() for row in rows],
                }
                options["json"].write_text(json.dumps(figures, indent=1) + "\n")
            if options["plot"]:
                plot(rows, options["plot"])
        except (BenchmarkError, EvaluationError, RecognitionError, OSError) as error:
            raise CommandError(str(error)) from error
        self._print_missing(options["model"] or list(NETWORKS), models)

    def _print(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()  # a run takes minutes

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

    def _print_missing(self, wanted: list[str], measured: list[str]) -> None:
        for model in wanted:
            if model not in measured:
                text = _("%(model)s has no weights here and was not measured.")
                self.stderr.write(text % {"model": model})


def _plan(options: dict[str, Any]) -> Plan:
    plan = QUICK if options["quick"] else Plan()
    if options["gallery"] is not None:
        plan = replace(plan, galleries=tuple(options["gallery"]))
    if options["seconds"] is not None:
        plan = replace(plan, seconds=options["seconds"])
    return plan


def _searches(plan: Plan) -> Iterator[Timing]:
    """Time searches without a server, in an embedded database that is thrown away."""
    for size in plan.galleries:
        with TemporaryDirectory(prefix="benchmark-") as folder:
            store = LiteVectorStore(Path(folder) / "vectors.db", index=configured_index())
            try:
                for rows in made_up_rows(0, size):
                    store.upsert(PARTITION, rows)
                yield from measure_search(store, PARTITION, size, plan.seconds)
            finally:
                store.close()


def _machine(devices: dict[str, str]) -> dict[str, Any]:
    """Return the conditions of the measurement; `devices` gives the device of each model."""
    settings = get_settings()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": available_cores(),
        "load": os.getloadavg()[0],  # 1.0 for each busy core
        "devices": devices,
        "detector": chosen_detector().name,
        "detection_max_side": settings.detection_max_side,
        "torch_threads": settings.torch_threads,
        "flip_tta": settings.flip_tta,
        "index": settings.milvus_index,
    }
