"""Every write to the gallery, wherever it comes from: admin, API and folder import end here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Final

from django.conf import settings
from django.core.files.base import ContentFile
from django.db import IntegrityError, transaction
from django.utils.translation import gettext

from enrollment import index
from enrollment.exceptions import DoubtfulIdentity, LowQuality, PictureNotFound, StorageUnavailable
from enrollment.gallery import compared_weights
from enrollment.judging import Probe, quality_doubts, resemblances
from enrollment.models import PATH_MAX_LENGTH, Doubt, FaceEmbedding, FaceImage, Person
from recognition.detection import looks_for_faces
from recognition.embedding import FaceCrop, crop_uploads, embed_crops
from recognition.exceptions import RecognitionError
from recognition.imaging import storable_bytes
from recognition.networks import usable_names

logger = logging.getLogger(__name__)


class UploadStored(Exception):
    """Somebody else stored uploads with the same keys since this call looked for them."""


REFUSE: Final = "refuse"  # of ENROLL_QUALITY and ENROLL_IDENTITY


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it came in: its bytes (read when its turn comes) and what the client calls it.

    Of uploads with the same `key` only the first is stored; the others get its picture.
    """

    filename: str
    file: IO[bytes]
    original_path: str = ""
    key: str | None = None

    @property
    def shown_path(self) -> str:
        return (self.original_path or self.filename)[:PATH_MAX_LENGTH]


