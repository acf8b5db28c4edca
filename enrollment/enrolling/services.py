"""Enrolment: every new picture is stored here, whether it comes from the admin, API, pages or an
import."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import numpy as np
from django.conf import settings
from django.db import DatabaseError, IntegrityError

from enrollment import index, journal
from enrollment.enrolling.consents import record_first_consent
from enrollment.enrolling.inspection import REFUSE, Look, Upload, look_at, sentences
from enrollment.enrolling.merged_ids import note_pictures, person_for
from enrollment.exceptions import DoubtfulIdentity, PictureNotFound, StorageUnavailable
from enrollment.gallery import Weights, compared_weights
from enrollment.judging import Probe, doubts_of, resemblances
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person, lock_rows, note_removals
from recognition.detection import looks_for_faces
from recognition.embedding import Crop, embeddings_of
from recognition.exceptions import RecognitionError
from recognition.log_text import few
from recognition.lookahead import in_order
from recognition.networks import usable_names
from recognition.sentences import gettext

logger = logging.getLogger(__name__)

DETAILS: Final = ("notes", "legal_basis", "keep_until")  # of a new person


class UploadStored(Exception):
    """Another request stored uploads with the same keys while this call was running."""


@dataclass(slots=True)
class Outcome:
    """The result of one upload: the stored picture, or the error that refused it."""

    upload: Upload
    face_image: FaceImage | None = None
    crop: Crop | None = None
    embeddings: list[FaceEmbedding] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    judged: bool = False  # the picture was compared with the gallery
    error: RecognitionError | None = None

    @property
    def filename(self) -> str:
        return self.upload.filename

    @property
    def picture(self) -> FaceImage:
        """`face_image` of an accepted upload. Raises `ValueError` for a refused one."""
        if self.face_image is None:
            raise ValueError(f"{self.filename} has no picture: it was refused or not stored yet.")
        return self.face_image

    @property
    def face_crop(self) -> Crop:
        """`crop` of an upload that this call has read. Raises `ValueError` without one."""
        if self.crop is None:
            raise ValueError(f"{self.filename} has no crop: it was not read, or not readable.")
        return self.crop

    def embedding(self, model: str) -> FaceEmbedding | None:
        return next((row for row in self.embeddings if row.model == model), None)

    @property
    def seen(self) -> Crop | FaceEmbedding | None:
        """The crop or embedding with `face` and `quality` of an accepted picture, or None."""
        known = (row for row in self.embeddings if row.face_detected is not None)
        return self.crop or next(known, None)


def clean_person_id(person_id: str) -> str:
    """Return the id in its normal form. Raise `ValidationError` for an invalid id."""
    cleaned: str = Person._meta.get_field("person_id").clean(person_id, None)
    return cleaned


def enroll_pictures(
    uploads: Sequence[Upload],
    *,
    source: str,
    use_face_detection: bool = True,
    require_face: bool = False,
    face_index: int | None = None,
    on_several_faces: Literal["largest", "refuse", "ask"] = "largest",
    dry_run: bool = False,
    wait: bool = True,
    looks: Mapping[Upload, Future[Look]] | None = None,
) -> list[Outcome]:
    """Enrol pictures; create new persons. Return one outcome for each upload.

    With `wait` searches find the pictures on return; without it they are only stored, and indexed
    in the background. With `dry_run` they are decoded and faces are detected, but nothing is
    written.

    A refused picture has the error in its outcome and does not stop the others. Accepted pictures
    are in SQL and in the storage before anything is computed; their embedding rows say whether
    searches find them. Raise `ValidationError` for an invalid person id.

    A picture without a face is refused (`NoFaceDetected`). With `use_face_detection` off it counts
    as an aligned crop, unless `require_face` demands a detection all the same. Of several faces the
    largest is enrolled, unless `face_index` or `Upload.face` names one. With
    `on_several_faces="refuse"` a picture with several faces is refused; with `"ask"` only if it is
    unclear which is meant, and the error is a `FaceNotChosen` that has the faces.

    Raise `PersonNotFound` for an upload of somebody who `is_known` and was deleted meanwhile.

    `looks` has what `look_at` returns with the same options for uploads that were looked at ahead.
    """
    for person_id in {upload.person_id for upload in uploads}:
        clean_person_id(person_id)
    use_face_detection = use_face_detection and looks_for_faces()
    outcomes = [Outcome(upload) for upload in uploads]
    _recall(outcomes)
    look = partial(
        look_at,
        dry_run=dry_run,
        use_face_detection=use_face_detection,
        require_face=require_face,
        face_index=face_index,
        on_several_faces=on_several_faces,
    )
    new = [outcome for outcome in outcomes if not outcome.face_image]
    admitted = []
    for outcome, seen in zip(new, _looks(new, looks or {}, look), strict=True):
        outcome.crop, outcome.doubts, outcome.error = seen.crop, seen.doubts, seen.error
        if seen.file:
            outcome.face_image = _picture(outcome.upload, seen)
            outcome.face_image.source = source
            outcome.face_image.use_face_detection = use_face_detection
            if outcome.upload.face or face_index is not None:
                outcome.face_image.chosen_face = outcome.face_crop.face_record()
            admitted.append(outcome)
    _enroll(admitted, wait)
    return outcomes


def _looks(
    outcomes: Sequence[Outcome],
    begun: Mapping[Upload, Future[Look]],
    look: Callable[[Upload], Look],
) -> Iterator[Look]:
    """Yield what the uploads show, in order; several are looked at at the same time."""
    if len(outcomes) == 1 and outcomes[0].upload not in begun:
        yield look(outcomes[0].upload)
        return
    rest = in_order(look, [item.upload for item in outcomes if item.upload not in begun])
    for outcome in outcomes:
        future = begun.get(outcome.upload)
        yield future.result() if future else next(rest)


def _recall(outcomes: Sequence[Outcome]) -> None:
    """Fill the outcomes of uploads that were stored before with the same keys."""
    by_key = {outcome.upload.key: outcome for outcome in outcomes if outcome.upload.key}
    stored = list(FaceImage.objects.filter(upload_key__in=by_key)) if by_key else []
    if stored:
        sync_again(stored)  # the call that stored them may have been interrupted before indexing
    for picture in stored:
        by_key[picture.upload_key or ""].face_image = picture
    _attach_results([outcome for outcome in by_key.values() if outcome.face_image])


def _picture(upload: Upload, look: Look) -> FaceImage:
    return FaceImage(
        image=look.file,
        original_path=upload.shown_path,
        upload_key=upload.key,
        content_hash=upload.digest,
        width=look.width,
        height=look.height,
    )


def _enroll(admitted: list[Outcome], wait: bool) -> None:
    if settings.ENROLL_IDENTITY == REFUSE:
        admitted = _without_doubtful_identity(admitted)
    if admitted:
        ids = _store(admitted)
        if wait:
            index.index_rows(ids, {item.picture.pk: item.face_crop for item in admitted})
        else:
            index.request_indexing(ids)
        _attach_results(admitted)


def _without_doubtful_identity(admitted: list[Outcome]) -> list[Outcome]:
    """Return the outcomes without repeated files and faces that match another person.

    The error of a refused outcome names that person. Uploads are not compared with each other here;
    they are judged once they are stored.
    """
    weights = compared_weights()
    crops = [outcome.face_crop for outcome in admitted]
    vectors: Sequence[np.ndarray | None] = [None] * len(admitted)
    if weights:
        embeddings = embeddings_of(crops, weights.model)
        weights, vectors = Weights.of(embeddings), list(embeddings.vectors)
    ids = {clean_person_id(outcome.upload.person_id) for outcome in admitted}
    persons = dict(Person.objects.filter(person_id__in=ids).values_list("person_id", "pk"))
    probes = [
        Probe(
            outcome.upload.digest,
            persons.get(clean_person_id(outcome.upload.person_id)),
            vector=vector,
        )
        for outcome, vector in zip(admitted, vectors, strict=True)
    ]
    for outcome, doubts in zip(admitted, resemblances(probes, weights, certain=True), strict=True):
        if doubts:
            outcome.error, outcome.face_image = DoubtfulIdentity(sentences(doubts)), None
    return [outcome for outcome in admitted if not outcome.error]


def _store(admitted: list[Outcome]) -> list[int]:
    """Write the files, then all rows in one transaction; return the ids of the pending embeddings.

    If the rows cannot be written, the files are deleted again.
    """
    saved: list[FaceImage] = []
    try:
        for outcome in admitted:
            _save_file(outcome.picture)
            saved.append(outcome.picture)
        # Inside an outer transaction, searches would find vectors of rows that may be rolled back.
        with journal.changes(durable=True):
            persons = _persons(outcome.upload for outcome in admitted)
            by_id = defaultdict(list)
            for outcome in admitted:
                person_id = clean_person_id(outcome.upload.person_id)
                outcome.picture.person = persons[person_id]
                by_id[person_id].append(outcome.picture)
            FaceImage.objects.bulk_create(saved)
            _journal_added(saved)
            for person_id, pictures in by_id.items():
                if persons[person_id].person_id != person_id:
                    note_pictures(person_id, pictures)
            crops = {outcome.picture.pk: outcome.face_crop for outcome in admitted}
            return index.create_pending(saved, usable_names(), crops)
    except BaseException as error:
        _discard_files(saved)
        keys = [picture.upload_key for picture in saved if picture.upload_key]
        if (
            isinstance(error, IntegrityError)
            and FaceImage.objects.filter(upload_key__in=keys).exists()
        ):
            raise UploadStored from error
        raise


def _save_file(picture: FaceImage) -> None:
    try:
        picture.image.save(picture.image.name or "picture", picture.image.file, save=False)
    except Exception as error:  # noqa: BLE001 (each storage fails with classes of its own)
        logger.exception("The storage refuses a picture")
        raise StorageUnavailable(
            gettext(
                "The storage of the pictures cannot be written to, so nothing was enrolled. Have the "
                "administrator check its free space, its rights or its address, then send it again."
            )
        ) from error


def _persons(uploads: Iterable[Upload]) -> dict[str, Person]:
    """Return the persons of the uploads by id, locked; create the new ones."""
    by_id = {clean_person_id(upload.person_id): upload for upload in uploads}
    if len(by_id) > 1:  # in the order of their keys, as corrections do: so neither ever deadlocks
        lock_rows(Person.objects.filter(person_id__in=by_id))
    found = {}
    for person_id, upload in sorted(by_id.items()):
        given = {name: upload.details[name] for name in DETAILS if name in upload.details}
        details = None if upload.is_known else {"name": upload.name, **given}
        found[person_id], is_new = person_for(person_id, details)
        if is_new:
            journal.record(journal.Action.CREATED, person=found[person_id])
            record_first_consent(found[person_id], upload.details)
    return found


def _journal_added(pictures: Iterable[FaceImage]) -> None:
    """Journal the new pictures, one line for each person."""
    by_person: dict[Person, list[FaceImage]] = {}
    for picture in pictures:
        by_person.setdefault(picture.person, []).append(picture)
    for person, theirs in by_person.items():
        facts = journal.pictures(picture.pk for picture in theirs)
        facts["source"] = theirs[0].source
        journal.record(journal.Action.PICTURES_ADDED, person=person, facts=facts)


def _discard_files(pictures: Sequence[FaceImage]) -> None:
    """Delete the files of pictures that have no row.

    The rows may be there: a connection that breaks during the commit does not tell. If SQL cannot be
    asked either, the files stay, and `reindex` removes those without a row.
    """
    names = [picture.image.name for picture in pictures]
    try:
        stored = set(FaceImage.objects.filter(image__in=names).values_list("image", flat=True))
    except DatabaseError:
        logger.exception(
            "The files of pictures that may not be stored stay for now: %s", few(names)
        )
        return
    for picture in pictures:
        if picture.image.name in stored:
            continue
        try:
            picture.image.storage.delete(picture.image.name or "")
        except Exception:  # noqa: BLE001 (the first failure is the one to report)
            logger.exception("The file %s of a refused picture stays for now", picture.image)
            with suppress(DatabaseError):  # `reindex` finds files that could not be recorded
                note_removals(files=[picture.image.name or ""])


def _attach_results(stored: Iterable[Outcome]) -> None:
    outcomes = {outcome.picture.pk: outcome for outcome in stored}
    for row in FaceEmbedding.objects.filter(face_image__in=outcomes):
        outcomes[row.face_image_id].embeddings.append(row)
    judged_at = dict(FaceImage.objects.filter(pk__in=outcomes).values_list("pk", "judged_at"))
    doubts = doubts_of(outcomes)
    for pk, outcome in outcomes.items():
        outcome.doubts, outcome.judged = doubts[pk], judged_at.get(pk) is not None
        if pk not in judged_at:
            outcome.error, outcome.face_image = _gone(outcome.picture), None


def _gone(picture: FaceImage) -> PictureNotFound:
    """Return the error for a picture that was deleted before this call could return it."""
    message = gettext("%(person)s has no picture %(id)d, or not any more.")
    return PictureNotFound(message % {"person": picture.person, "id": picture.pk})


def sync_again(face_images: Iterable[FaceImage]) -> index.IndexReport:
    """Complete these pictures: create missing rows, compute vectors, copy them to Milvus.

    Pending removals are tried again too.
    """
    index.remove_deleted.enqueue()
    report = index.IndexReport()
    for pictures in index.batches(face_images, index.BATCH_SIZE):
        index.complete_rows(pictures)
        rows = FaceEmbedding.objects.filter(face_image__in=pictures)
        report += index.index_rows(list(rows.values_list("pk", flat=True)))
    return report
