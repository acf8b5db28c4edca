"""The whole gallery as arrays, to be compared with itself."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np
from django.db.models import QuerySet

from enrollment.models import FaceEmbedding
from recognition.vector_store import EMBEDDING_DIM


class GalleryVectors(NamedTuple):
    """Embeddings of N pictures, sorted by person: N ids of each, and N×512 float32 of length 1."""

    pictures: np.ndarray
    persons: np.ndarray
    vectors: np.ndarray


def gallery_vectors(rows: QuerySet[FaceEmbedding]) -> GalleryVectors:
    """The vectors of rows of one weights file; 100,000 of them take 0.2 GB."""
    count = rows.count()
    ids = np.empty((count, 2), np.int64)
    vectors = np.empty((count, EMBEDDING_DIM), np.float32)
    values = rows.order_by("face_image__person_id", "face_image_id").values_list(
        "face_image_id", "face_image__person_id", "vector"
    )
    read = 0
    # More may have come since they were counted.
    for picture, person, vector in islice(values.iterator(), count):
        ids[read] = picture, person
        vectors[read] = np.frombuffer(vector or b"", "<f4")
        read += 1
    return GalleryVectors(ids[:read, 0], ids[:read, 1], vectors[:read])
