"""`manage.py verify_weights`: list every weights file, whether it loads, and its accuracy."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from recognition.conf import get_settings
from recognition.exceptions import WeightsUnavailable
from recognition.extras import EXTRAS, Extra
from recognition.networks import NETWORKS, FaceNetwork, WeightsFile, build
from recognition.networks.descriptor import WeightsDescriptor, read_descriptor
from recognition.networks.int8 import is_int8
from recognition.networks.loader import run_int8
from recognition.networks.registry import EMBEDDING_DIM
from recognition.networks.weights import file_hash, find_weights, int8_file, weights_files


class Command(BaseCommand):
    help = (
        "Lists every weights file with its hash, source, licence, accuracy, and whether it loads."
    )
    requires_system_checks = ["recognition"]  # the models may be what is to be mended

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", nargs="?", choices=[*NETWORKS, *EXTRAS], help="default: all")

    def handle(self, **options: Any) -> None:
        names = [options["model"]] if options["model"] else [*NETWORKS, *EXTRAS]
        try:
            broken = sum(
                self._list(NETWORKS[name]) if name in NETWORKS else self._list_extra(EXTRAS[name])
                for name in names
            )
        except WeightsUnavailable as error:  # a file that cannot even be read
            raise CommandError(error.message) from error
        if broken:
            raise CommandError(
                ngettext(
                    "%(count)d weights file does not load; its lines say why.",
                    "%(count)d weights files do not load; their lines say why.",
                    broken,
                )
                % {"count": broken}
            )

    def _list(self, network: FaceNetwork) -> int:
        """Print the network's files; return how many of them do not load."""
        named = network.name in get_settings().int8_models
        int8, files = int8_file(network.name), list(weights_files(network.name))
        self.stdout.write(self.style.MIGRATE_HEADING(network.name))
        if not files:
            self.stdout.write(
                _("  no file; 'manage.py fetch_weights %(name)s' says how to fetch one")
                % {"name": network.name}
            )
        in_use = int8 if named else next(iter(files), None)
        refusal = _refusal(network.name) if named and files else ""
        broken = 0
        if refusal and not int8:
            broken = 1
            self.stdout.write(f"  {refusal}")
        for file in [int8, *files] if int8 else files:
            problem = (refusal if file == int8 and named else "") or _problem(network, file)
            broken += bool(problem)
            used = _("yes") if file == in_use else _("no, the file above comes first")
            if file == int8 and not named:
                used = _("no, INT8_MODELS does not name the model")
            self._show(file, read_descriptor(file), used=used, problem=problem)
        return broken

    def _list_extra(self, extra: Extra) -> int:
        """Print the existing files of an extra; return how many differ from the published ones."""
        self.stdout.write(self.style.MIGRATE_HEADING(extra.name))
        folder = get_settings().weights_dir
        there = {file: item for file, item in extra.published.items() if (folder / file).exists()}
        if not there:
            self.stdout.write(
                _("  no file; 'manage.py fetch_weights %(name)s' downloads one")
                % {"name": extra.name}
            )
        broken = 0
        for file, published in there.items():
            found = file_hash(folder / file)
            broken += found != published.sha256
            lines = {
                "SHA-256": found,
                _("loads"): _("yes, as published")
                if found == published.sha256
                else _("NO: the published file has SHA-256 %(expected)s; fetch it anew")
                % {"expected": published.sha256},
                _("source"): published.url,
                _("licence"): published.licence,
            }
            self._print(file, lines)
        return broken

    def _print(self, file: str, lines: dict[str, Any]) -> None:
        self.stdout.write(f"  {file}")
        for label, value in lines.items():
            self.stdout.write(f"    {label:<17} {value}")

    def _show(
        self, file: WeightsFile, known: WeightsDescriptor | None, *, used: str, problem: str
    ) -> None:
        accuracy = known and known.measured.get("accuracy")
        lines = {
            _("used"): used,
            "SHA-256": file_hash(file.path),
            _("fingerprint"): file.fingerprint,
            _("loads"): problem or _("yes, %(count)d numbers") % {"count": EMBEDDING_DIM},
            _("source"): (known and known.source) or _("not known"),
            _("licence"): (known and known.licence) or _("not known"),
            _("accuracy"): f"{accuracy:.2%}, {known.measured['command']}"
            if known and accuracy
            else _("not measured"),
            _("match from"): f"{known.match.similarity} (FMR {known.match.fmr:g})"
            if known and known.match
            else _("not measured; 'manage.py evaluate --save' does it"),
        }
        self._print(file.path.name, lines)


def _refusal(name: str) -> str:
    try:
        find_weights(name)
    except WeightsUnavailable as error:
        return _("NO: %(reason)s") % {"reason": error}
    return ""


def _problem(network: FaceNetwork, file: WeightsFile) -> str:
    try:
        (run_int8 if is_int8(file.path) else build)(network, file.path)
    except WeightsUnavailable as error:
        return _("NO: %(reason)s") % {"reason": error}
    return ""
