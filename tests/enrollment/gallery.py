"""Short ways to fill a gallery and to look at what Milvus holds of it."""

from __future__ import annotations

import io
from typing import Any

from enrollment import services
from enrollment.models import FaceImage
from enrollment.selectors import search_gallery
from enrollment.services import Enrollment, Upload
from recognition.embedding import embed_uploads
from recognition.vector_store import StoredRow, get_vector_store

MODEL = "mobilenetv3_large"


def enrol(person_id: str, *contents: bytes, **options: Any) -> Enrollment:
    """Enrols pictures, called 0.jpg, 1.jpg and so on, the way every client's are."""
    uploads = [
        Upload(f"{number}.jpg", io.BytesIO(content)) for number, content in enumerate(contents)
    ]
    options = {"source": FaceImage.Source.API} | options
    return services.enroll_pictures(person_id=person_id, uploads=uploads, **options)


def stored() -> list[StoredRow]:
    """Every row in Milvus, by id."""
    store = get_vector_store()
    rows = [row for partition in store.partitions() for row in store.iterate(partition)]
    return sorted(rows, key=lambda row: row.id)


def found(content: bytes, limit: int = 10) -> list[str]:
    """The persons whom a search for the picture finds, best first."""
    _crops, probe = embed_uploads([(None, content)], MODEL)
    return [hit.person.person_id for hit in search_gallery(probe, limit)[0]]
