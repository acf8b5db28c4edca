"""Two pictures, or a picture and an enrolled person: how alike their faces are, and the report of it."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone

from enrollment.exceptions import PersonNotComparable, PersonNotFound
from enrollment.gallery import (
    SIDES,
    Weights,
    best_of_person,
    jpeg_uri,
    note_verification,
    person_meant,
    person_named,
    read_picture,
    thresholds_in_force,
    thumbnail,
)
from enrollment.models import FaceEmbedding, Feedback, Person
from enrollment.pages.query_pictures import (
    Likeness,
    Problem,
    QueryFace,
    QueryPicture,
    ShownThresholds,
    read_pictures,
)
from enrollment.probes import said_of
from enrollment.web import Act, is_found, searchable_by
from recognition.api.access import may
from recognition.decision import Thresholds, decide
from recognition.embedding import embed_crops
from recognition.inference import Embeddings
from recognition.neighbours import as_cosine
from recognition.networks import find_weights
from recognition.quality import FaceQuality

COMPARED_FACES: Final = 8  # most faces of each picture that are compared


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face of the gallery beside one of an uploaded picture."""

    row: FaceEmbedding
    uri: str
    number: int = 1

    @property
    def quality(self) -> FaceQuality | None:
        return self.row.quality

    @property
    def doubts(self) -> list[str]:
        """The reasons against the face, as sentences."""
        return [reason.message for reason in self.quality.reasons] if self.quality else []


@dataclass(frozen=True, slots=True)
class PairOfFaces(Likeness):
    source: QueryFace
    target: QueryFace | EnrolledFace
    said: Feedback | None = None  # what somebody said of this face and the person

    @property
    def faces(self) -> tuple[QueryFace, QueryFace | EnrolledFace]:
        return self.source, self.target

    @property
    def has_doubts(self) -> bool:
        """Whether something speaks against one of the faces."""
        return any(face.doubts for face in self.faces)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A picture beside another, or beside a person: one row for each face of the first picture.

    `digests` are the SHA-256 of the uploaded files, hexadecimal.
    """

    source: QueryPicture
    target: QueryPicture | None
    rows: list[list[PairOfFaces]]
    digests: list[str]
    person: Person | None = None

    @property
    def pictures(self) -> list[tuple[QueryPicture, str]]:
        """The uploaded pictures, each with its digest."""
        given = [picture for picture in (self.source, self.target) if picture]
        return list(zip(given, self.digests, strict=True))

    @property
    def largest(self) -> PairOfFaces:
        return self.rows[0][0]

    @property
    def best(self) -> PairOfFaces:
        return max((pair for row in self.rows for pair in row), key=lambda pair: pair.similarity)

    @property
    def better(self) -> PairOfFaces | None:
        """The most similar pair, if its decision differs from that of the largest faces."""
        return self.best if self.best.decision != self.largest.decision else None

    @property
    def has_choice(self) -> bool:
        return len(self.rows) > 1 or len(self.rows[0]) > 1

    @property
    def targets(self) -> list[QueryFace | EnrolledFace]:
        return [pair.target for pair in self.rows[0]]


def compare(
    request: HttpRequest,
    *,
    source: UploadedFile,
    target: UploadedFile | None,
    person: str,
    model: str,
    check_liveness: bool = False,
) -> dict[str, Any]:
    """Compare the faces of a picture with those of another, or with those of the person whom
    `person` names; return the template context."""
    find_weights(model)  # report an unusable model before reading the pictures
    files = [file for file in (source, target) if file]
    pictures = read_pictures(files, check_liveness=check_liveness)
    if problems := [item for item in pictures if isinstance(item, Problem)]:
        return {"problems": problems}
    first, *others = [item for item in pictures if isinstance(item, QueryPicture)]
    second = others[0] if others else None
    faces = first.faces[:COMPARED_FACES]
    targets = second.faces[:COMPARED_FACES] if second else []
    probe = embed_crops([face.crop.pixels for face in (*faces, *targets)], model)
    thresholds = thresholds_in_force(Weights.of(probe))
    shown: dict[str, Any] = {"thresholds": ShownThresholds.of(thresholds), "model": model}
    if second:
        rows = _pairs(faces, targets, probe.vectors, thresholds)
        whom = None
    else:
        found = _of_person(request, faces, probe, person, thresholds)
        if found is None:
            return shown | {"is_unlike_person": True}
        rows, whom = found
    digests = [_digest(file) for file in files]
    shown |= {"comparison": Comparison(first, second, rows, digests, whom)}
    return shown | {"report": _report(request, shown | {"fingerprint": probe.fingerprint})}


def _pairs(
    sources: Sequence[QueryFace],
    targets: Sequence[QueryFace],
    vectors: np.ndarray,
    thresholds: Thresholds | None,
) -> list[list[PairOfFaces]]:
    cosines = vectors[: len(sources)] @ vectors[len(sources) :].T
    return [
        [
            PairOfFaces(as_cosine(cosine), decide(as_cosine(cosine), thresholds), source, target)
            for cosine, target in zip(row, targets, strict=True)
        ]
        for row, source in zip(cosines, sources, strict=True)
    ]


def _of_person(
    request: HttpRequest,
    faces: Sequence[QueryFace],
    probe: Embeddings,
    text: str,
    thresholds: Thresholds | None,
) -> tuple[list[list[PairOfFaces]], Person] | None:
    """Return each face beside the person's picture that is most like it, and the person.

    Person ids can be guessed, so users who may not browse learn nothing of the person, not even that
    they exist, unless a face is similar: None. The person is looked up after the faces were
    embedded, so that the time does not tell a known id from an unknown one.
    """
    sees_all = may(request, Act.BROWSE)
    try:
        find = person_named if sees_all else person_meant
        person = find(text, among=searchable_by(request))
        found = best_of_person(probe, person)
    except (PersonNotFound, PersonNotComparable):
        if sees_all:
            raise
        return None
    best = max(cosine for _row, cosine in found)
    decision = decide(best, thresholds)
    note_verification(request, probe.model, person, best, decision)
    if not sees_all and not is_found(best, thresholds):
        return None

    @cache
    def shown(row: FaceEmbedding) -> EnrolledFace:
        box = row.face and row.face["box"]
        content = thumbnail(read_picture(row.face_image), SIDES["face"], box)
        return EnrolledFace(row, jpeg_uri(content))

    rows = [
        [PairOfFaces(cosine, decide(cosine, thresholds), face, shown(row), said.get(person.pk))]
        for face, (row, cosine), said in zip(
            faces, found, said_of([face.crop for face in faces]), strict=True
        )
    ]
    return rows, person


def _digest(file: UploadedFile) -> str:
    file.seek(0)
    return hashlib.sha256(file.read()).hexdigest()


def _report(request: HttpRequest, shown: dict[str, Any]) -> str:
    """Return the report as a `data:` URI: a page of its own, with everything in it, made to print."""
    context = shown | {"made_at": timezone.localtime(), "made_by": request.user.get_username()}
    page = render_to_string("enrollment/compare_report.html", context, request)
    return f"data:text/html;charset=utf-8;base64,{b64encode(page.encode()).decode('ascii')}"
