"""Installs a published checkpoint."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from recognition.conf import get_settings
from recognition.downloads import install
from recognition.exceptions import RecognitionError
from recognition.networks import NETWORKS, FaceNetwork, PublishedWeights


class Command(BaseCommand):
    help = (
        "Downloads published checkpoints into the weights folder. A file replaces the old one only "
        "when it is whole and every tensor fits."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", nargs="?", choices=list(NETWORKS), help="default: every model")
        sources = {item.name for network in NETWORKS.values() for item in network.published}
        parser.add_argument("--source", choices=sorted(sources), help="who publishes it")
        parser.add_argument("--url", help="another address of a checkpoint of the model")
        parser.add_argument("--sha256", help="accept the file only with this hash")
        parser.add_argument("--no-progress", action="store_true", help="show no progress bar")

    def handle(self, **options: Any) -> None:
        if (options["url"] or options["sha256"]) and not options["model"]:
            raise CommandError(_("--url and --sha256 belong to one file: name the model too."))
        names = [options["model"]] if options["model"] else list(NETWORKS)
        failures = 0
        for name in names:
            try:
                self._install(NETWORKS[name], options)
            except (RecognitionError, OSError) as error:
                failures += 1
                self.stderr.write(self.style.ERROR(f"{name}: {error}"))
        if failures:
            raise CommandError(
                _("%(failures)d of %(count)d checkpoints were not installed.")
                % {"failures": failures, "count": len(names)}
            )
        self.stdout.write(_("Now run 'manage.py reindex', so that enrolled pictures follow."))

    def _install(self, network: FaceNetwork, options: dict[str, Any]) -> None:
        published = self._source(network, options)
        self.stdout.write(f"{network.name}: {published.url}")
        self.stdout.write(_("  licence: %(licence)s") % {"licence": published.licence})
        bar = _bar(network.name, options["no_progress"])
        try:
            path, found = install(
                network,
                published.url,
                get_settings().weights_dir,
                sha256=options["sha256"] or published.sha256,
                progress=bar.follow,
            )
        finally:
            bar.close()
        self.stdout.write(
            _("  installed as %(file)s, SHA-256 %(hash)s") % {"file": path.name, "hash": found}
        )

    def _source(self, network: FaceNetwork, options: dict[str, Any]) -> PublishedWeights:
        if options["url"]:
            return PublishedWeights("url", options["url"], _("see its publisher"))
        for published in network.published:
            if options["source"] in (None, published.name):
                return published
        raise CommandError(
            _("%(source)s publishes no checkpoint of %(model)s.")
            % {"source": options["source"], "model": network.name}
        )


def _bar(label: str, hidden: bool) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):
        def follow(self, done: int, total: int | None) -> None:
            self.total = total
            self.update(done - self.n)

    return Bar(
        desc=label, unit="B", unit_scale=True, file=sys.stderr, disable=hidden or None, leave=False
    )
