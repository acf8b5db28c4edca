"""Helpers to fill a gallery and to inspect what Milvus holds of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from enrollment.enrolling import services
from enrollment.enrolling.inspection import Upload
from enrollment.enrolling.services import Outcome
from enrollment.gallery.selectors import search_gallery
from enrollment.models import Calibration, FaceEmbedding, FaceImage, Person
from recognition.embedding import embed_uploads
from recognition.networks import find_weights
from recognition.vector_store import StoredRow, VectorRow, get_vector_store

MODEL = "mobilenetv3_large"


@dataclass(frozen=True)
class Enrollment:
    """The person, None when every picture was refused, and one outcome for each picture."""

    person: Person | None
    outcomes: list[Outcome]

    @property
    def accepted(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.face_image]


def enroll(person_id: str, *contents: bytes, name: str = "", **options: Any) -> Enrollment:
    """Enrol pictures named 0.jpg, 1.jpg and so on through the normal write path.

    They count as crops of faces, like the drawn pictures, unless `use_face_detection=True` is
    given.
    """
    uploads = [
        Upload(person_id, f"{number}.jpg", content, name=name)
        for number, content in enumerate(contents)
    ]
    options = {"source": FaceImage.Source.API, "use_face_detection": False} | options
    outcomes = services.enroll_pictures(uploads, **options)
    persons = (outcome.face_image.person for outcome in outcomes if outcome.face_image)
    return Enrollment(next(persons, None), outcomes)


def stored() -> list[StoredRow]:
    """Return every row in Milvus, by id."""
    store = get_vector_store()
    rows = [row for partition in store.partitions() for row in store.iterate(partition)]
    return sorted(rows, key=lambda row: row.id)


def vector_row(row: FaceEmbedding) -> VectorRow:
    """Return what Milvus stores of the embedding."""
    picture = row.face_image
    return VectorRow(
        row.pk,
        row.computed_array(),
        picture.person.person_id,
        picture.original_path,
        picture.created_at.isoformat(),
    )


def found(content: bytes, limit: int = 10) -> list[str]:
    """Return the persons whom a search for the picture finds, best first."""
    _crops, probe = embed_uploads([content], MODEL)
    return [hit.person.person_id for hit in search_gallery(probe, limit)[0]]


def add_vectors(persons: dict[str, int], *, noise: float = 0.6, seed: int = 0) -> list[FaceImage]:
    """Create rows without files: several vectors for each person, around one of their own.

    Two vectors of one person have a cosine of about 1 / (1 + noise²), those of different persons
    about 0.
    """
    chance = np.random.default_rng(seed)
    fingerprint = find_weights(MODEL).fingerprint
    people = Person.objects.bulk_create(Person(person_id=person_id) for person_id in persons)
    owners = [person for person in people for _ in range(persons[person.person_id])]
    pictures = FaceImage.objects.bulk_create(
        FaceImage(person=person, image="none.jpg") for person in owners
    )
    centres = {person.pk: chance.standard_normal(512) for person in people}
    rows = []
    for picture in pictures:
        vector = centres[picture.person_id] + noise * chance.standard_normal(512)
        row = FaceEmbedding(face_image=picture, model=MODEL, fingerprint=fingerprint)
        row.array = vector / np.linalg.norm(vector)
        row.face_detected, row.status = True, FaceEmbedding.Status.INDEXED
        rows.append(row)
    FaceEmbedding.objects.bulk_create(rows)
    return pictures


def set_thresholds(match: float = 0.96, review: float = 0.94) -> None:
    """Set thresholds as a calibration would. Only drawn pictures of the same seed reach 0.94."""
    Calibration.objects.create(
        model=MODEL,
        fingerprint=find_weights(MODEL).fingerprint,
        match=match,
        match_far=0.001,
        review=review,
        review_far=0.01,
        genuine_pairs=100,
        impostor_pairs=10_000,
        persons=100,
    )
