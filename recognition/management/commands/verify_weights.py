"""Lists every weights file: what it is, whether it loads, how well it recognises."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recognition.exceptions import WeightsUnavailable
from recognition.networks import NETWORKS, FaceNetwork, WeightsFile, build
from recognition.networks.descriptor import WeightsDescriptor, full_hash, read_descriptor
from recognition.networks.loader import weights_files
from recognition.networks.registry import EMBEDDING_DIM


class Command(BaseCommand):
    help = (
        "Lists every weights file with its hash, source, licence, accuracy, and whether it loads."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", nargs="?", choices=list(NETWORKS), help="default: every model")

    def handle(self, **options: Any) -> None:
        names = [options["model"]] if options["model"] else list(NETWORKS)
        broken = sum(self._list(NETWORKS[name]) for name in names)
        if broken:
            raise CommandError(f"{broken} weights files do not load; their lines say why.")

    def _list(self, network: FaceNetwork) -> int:
        """Prints the network's files; returns how many of them do not load."""
        files = weights_files(network.name)
        self.stdout.write(self.style.MIGRATE_HEADING(network.name))
        if not files:
            self.stdout.write(f"  no file; 'manage.py fetch_weights {network.name}' downloads one")
        broken = 0
        for place, file in enumerate(files):
            problem = _problem(network, file)
            broken += bool(problem)
            self._show(file, read_descriptor(file), in_use=place == 0, problem=problem)
        return broken

    def _show(
        self, file: WeightsFile, known: WeightsDescriptor | None, *, in_use: bool, problem: str
    ) -> None:
        accuracy = known and known.measured.get("accuracy")
        lines = {
            "used": "yes" if in_use else "no, the file above comes first",
            "SHA-256": full_hash(file),
            "fingerprint": file.fingerprint,
            "loads": problem or f"yes, {EMBEDDING_DIM} numbers",
            "source": (known and known.source) or "not known",
            "licence": (known and known.licence) or "not known",
            "accuracy": f"{accuracy:.2%}, {known.measured['command']}"
            if accuracy
            else "not measured",
            "match from": f"{known.match.similarity} (FAR {known.match.far:g})"
            if known and known.match
            else "not measured; 'manage.py evaluate --save' does it",
        }
        self.stdout.write(f"  {file.path.name}")
        for label, value in lines.items():
            self.stdout.write(f"    {label:<12} {value}")


def _problem(network: FaceNetwork, file: WeightsFile) -> str:
    try:
        build(network, file.path)
    except WeightsUnavailable as error:
        return f"NO: {error}"
    return ""
