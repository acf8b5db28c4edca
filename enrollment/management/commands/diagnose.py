"""`manage.py diagnose`: test embedding and search, and print versions, counts and differences."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import django
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.models import Count
from django.utils.translation import gettext as _

from enrollment.gallery import read_picture, search_gallery
from enrollment.models import FaceEmbedding, FaceImage, Person
from enrollment.upkeep import reconcile
from recognition.conf import get_settings
from recognition.embedding import embed_uploads
from recognition.exceptions import RecognitionError, VectorStoreLocked
from recognition.inference import Embeddings
from recognition.networks import load_network
from recognition.vector_store import get_vector_store

PACKAGES: Final = ("torch", "opencv-python-headless", "numpy", "pillow", "pymilvus", "milvus-lite")


@dataclass(slots=True)
class _Probe:
    """The picture and embedding that one step leaves for the later ones."""

    picture: FaceImage | None = None
    embeddings: Embeddings | None = None


class Command(BaseCommand):
    help = (
        "Embeds one enrolled picture and searches with it, and prints versions, counts, drift and "
        "timings. Exit code 1 when something does not work. Changes nothing."
    )

    def handle(self, **options: Any) -> None:
        probe = _Probe()
        steps: dict[str, Callable[[], str]] = {
            _("Versions"): _versions,
            _("SQL"): _sql,
            _("Pictures"): lambda: _read_one(probe),
            _("Model"): _model,
            _("Embedding"): lambda: _embed_one(probe),
            _("Milvus"): _milvus,
            _("Search"): lambda: _search_one(probe),
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
            root = f"http://{settings.HOST}:{settings.PORT}"
            outcome, works = (
                _("not now: the server has the vector database; ask %s/readyz") % root,
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
    named = {"Python": platform.python_version(), "Django": django.get_version()}
    for package in PACKAGES:
        try:
            named[package] = version(package)
        except PackageNotFoundError:
            named[package] = _("absent")
    return ", ".join(f"{name} {number}" for name, number in named.items())


def _sql() -> str:
    states = FaceEmbedding.objects.order_by().values_list("status").annotate(Count("pk"))
    by_state = ", ".join(f"{count} {state}" for state, count in states)
    return _("%(vendor)s: %(persons)d persons, %(pictures)d pictures, embeddings: %(states)s") % {
        "vendor": connection.vendor,
        "persons": Person.objects.count(),
        "pictures": FaceImage.objects.count(),
        "states": by_state or _("none"),
    }


def _read_one(probe: _Probe) -> str:
    model = get_settings().default_model
    rows = FaceEmbedding.objects.filter(model=model, status=FaceEmbedding.Status.INDEXED)
    row = rows.select_related("face_image").order_by("pk").last()
    if row is None:
        return _("none that can be searched")
    content = read_picture(row.face_image)
    probe.picture = row.face_image
    return _("read picture %(pk)d, %(size)d bytes") % {
        "pk": row.face_image_id,
        "size": len(content),
    }


def _model() -> str:
    loaded = load_network(get_settings().default_model)
    return _("%(name)s, weights %(file)s (%(fingerprint)s), on %(device)s") % {
        "name": loaded.network.name,
        "file": loaded.weights.path.name,
        "fingerprint": loaded.weights.fingerprint,
        "device": loaded.device,
    }


def _embed_one(probe: _Probe) -> str:
    picture = probe.picture
    content = read_picture(picture) if picture else _drawn_picture()
    look = picture.use_face_detection if picture else True
    model = get_settings().default_model
    (crop,), embeddings = embed_uploads([content], model, use_face_detection=look)
    if isinstance(crop, RecognitionError):
        raise crop
    probe.embeddings = embeddings
    what = _("picture %d") % picture.pk if picture else _("a drawn picture")
    found = _("face found") if crop.face else _("no face found")
    return f"{what}, {found}"


def _drawn_picture() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((160, 160)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _milvus() -> str:
    store = get_vector_store()
    store.ping()
    kind = _("embedded") if store.is_embedded else _("a server")
    return _("%(kind)s, %(count)d vectors") % {"kind": kind, "count": store.row_count()}


def _search_one(probe: _Probe) -> str:
    if probe.embeddings is None:
        return _("not tried: there is no embedding to search with")
    (hits,) = search_gallery(probe.embeddings, 5)
    if probe.picture and probe.picture.pk not in [hit.face_image.pk for hit in hits]:
        raise RecognitionError(
            _(
                "picture %d is enrolled and is not among the 5 most similar to itself. Run "
                "'manage.py reindex --check'."
            )
            % probe.picture.pk
        )
    similarity = f"{hits[0].similarity:.4f}" if hits else _("nobody")
    return _("%(count)d found, first: %(similarity)s") % {
        "count": len(hits),
        "similarity": similarity,
    }


def _drift() -> str:
    found = reconcile(mend=False).found
    if found:
        named = ", ".join(f"{finding.count} {kind.value}" for kind, finding in found.items())
        raise RecognitionError(_("%s. Run 'manage.py reindex'.") % named)
    return _("none: Milvus and the picture storage equal SQL")
