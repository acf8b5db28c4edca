"""`manage.py diagnose`: test embedding and search, and print versions, counts and differences."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import django
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.models import Count
from django.utils.translation import gettext as _

from enrollment.management.counts import people, pictures
from enrollment.models import FaceEmbedding, FaceImage, Person
from enrollment.upkeep import Trial, reconcile
from recognition.api.access import root_address
from recognition.detection import looks_for_faces
from recognition.exceptions import RecognitionError, VectorStoreLocked
from recognition.liveness import has_liveness, liveness_problem, load_liveness
from recognition.vector_store import get_vector_store

PACKAGES: Final = ("torch", "opencv-python-headless", "numpy", "pillow", "pymilvus", "milvus-lite")


class Command(BaseCommand):
    help = (
        "Embeds one enrolled picture and searches with it, and prints versions, counts, drift and "
        "timings. Exit code 1 when something does not work. Changes nothing."
    )
    requires_system_checks = ["recognition", "files"]  # its steps tell what the models lack

    def handle(self, **options: Any) -> None:
        trial = Trial()
        steps: dict[str, Callable[[], str]] = {
            _("Versions"): _versions,
            _("SQL"): _sql,
            _("Pictures"): trial.read_picture,
            _("Model"): trial.load_model,
            _("Embedding"): trial.embed,
            _("Liveness"): _liveness,
            _("Milvus"): _milvus,
            _("Search"): trial.search,
            _("Drift"): _drift,
        }
        failed = [name for name, step in steps.items() if not self._try(name, step)]
        if failed:
            raise CommandError(_("Does not work: %(names)s.") % {"names": ", ".join(failed)})

    def _try(self, name: str, step: Callable[[], str]) -> bool:
        """Run one step and print its result. Return whether it succeeded."""
        begin = time.perf_counter()
        try:
            outcome, works = step(), True
        except VectorStoreLocked:
            # The running server holds the database; its health endpoint can check it.
            outcome, works = (
                _(
                    "not now: the server has the vector database; ask its /readyz, which by the settings of "
                    "this command is %s/readyz"
                )
                % root_address(settings.PORT),
                True,
            )
        except RecognitionError as error:
            outcome, works = _("FAILED: %s") % error, False
        except Exception as error:  # noqa: BLE001 (whatever it is, the other steps are of interest)
            outcome, works = f"FAILED: {type(error).__name__}: {error}", False
        milliseconds = (time.perf_counter() - begin) * 1000
        self.stdout.write(f"{name:<10} {milliseconds:7.0f} ms  {outcome}")
        return works


def _versions() -> str:
    named = {
        "faces": settings.VERSION,
        "Python": platform.python_version(),
        "Django": django.get_version(),
    }
    for package in PACKAGES:
        try:
            named[package] = version(package)
        except PackageNotFoundError:
            named[package] = _("absent")
    return ", ".join(f"{name} {number}" for name, number in named.items())


def _sql() -> str:
    states = FaceEmbedding.objects.order_by().values_list("status").annotate(Count("pk"))
    by_state = ", ".join(f"{count} {state}" for state, count in states)
    return _("%(vendor)s: %(persons)s, %(pictures)s, embeddings: %(states)s") % {
        "vendor": connection.vendor,
        "persons": people(Person.objects.count()),
        "pictures": pictures(FaceImage.objects.count()),
        "states": by_state or _("none"),
    }


def _liveness() -> str:
    if not has_liveness() and not liveness_problem():
        if not looks_for_faces():
            return _("not now: DETECTOR=none looks for no faces")
        return _("not installed; 'manage.py fetch_weights liveness' does so")
    return ", ".join(f"{each.network.name}: {each.runtime.name}" for each in load_liveness())


def _milvus() -> str:
    store = get_vector_store()
    store.ping()
    kind = _("embedded") if store.is_embedded else _("a server")
    return _("%(kind)s, %(count)d vectors") % {"kind": kind, "count": store.row_count()}


def _drift() -> str:
    found = reconcile(mend=False).found
    if found:
        named = ", ".join(f"{finding.count} {kind.value}" for kind, finding in found.items())
        raise RecognitionError(_("%s. Run 'manage.py reindex'.") % named)
    return _("none: Milvus and the picture storage equal SQL")
