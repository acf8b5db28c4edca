"""Every question to the gallery: who looks like this, who is enrolled, what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.decision import Decision, decide, thresholds_of
from recognition.embedding import Embeddings
from recognition.networks.descriptor import WeightsDescriptor
from recognition.vector_store import MAX_HITS, VectorHit, get_vector_store, partition_name


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An enrolled picture that resembles the probe; `similarity` is the cosine, -1 to 1.

    `decision` is None when the weights in use were never measured.
    """

    id: int  # of the embedding, and so of the vector
    similarity: float
    decision: Decision | None
    face_image: FaceImage

    @property
    def person(self) -> Person:
        return self.face_image.person


def search_gallery(
    probe: Embeddings, limit: int, *, threshold: float = -1.0, group_by_person: bool = False
) -> list[list[SearchHit]]:
    """The `limit` most similar enrolled pictures for each probe vector, best first.

    None is less similar than `threshold` (a cosine). With `group_by_person` a person counts once, by
    the most similar picture.
    Looks only among vectors that the same weights made. A vector whose row is gone or is not this
    gallery's is never returned; what it would have displaced is.
    """
    rows = FaceEmbedding.objects.filter(model=probe.model, fingerprint=probe.fingerprint)
    rows = rows.select_related("face_image__person").defer("vector")
    partition = partition_name(probe.model, probe.fingerprint)
    thresholds = thresholds_of(probe.model)

    def hits_of(vector: np.ndarray) -> list[SearchHit]:
        wanted = limit
        while True:
            (found,) = get_vector_store().search(partition, vector[None], wanted)
            similar = [hit for hit in found if hit.similarity >= threshold]
            hits = _with_rows(similar, rows, thresholds)
            if group_by_person:
                hits = _best_of_each_person(hits)
            if len(hits) >= limit or len(similar) < wanted or wanted >= MAX_HITS:
                return hits[:limit]
            wanted = min(wanted * 4, MAX_HITS)

    return [hits_of(vector) for vector in probe.vectors]


def _best_of_each_person(hits: list[SearchHit]) -> list[SearchHit]:
    best: dict[int, SearchHit] = {}
    for hit in hits:
        best.setdefault(hit.face_image.person_id, hit)
    return list(best.values())


def _with_rows(
    found: list[VectorHit],
    rows: QuerySet[FaceEmbedding],
    thresholds: WeightsDescriptor | None,
) -> list[SearchHit]:
    by_id = rows.in_bulk([hit.id for hit in found])
    return [
        SearchHit(
            hit.id, hit.similarity, decide(hit.similarity, thresholds), by_id[hit.id].face_image
        )
        for hit in found
        if hit.id in by_id
    ]


def gallery_is_empty() -> bool:
    """Whether nobody has a picture yet."""
    return not FaceImage.objects.exists()


def pictures_of_each() -> QuerySet[FaceImage]:
    """The pictures of each person, within a query for persons."""
    return FaceImage.objects.filter(person=OuterRef("pk")).order_by()


def count_of(pictures: QuerySet[FaceImage]) -> Coalesce:
    """How many of `pictures_of_each()` there are, as an annotation."""
    counted = pictures.values("person").annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted), 0)


def with_pictures(persons: QuerySet[Person]) -> QuerySet[Person]:
    """Annotates the number of pictures and the id of the one to show: the cover, or else the first."""
    first = pictures_of_each().order_by("pk").values("pk")[:1]
    return persons.annotate(
        picture_count=count_of(pictures_of_each()),
        shown_picture=Coalesce("cover_id", Subquery(first)),
    )


def find_persons(text: str = "") -> QuerySet[Person]:
    """Persons whose id or name holds every word of the text, as `with_pictures`; by their ids."""
    words = (Q(person_id__icontains=word) | Q(name__icontains=word) for word in text.split())
    return with_pictures(Person.objects.filter(*words))
