"""`manage.py fetch_weights`: install published checkpoints, or list them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from recognition.conf import get_settings
from recognition.downloads import install, install_network
from recognition.exceptions import RecognitionError, WeightsUnavailable
from recognition.extras import EXTRAS, Extra
from recognition.liveness import load_liveness
from recognition.networks import KNOWN_NETWORKS, NETWORKS, PublishedWeights
from recognition.networks.descriptor import read_descriptor
from recognition.networks.weights import int8_file

MB: Final = 1_000_000


class _Wanted(NamedTuple):
    """A file to install and the function that installs it."""

    published: PublishedWeights
    install: Callable[..., tuple[Path, str]]


class Command(BaseCommand):
    help = (
        "Downloads weights into the weights folder, over HTTPS and only with their SHA-256: files "
        "that are known here, or a checkpoint of a model from an address of yours. A file replaces "
        "the old one only when it is whole, has the hash, and every tensor fits."
    )
    requires_system_checks = ["recognition"]  # the models may be what is to be mended

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", choices=[*EXTRAS, *KNOWN_NETWORKS])
        parser.add_argument(
            "--list", action="store_true", help="only say what there is, what it gives and costs"
        )
        parser.add_argument("--source", choices=_sources(), help="who publishes it")
        parser.add_argument("--url", help="where the checkpoint of a model is")
        parser.add_argument("--sha256", help="the hash of the checkpoint")
        parser.add_argument("--no-progress", action="store_true", help="show no progress bar")

    def handle(self, **options: Any) -> None:
        name = options["name"]
        if options["list"]:
            for each in [name] if name else [*EXTRAS, *NETWORKS]:
                if each in EXTRAS:
                    self._list_extra(EXTRAS[each])
                else:
                    self._list_int8(each)
            return
        if name is None:
            raise CommandError(_("Name what to fetch; --list says what there is."))
        wanted = _wanted(name, options)
        failures = 0
        for item in wanted:
            try:
                self._install(name, item, options)
            except (RecognitionError, OSError) as error:
                failures += 1
                self.stderr.write(self.style.ERROR(f"{name}: {error}"))
        if failures:
            raise CommandError(
                _("%(failures)d of %(count)d checkpoints were not installed.")
                % {"failures": failures, "count": len(wanted)}
            )
        if name in KNOWN_NETWORKS.keys() - NETWORKS.keys():
            self.stdout.write(
                _("To use it, set EXTRA_NETWORKS=%(name)s and restart.") % {"name": name}
            )
        if name == "liveness":
            try:
                load_liveness()  # so that nobody waits for its conversion
            except RecognitionError as error:
                raise CommandError(error.message) from error
            self.stdout.write(
                _(
                    "It can be asked for now, also of a running server: check_liveness=true, or 'Look for "
                    "pictures of pictures' among the options of the pages."
                )
            )
        if name in KNOWN_NETWORKS:
            self.stdout.write(_("Now run 'manage.py reindex', so that enrolled pictures follow."))

    def _install(self, name: str, wanted: _Wanted, options: dict[str, Any]) -> None:
        published = wanted.published
        self.stdout.write(f"{name}: {published.url}")
        self.stdout.write(_("  licence: %(licence)s") % {"licence": published.licence})
        bar = _bar(name, options["no_progress"])
        try:
            path, found = wanted.install(
                published.url, sha256=published.sha256, progress=bar.follow
            )
        finally:
            bar.close()
        self.stdout.write(
            _("  installed as %(file)s, SHA-256 %(hash)s") % {"file": path.name, "hash": found}
        )

    def _list_extra(self, extra: Extra) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(f"{extra.name}: {extra.description}"))
        for name, published in extra.published.items():
            is_there = (get_settings().weights_dir / name).exists()
            file = _("%(file)s (installed)") if is_there else "%(file)s"
            lines = {
                _("file"): file % {"file": name},
                _("gives"): published.gives,
                _("costs"): published.costs,
                _("licence"): published.licence,
                _("address"): published.url,
                "SHA-256": published.sha256,
            }
            self.stdout.write(f"  --source {published.name}")
            self._print(lines)

    def _list_int8(self, name: str) -> None:
        """Say what the int8 file of the network gives and costs, which is bundled or made here."""
        self.stdout.write(self.style.MIGRATE_HEADING(_("%(name)s in int8") % {"name": name}))
        try:
            weights = int8_file(name)
        except WeightsUnavailable as error:
            raise CommandError(error.message) from error
        if weights is None:
            message = _(
                "  no file; 'python -m training.quantise %(name)s --pack PACK' makes one (training/README.md)"
            )
            self.stdout.write(message % {"name": name})
            return
        known = read_descriptor(weights)
        lines = {
            _("file"): _("%(file)s (installed)") % {"file": weights.path.name},
            _("gives"): _("1.8 to 3.5 times the speed on a processor, by INT8_MODELS=%(name)s")
            % {"name": name},
            _("costs"): _("%(size).1f MB; a reindex, as its embeddings and thresholds are others")
            % {"size": weights.path.stat().st_size / MB},
            _("licence"): (known and known.licence) or _("not known"),
            _("source"): (known and known.source) or _("not known"),
        }
        self._print(lines)

    def _print(self, lines: dict[str, Any]) -> None:
        for label, value in lines.items():
            self.stdout.write(f"    {label:<10} {value}")


def _sources() -> list[str]:
    """Return the names of all publishers."""
    return sorted({item.name for extra in EXTRAS.values() for item in extra.published.values()})


def _wanted(name: str, options: dict[str, Any]) -> list[_Wanted]:
    """Return what the options choose: the checkpoint of a model, or an extra's files of one publisher."""
    folder = get_settings().weights_dir
    if name in KNOWN_NETWORKS:
        return [_own_checkpoint(name, options, folder)]
    if options["url"] or options["sha256"]:
        raise CommandError(_("--url and --sha256 are for the checkpoint of a model."))
    published = EXTRAS[name].published
    source = options["source"] or next(iter(published.values())).name
    found = [
        _Wanted(item, partial(_put_extra, folder / file))
        for file, item in published.items()
        if item.name == source
    ]
    if not found:
        raise CommandError(
            _("%(source)s publishes no %(name)s.") % {"source": source, "name": name}
        )
    return found


def _own_checkpoint(name: str, options: dict[str, Any], folder: Path) -> _Wanted:
    url, sha256 = options["url"], options["sha256"]
    if not (url and sha256):
        raise CommandError(
            _(
                "No published checkpoint of %(name)s is known here by its hash, and nothing is fetched "
                "without one: whoever changes the file decides who is recognised. Give its address "
                "with --url and its hash, which its publisher tells, with --sha256; or put the file "
                "into the weights folder yourself. weights/README.md names some addresses."
            )
            % {"name": name}
        )
    item = PublishedWeights("url", url, _("see its publisher"), "", "", sha256)
    return _Wanted(item, partial(_put_network, name, folder))


def _put_network(name: str, folder: Path, url: str, **options: Any) -> tuple[Path, str]:
    return install_network(KNOWN_NETWORKS[name], url, folder, **options)


def _put_extra(target: Path, url: str, **options: Any) -> tuple[Path, str]:
    return install(url, target, **options)


def _bar(label: str, hidden: bool) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):
        def follow(self, done: int, total: int | None) -> None:
            self.total = total
            self.update(done - self.n)

    return Bar(
        desc=label, unit="B", unit_scale=True, file=sys.stderr, disable=hidden or None, leave=False
    )