@dataclass(frozen=True, slots=True)
class Submission:
    """An upload and whom it shows; `name` is given to a person who is new."""

    person_id: str
    upload: Upload
    name: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of one upload: the picture it made, or the error that refused it."""

    filename: str
    face_image: FaceImage | None = None
    crop: FaceCrop | None = None
    embeddings: list[FaceEmbedding] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    judged: bool = False  # compared with the gallery
    error: RecognitionError | None = None

    def embedding(self, model: str) -> FaceEmbedding | None:
        return next((row for row in self.embeddings if row.model == model), None)

    @property
    def seen(self) -> FaceCrop | FaceEmbedding | None:
        """What has the `face` and `quality` of a picture that was accepted, now or before."""
        known = (row for row in self.embeddings if row.face_detected is not None)
        return self.crop or next(known, None)


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
    submission: Submission
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
    wait: bool = True,
) -> Enrollment:
    """Adds pictures to the person `person_id`, who is made when new; searchable on return.

    Without `wait` they are stored on return, and searchable as soon as the work in the background is
    done.

    A picture that is refused says why in its outcome and does not stop the others. What is accepted
    is in SQL and in the storage before anything is computed; its embeddings' rows say whether the
    vectors can be found already, its doubts what speaks against it. Raises `ValidationError` for a person
    id that cannot be one.

    A picture in which no face is found is refused (`NoFaceDetected`): with `use_face_detection` off the
    caller vouches that it is an aligned crop of one, unless `require_face` has one looked for all the same.
    """
    person_id = clean_person_id(person_id)
    outcomes = enroll_batch(
        [Submission(person_id, upload, name) for upload in uploads],
        source=source,
        use_face_detection=use_face_detection,
        require_face=require_face,
        wait=wait,
    )
    persons = (outcome.face_image.person for outcome in outcomes if outcome.face_image)
    return Enrollment(next(persons, None), outcomes)


def enroll_batch(
    submissions: Sequence[Submission],
    *,
    source: str,
    use_face_detection: bool = True,
    require_face: bool = False,
    dry_run: bool = False,
    wait: bool = True,
) -> list[Outcome]:
    """As `enroll_pictures`, for pictures of any number of persons, whose ids must be clean.

    With `dry_run` the pictures are read and their faces looked for, and nothing is written.
    """
    use_face_detection = use_face_detection and looks_for_faces()
    outcomes = [Outcome(item.upload.filename) for item in submissions]
    _recall(submissions, outcomes)
    new = [pair for pair in zip(submissions, outcomes, strict=True) if not pair[1].face_image]
    admitted = list(_admit(new, source=source, detect=use_face_detection, require=require_face))
    if not dry_run:
        _enroll(admitted, wait)
    return outcomes


def _enroll(admitted: list[_Admitted], wait: bool) -> None:
    if settings.ENROLL_IDENTITY == REFUSE:
        admitted = _without_doubtful_identity(admitted)
    if admitted:
        ids = _store(admitted)
        if wait:
            index.index_rows(ids, {item.picture.pk: item.outcome.crop for item in admitted})
        else:
            index.request_indexing(ids)
        _attach_results(item.outcome for item in admitted)


def _recall(submissions: Sequence[Submission], outcomes: Sequence[Outcome]) -> None:
    """Fills the outcomes of uploads that were stored before, under the same keys."""
    by_key = {
        item.upload.key: outcome
        for item, outcome in zip(submissions, outcomes, strict=True)
        if item.upload.key
    }
    stored = list(FaceImage.objects.filter(upload_key__in=by_key)) if by_key else []
    if stored:
        sync_again(stored)  # what stored them may have been cut off before they could be found
    for picture in stored:
        by_key[picture.upload_key].face_image = picture
    _attach_results(by_key[picture.upload_key] for picture in stored)


def _admit(
    new: Sequence[tuple[Submission, Outcome]],
    *,
    source: str,
    detect: bool,
    require: bool,
) -> Iterator[_Admitted]:
    """Reads the uploads a few at a time; notes errors in the outcomes, yields what can be stored."""
    files = ((item.upload.filename, item.upload.file.read()) for item, _outcome in new)
    results = crop_uploads(files, detect=detect, require_face=require or detect)
    for (submission, outcome), result in zip(new, results, strict=True):
        if isinstance(result, RecognitionError):
            outcome.error = result
            continue
        outcome.crop, outcome.doubts = result.crop, quality_doubts(result.crop.quality)
        if outcome.doubts and settings.ENROLL_QUALITY == REFUSE:
            outcome.error = LowQuality(_sentences(outcome.doubts))
            continue
        content, extension = storable_bytes(result.data, result.image)
        picture = FaceImage(
            original_path=submission.upload.shown_path,
            content_hash=content_hash(result.data),
            upload_key=submission.upload.key,
            source=source,
            use_face_detection=detect,
            width=result.image.width,
            height=result.image.height,
        )
        yield _Admitted(submission, outcome, picture, content, extension)


def content_hash(content: bytes) -> str:
    """SHA-256 of an uploaded file, in hexadecimal: what tells that it was enrolled before."""
    return hashlib.sha256(content).hexdigest()


def _sentences(doubts: Iterable[Doubt]) -> str:
    return " ".join(doubt.message for doubt in doubts)


def _without_doubtful_identity(admitted: list[_Admitted]) -> list[_Admitted]:
    """Without the same files again and faces that match somebody else; their outcomes say whom.

    They are not compared with each other: what comes in one batch is judged once it is stored.
    """
    weights = compared_weights()
    pixels = [item.outcome.crop.pixels for item in admitted]
    vectors = embed_crops(pixels, weights.model).vectors if weights else [None] * len(admitted)
    ids = {item.submission.person_id for item in admitted}
    persons = dict(Person.objects.filter(person_id__in=ids).values_list("person_id", "pk"))
    probes = [
        Probe(item.picture.content_hash, persons.get(item.submission.person_id), vector=vector)
        for item, vector in zip(admitted, vectors, strict=True)
    ]
    for item, doubts in zip(admitted, resemblances(probes, weights, certain=True), strict=True):
        if doubts:
            item.outcome.error = DoubtfulIdentity(_sentences(doubts))
    return [item for item in admitted if not item.outcome.error]


def _store(admitted: list[_Admitted]) -> list[int]:
    """Writes files, then rows in one transaction; when the rows fail, the files go again.

    Returns the ids of the embeddings that are now to be made.
    """
    saved: list[FaceImage] = []
    try:
        for item in admitted:
            _save_file(item)
            saved.append(item.picture)
        # Within somebody else's transaction a search would find what may yet be rolled back.
        with transaction.atomic(durable=True):
            persons = _persons(item.submission for item in admitted)
            for item in admitted:
                item.picture.person = persons[item.submission.person_id]
            FaceImage.objects.bulk_create(saved)
            ids = index.create_pending(saved, usable_names())
    except BaseException as error:
        _discard_files(saved)
        keys = [picture.upload_key for picture in saved if picture.upload_key]
        if (
            isinstance(error, IntegrityError)
            and FaceImage.objects.filter(upload_key__in=keys).exists()
        ):
            raise UploadStored from error
        raise
    for item in admitted:
        item.outcome.face_image = item.picture
    return ids


def _save_file(item: _Admitted) -> None:
    try:
        item.picture.image.save(f"picture.{item.extension}", ContentFile(item.content), save=False)
    except Exception as error:  # noqa: BLE001 (each storage fails with classes of its own)
        logger.exception("The storage refuses a picture")
        raise StorageUnavailable(
            gettext(
                "The storage of the pictures cannot be written to, so nothing was enrolled. Have the "
                "administrator check its free space, its rights or its address, then send it again."
            )
        ) from error


def _persons(submissions: Iterable[Submission]) -> dict[str, Person]:
    """The persons of the submissions by id; those that are new are made."""
    names = {item.person_id: item.name for item in submissions}
    # Locked, so that nobody deletes the person before the pictures are there.
    persons = Person.objects.select_for_update()
    return {
        person_id: persons.get_or_create(person_id=person_id, defaults={"name": name})[0]
        for person_id, name in sorted(names.items())
    }


def _discard_files(pictures: Iterable[FaceImage]) -> None:
    for picture in pictures:
        try:
            picture.image.storage.delete(picture.image.name)
        except Exception:  # noqa: BLE001 (the first failure is the one to report)
            logger.exception("The file %s of a refused picture stays in the storage", picture.image)


def _attach_results(stored: Iterable[Outcome]) -> None:
    outcomes = {outcome.face_image.pk: outcome for outcome in stored}
    for row in FaceEmbedding.objects.filter(face_image__in=outcomes):
        outcomes[row.face_image_id].embeddings.append(row)
    judged_at = dict(FaceImage.objects.filter(pk__in=outcomes).values_list("pk", "judged_at"))
    for pk, outcome in outcomes.items():
        outcome.doubts, outcome.judged = [], judged_at.get(pk) is not None
        if pk not in judged_at:
            outcome.error, outcome.face_image = _gone(outcome.face_image), None
    for doubt in Doubt.objects.filter(face_image__in=outcomes).select_related("other__person"):
        outcomes[doubt.face_image_id].doubts.append(doubt)


def _gone(picture: FaceImage) -> PictureNotFound:
    """Somebody deleted it before this call could answer that it is there."""
    message = gettext("%(person)s has no picture %(id)d, or not any more.")
    return PictureNotFound(message % {"person": picture.person, "id": picture.pk})


def sync_again(face_images: Iterable[FaceImage]) -> index.IndexReport:
    """Makes and copies what these pictures lack: rows for new weights, vectors, Milvus's copy.

    Also has Milvus forget what it could not be told to forget before.
    """
    index.delete_vectors.enqueue()
    report = index.IndexReport()
    remaining = iter(face_images)
    while pictures := list(islice(remaining, index.BATCH_SIZE)):
        index.complete_rows(pictures)
        rows = FaceEmbedding.objects.filter(face_image__in=pictures)
        report += index.index_rows(list(rows.values_list("pk", flat=True)))
    return report
