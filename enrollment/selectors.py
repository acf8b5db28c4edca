"""Every question to the gallery: who looks like this, who is enrolled, what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from django.db.models import QuerySet

from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.embedding import Embeddings
from recognition.vector_store import VectorHit, get_vector_store, partition_name


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An enrolled picture that resembles the probe; `similarity` is the cosine, -1 to 1."""

    id: int  # of the embedding, and so of the vector
    similarity: float
    face_image: FaceImage

    @property
    def person(self) -> Person:
        return self.face_image.person


def search_gallery(probe: Embeddings, limit: int) -> list[list[SearchHit]]:
    """The `limit` most similar enrolled pictures for each probe vector, best first.

    Looks only among vectors that the same weights made. A vector whose row is gone or is not this
    gallery's is never returned; what it would have displaced is.
    """
    rows = FaceEmbedding.objects.filter(model=probe.model, fingerprint=probe.fingerprint)
    rows = rows.select_related("face_image__person").defer("vector")
    partition = partition_name(probe.model, probe.fingerprint)
    return [_search(partition, rows, vector, limit) for vector in probe.vectors]


def _search(
    partition: str, rows: QuerySet[FaceEmbedding], vector: np.ndarray, limit: int
) -> list[SearchHit]:
    wanted = limit
    while True:
        (found,) = get_vector_store().search(partition, vector[None], wanted)
        hits = _with_rows(found, rows)
        if len(hits) >= limit or len(found) < wanted:
            return hits[:limit]
        wanted *= 2


def _with_rows(found: list[VectorHit], rows: QuerySet[FaceEmbedding]) -> list[SearchHit]:
    by_id = rows.in_bulk([hit.id for hit in found])
    return [
        SearchHit(hit.id, hit.similarity, by_id[hit.id].face_image)
        for hit in found
        if hit.id in by_id
    ]


def gallery_is_empty() -> bool:
    """Whether nobody has a picture yet."""
    return not FaceImage.objects.exists()
