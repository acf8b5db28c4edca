"""The vectors of the whole gallery as arrays."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np
from django.db.models import QuerySet

from enrollment.models import FaceEmbedding
from recognition.vector_store import EMBEDDING_DIM


class GalleryVectors(NamedTuple):
    """Embeddings of N pictures, sorted by person.

    `pictures` and `persons` hold N int64 ids, `vectors` N×512 float32 rows of length 1.
    """

    pictures: np.ndarray
    persons: np.ndarray
    vectors: np.ndarray


def gallery_vectors(rows: QuerySet[FaceEmbedding]) -> GalleryVectors:
    """Load the vectors of rows of one weights file; 100,000 take 0.2 GB of memory."""
    count = rows.count()
    ids = np.empty((count, 2), np.int64)
    vectors = np.empty((count, EMBEDDING_DIM), np.float32)
    values = rows.order_by("face_image__person_id", "face_image_id").values_list(
        "face_image_id", "face_image__person_id", "vector"
    )
    read = 0
    # Rows may have been added since they were counted.
    for picture, person, vector in islice(values.iterator(), count):
        ids[read] = picture, person
        vectors[read] = np.frombuffer(vector or b"", "<f4")
        read += 1
    return GalleryVectors(ids[:read, 0], ids[:read, 1], vectors[:read])
