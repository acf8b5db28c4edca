"""Every write to the gallery, wherever it comes from: admin, API and folder import end here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from django.core.files.base import ContentFile
from django.db import transaction

from enrollment import indexing
from enrollment.models import PATH_MAX_LENGTH, FaceEmbedding, FaceImage, Person
from recognition.embedding import FaceCrop, crop_uploads
from recognition.exceptions import RecognitionError
from recognition.imaging import storable_bytes
from recognition.networks import usable_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it came in: its bytes (read when its turn comes) and what the client calls it."""

    filename: str
    file: IO[bytes]
    original_path: str = ""

    @property
    def shown_path(self) -> str:
        return (self.original_path or self.filename)[:PATH_MAX_LENGTH]


@dataclass(slots=True)
class Outcome:
    """What became of one upload: the picture it made, or the error that refused it."""

    filename: str
    face_image: FaceImage | None = None
    crop: FaceCrop | None = None
    embeddings: list[FaceEmbedding] = field(default_factory=list)
    error: RecognitionError | None = None

    def embedding(self, model: str) -> FaceEmbedding | None:
        return next((row for row in self.embeddings if row.model == model), None)


@dataclass(frozen=True, slots=True)
class Enrollment:
    """The person (None when every picture was refused) and one outcome for each upload, in order."""

    person: Person | None
    outcomes: list[Outcome]

    @property
    def accepted(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.face_image]


@dataclass(frozen=True, slots=True)
class _Admitted:
    outcome: Outcome
    picture: FaceImage
    content: bytes
    extension: str


def clean_person_id(person_id: str) -> str:
    """The id without surrounding blanks; `ValidationError` says what is wrong with it."""
    cleaned = person_id.strip()
    Person(person_id=cleaned).clean_fields(exclude=["name", "notes"])
    return cleaned


def enroll_pictures(
    *,
    person_id: str,
    uploads: Sequence[Upload],
    source: str,
    name: str = "",
    use_face_detection: bool = True,
    require_face: bool = False,
) -> Enrollment:
    """Adds pictures to the person `person_id`, who is made when new; searchable on return.

    A picture that is refused says why in its outcome and does not stop the others. What is accepted
    is in SQL and in the storage before anything is computed; its embeddings' rows say whether the
    vectors can be found already. Raises `ValidationError` for a person id that cannot be one.
    """
    person_id = clean_person_id(person_id)
    outcomes = [Outcome(upload.filename) for upload in uploads]
    admitted = list(
        _admit(uploads, outcomes, source=source, detect=use_face_detection, require=require_face)
    )
    if not admitted:
        return Enrollment(None, outcomes)
    person, ids = _store(person_id, name, admitted)
    crops = {item.picture.pk: item.outcome.crop for item in admitted}
    indexing.index(ids, crops)
    _attach_embeddings(admitted)
    return Enrollment(person, outcomes)


def _admit(
    uploads: Sequence[Upload], outcomes: list[Outcome], *, source: str, detect: bool, require: bool
) -> Iterator[_Admitted]:
    """Reads the uploads a few at a time; notes errors in the outcomes, yields what can be stored."""
    files = ((upload.filename, upload.file.read()) for upload in uploads)
    results = crop_uploads(files, detect=detect, require_face=require)
    for upload, outcome, result in zip(uploads, outcomes, results, strict=True):
        if isinstance(result, RecognitionError):
            outcome.error = result
            continue
        outcome.crop = result.crop
        content, extension = storable_bytes(result.data, result.image)
        picture = FaceImage(
            original_path=upload.shown_path,
            content_hash=content_hash(result.data),
            source=source,
            use_face_detection=detect,
            width=result.image.width,
            height=result.image.height,
        )
        yield _Admitted(outcome, picture, content, extension)


def content_hash(content: bytes) -> str:
    """SHA-256 of an uploaded file, in hexadecimal: what tells that it was enrolled before."""
    return hashlib.sha256(content).hexdigest()


def _store(person_id: str, name: str, admitted: list[_Admitted]) -> tuple[Person, list[int]]:
    """Writes files, then rows in one transaction; when the rows fail, the files go again."""
    saved: list[FaceImage] = []
    try:
        for item in admitted:
            item.picture.image.save(
                f"picture.{item.extension}", ContentFile(item.content), save=False
            )
            saved.append(item.picture)
        with transaction.atomic():
            person, _created = Person.objects.get_or_create(
                person_id=person_id, defaults={"name": name}
            )
            for item in admitted:
                item.picture.person = person
            FaceImage.objects.bulk_create(saved)
            ids = indexing.create_pending(saved, usable_names())
    except BaseException:
        _discard_files(saved)
        raise
    for item in admitted:
        item.outcome.face_image = item.picture
    return person, ids


def _discard_files(pictures: Iterable[FaceImage]) -> None:
    for picture in pictures:
        try:
            picture.image.storage.delete(picture.image.name)
        except Exception:  # noqa: BLE001 (the first failure is the one to report)
            logger.exception("The file %s of a refused picture stays in the storage", picture.image)


def _attach_embeddings(admitted: list[_Admitted]) -> None:
    outcomes = {item.picture.pk: item.outcome for item in admitted}
    for row in FaceEmbedding.objects.filter(face_image__in=outcomes):
        outcomes[row.face_image_id].embeddings.append(row)


def sync_again(face_images: Iterable[FaceImage]) -> indexing.IndexReport:
    """Makes and copies what these pictures lack: rows for new weights, vectors, Milvus's copy."""
    pictures = list(face_images)
    indexing.complete_rows(pictures)
    ids = FaceEmbedding.objects.filter(face_image__in=pictures).values_list("pk", flat=True)
    return indexing.index(list(ids))
