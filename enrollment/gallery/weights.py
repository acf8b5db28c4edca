"""The weights in use, the thresholds for their similarities, and how many embeddings they made."""

from __future__ import annotations

from operator import itemgetter
from typing import Final, NamedTuple, Self

from django.core.cache import cache
from django.db import DatabaseError, connection
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import ngettext

from enrollment.models import Calibration, FaceEmbedding, FaceImage
from recognition.conf import get_settings
from recognition.decision import Thresholds, thresholds_of
from recognition.inference import Embeddings
from recognition.networks import find_weights, usable_names
from recognition.vector_store import partition_name

COUNTED_EACH_TIME: Final = 1_000  # up to so many rows, which takes 0.1 ms
COUNTED_AGAIN: Final = 60  # seconds until a larger number is counted again

# In SQL, as every search waits for them: Django takes 0.5 ms longer for the two.
_HAS_OWN: Final = "SELECT 1 FROM enrollment_calibration WHERE model = %s AND fingerprint = %s"
_COUNT: Final = (
    "SELECT COUNT(*) FROM enrollment_faceembedding "
    "WHERE model = %s AND fingerprint = %s AND vector IS NOT NULL"
)


class Weights(NamedTuple):
    """A model and the fingerprint of its weights file. Only vectors of the same weights are
    comparable."""

    model: str
    fingerprint: str

    @classmethod
    def of(cls, embeddings: Embeddings) -> Self:
        """Return the weights that made these embeddings."""
        return cls(embeddings.model, embeddings.fingerprint)

    @classmethod
    def in_use(cls, model: str) -> Self:
        """Return the model's weights of now. Raise `WeightsUnavailable`."""
        return cls(model, find_weights(model).fingerprint)

    @property
    def partition(self) -> str:
        return partition_name(self.model, self.fingerprint)

    @property
    def rows(self) -> QuerySet[FaceEmbedding]:
        """The embeddings computed with these weights."""
        return FaceEmbedding.objects.filter(
            model=self.model, fingerprint=self.fingerprint, vector__isnull=False
        )


def compared_weights(model: str | None = None) -> Weights | None:
    """Return the weights of `model`, or of the default or first usable model, or None without any.

    Raise `WeightsUnavailable` when the named model has none.
    """
    if model:
        return Weights.in_use(model)
    usable = usable_names()
    default = get_settings().default_model
    name = default if default in usable else next(iter(usable), None)
    return Weights.in_use(name) if name else None


def thresholds_in_force(weights: Weights) -> Thresholds | None:
    """Return the gallery's own calibration, or the thresholds that came with the weights, or None.

    Give the weights that made the vectors: others may have taken the place of these meanwhile.
    """
    if not _first(_HAS_OWN, *weights):
        return thresholds_of(*weights)
    own = Calibration.objects.filter(model=weights.model, fingerprint=weights.fingerprint).first()
    return own.thresholds if own else thresholds_of(*weights)


def search_thresholds(weights: Weights) -> Thresholds | None:
    """Return the thresholds for a gallery of the present size; see `Thresholds.for_search`."""
    thresholds = thresholds_in_force(weights)
    return thresholds and thresholds.for_search(gallery_size(weights))


def _first(query: str, *values: str) -> int:
    """Return the number in the first row of the answer; 0 without one."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        row = cursor.fetchone()
    return row[0] if row else 0


def gallery_size(weights: Weights) -> int:
    """Return the number of computed embeddings; of a large gallery, up to a minute old.

    Thresholds depend on its logarithm, so a minute's growth changes nothing.
    """
    key = f"gallery_size:{weights.partition}"
    if (known := cache.get(key)) is None:
        known = _first(_COUNT, *weights)
        if known > COUNTED_EACH_TIME:
            cache.set(key, known, COUNTED_AGAIN)
    return int(known)


def pictures_without(**embedding: str) -> QuerySet[FaceImage]:
    """Return the pictures without an embedding that has these values."""
    rows = FaceEmbedding.objects.filter(face_image=OuterRef("pk"), **embedding)
    return FaceImage.objects.filter(~Exists(rows))


def pictures_out_of_search() -> str | None:
    """Return a warning when the weights in use of a model have not embedded all enrolled pictures, or
    None: they were replaced, or the model is new. No search with it finds them until `reindex` did."""
    try:
        model, count = next(filter(itemgetter(1), map(_with_lost, usable_names())), ("", 0))
    except DatabaseError:  # the health check reports the database by itself
        return None
    if not count:
        return None
    return ngettext(
        "%(count)d enrolled picture is found by no search with %(model)s: its present weights have not "
        "measured it yet. 'manage.py reindex' makes it searchable.",
        "%(count)d enrolled pictures are found by no search with %(model)s: its present weights have "
        "not measured them yet. 'manage.py reindex' makes them searchable.",
        count,
    ) % {"count": count, "model": model}


def _with_lost(model: str) -> tuple[str, int]:
    """Return the model with the number of pictures that its weights in use have not embedded; of many
    pictures, up to a minute old."""
    weights = Weights.in_use(model)
    pictures = FaceImage.objects.count()
    if gallery_size(weights) >= pictures:  # counted quickly, one of each picture
        return model, 0
    key = f"pictures_without:{weights.partition}"
    if (lost := cache.get(key)) is None:
        lost = pictures_without(**weights._asdict()).count()
        if pictures > COUNTED_EACH_TIME:
            cache.set(key, lost, COUNTED_AGAIN)
    return model, int(lost)
