"""`manage.py fetch_weights`: install published checkpoints, or list them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from recognition.conf import get_settings
from recognition.downloads import install, install_network
from recognition.exceptions import RecognitionError
from recognition.extras import EXTRAS
from recognition.networks import KNOWN_NETWORKS, NETWORKS, PublishedWeights


class _Wanted(NamedTuple):
    """A published file and the function that installs it."""

    file: str  # in the weights folder
    published: PublishedWeights
    install: Callable[..., tuple[Path, str]]


class Command(BaseCommand):
    help = (
        "Downloads published checkpoints into the weights folder, over HTTPS. A file replaces the old "
        "one only when it is whole, has the expected SHA-256, and every tensor fits."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "name",
            nargs="?",
            choices=[*KNOWN_NETWORKS, *EXTRAS],
            help="default: every model in use",
        )
        parser.add_argument(
            "--list", action="store_true", help="only say what there is, what it gives and costs"
        )
        parser.add_argument("--source", choices=_sources(), help="who publishes it")
        parser.add_argument("--url", help="another address of a checkpoint of the model")
        parser.add_argument("--sha256", help="accept the file only with this hash")
        parser.add_argument(
            "--accept-unpinned",
            action="store_true",
            help="accept whatever the address gives where the hash is not known",
        )
        parser.add_argument("--no-progress", action="store_true", help="show no progress bar")

    def handle(self, **options: Any) -> None:
        names = [options["name"]] if options["name"] else list(NETWORKS)
        if options["list"]:
            self._list([options["name"]] if options["name"] else [*KNOWN_NETWORKS, *EXTRAS])
            return
        if (options["url"] or options["sha256"]) and options["name"] not in KNOWN_NETWORKS:
            raise CommandError(
                _("--url and --sha256 belong to one file: name the model that it is of too.")
            )
        wanted = [(name, item) for name in names for item in _wanted(name, options)]
        failures = 0
        for name, item in wanted:
            try:
                self._install(name, item, options)
            except (RecognitionError, CommandError, OSError) as error:
                failures += 1
                self.stderr.write(self.style.ERROR(f"{name}: {error}"))
        if failures:
            raise CommandError(
                _("%(failures)d of %(count)d checkpoints were not installed.")
                % {"failures": failures, "count": len(wanted)}
            )
        for name in set(names) & KNOWN_NETWORKS.keys() - NETWORKS.keys():
            self.stdout.write(
                _("To use it, set EXTRA_NETWORKS=%(name)s and restart.") % {"name": name}
            )
        if set(names) & KNOWN_NETWORKS.keys():
            self.stdout.write(_("Now run 'manage.py reindex', so that enrolled pictures follow."))

    def _install(self, name: str, wanted: _Wanted, options: dict[str, Any]) -> None:
        published = wanted.published
        sha256 = options["sha256"] or published.sha256
        if not sha256 and not options["accept_unpinned"]:
            raise CommandError(
                _(
                    "The SHA-256 of %(url)s is not known here, so whatever is there would be taken. "
                    "Ask its publisher and give it with --sha256, or say --accept-unpinned to trust "
                    "the address."
                )
                % {"url": published.url}
            )
        self.stdout.write(f"{name}: {published.url}")
        self.stdout.write(_("  licence: %(licence)s") % {"licence": published.licence})
        bar = _bar(name, options["no_progress"])
        try:
            path, found = wanted.install(published.url, sha256=sha256, progress=bar.follow)
        finally:
            bar.close()
        self.stdout.write(
            _("  installed as %(file)s, SHA-256 %(hash)s") % {"file": path.name, "hash": found}
        )

    def _list(self, names: list[str]) -> None:
        for name in names:
            known = KNOWN_NETWORKS.get(name) or EXTRAS[name]
            self.stdout.write(self.style.MIGRATE_HEADING(f"{name}: {known.description}"))
            for wanted in _files(name):
                published = wanted.published
                is_there = (get_settings().weights_dir / wanted.file).exists()
                file = _("%(file)s (installed)") if is_there else "%(file)s"
                lines = {
                    _("file"): file % {"file": wanted.file},
                    _("gives"): published.gives,
                    _("costs"): published.costs,
                    _("licence"): published.licence,
                    _("address"): published.url,
                    "SHA-256": published.sha256
                    or _("not known here: give it with --sha256, or say --accept-unpinned"),
                }
                self.stdout.write(f"  --source {published.name}")
                for label, value in lines.items():
                    self.stdout.write(f"    {label:<10} {value}")


def _sources() -> list[str]:
    """Return the names of all publishers."""
    names = [*KNOWN_NETWORKS, *EXTRAS]
    return sorted({wanted.published.name for name in names for wanted in _files(name)})


def _files(name: str) -> list[_Wanted]:
    """Return every published file of a model or an extra, the best first."""
    if network := KNOWN_NETWORKS.get(name):
        put = partial(_put_network, name)
        return [_Wanted(f"{network.weights_stem}.ckpt", item, put) for item in network.published]
    return [
        _Wanted(file, item, partial(_put_extra, file))
        for file, item in EXTRAS[name].published.items()
    ]


def _put_network(name: str, url: str, **options: Any) -> tuple[Path, str]:
    return install_network(KNOWN_NETWORKS[name], url, get_settings().weights_dir, **options)


def _put_extra(file: str, url: str, **options: Any) -> tuple[Path, str]:
    return install(url, get_settings().weights_dir / file, **options)


def _wanted(name: str, options: dict[str, Any]) -> list[_Wanted]:
    """Return the files that the options choose.

    This is one checkpoint of a model, or all files of one publisher of an extra.
    """
    files = _files(name)
    if options["url"]:
        own = PublishedWeights("url", options["url"], _("see its publisher"), "", "")
        return [files[0]._replace(published=own)]
    source = options["source"] or files[0].published.name
    found = [wanted for wanted in files if wanted.published.name == source]
    if not found:
        raise CommandError(
            _("%(source)s publishes no checkpoint of %(model)s.")
            % {"source": source, "model": name}
        )
    return found


def _bar(label: str, hidden: bool) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):
        def follow(self, done: int, total: int | None) -> None:
            self.total = total
            self.update(done - self.n)

    return Bar(
        desc=label, unit="B", unit_scale=True, file=sys.stderr, disable=hidden or None, leave=False
    )
