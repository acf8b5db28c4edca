"""Compute embeddings and copy them to Milvus.

SQL is written first: an embedding row is `pending` before anything is computed, and a deletion
stays a row until Milvus has applied it. So after a crash the rows say what is still to do.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

import numpy as np
from django.db import DatabaseError, transaction
from django.utils import timezone
from django_tasks import task

from enrollment import judging
from enrollment.exceptions import PictureMissing, StorageUnavailable
from enrollment.gallery import read_picture
from enrollment.models import FaceEmbedding, FaceImage, lock_rows
from recognition.embedding import Crop, begin_embedding, crop_again, crop_upload, embeddings_of
from recognition.exceptions import RecognitionError
from recognition.log_text import few, first_line
from recognition.lookahead import Crew
from recognition.networks import find_weights, usable_names
from recognition.vector_store import VectorRow, get_vector_store, partition_name

logger = logging.getLogger(__name__)

BATCH_SIZE = 64  # embeddings a batch: limits memory, and the work that is repeated after a crash
COPY_SIZE = 16_384  # embeddings that are there already and only copied, a batch
MARK_SIZE = 4_096  # rows marked in one transaction: for 0.2 s others cannot write to SQLite

# One thread at a time copies rows to the embedded database. To a server other processes copy too, so
# each writer checks afterwards that SQL is unchanged, and the threads of one process need not wait for
# each other: each write takes up to 0.4 s there until all can see it.
writing = threading.RLock()

Status = FaceEmbedding.Status
Failure = FaceEmbedding.Failure


@dataclass(frozen=True, slots=True)
class IndexReport:
    indexed: int = 0
    failed: int = 0

    def __add__(self, other: IndexReport) -> IndexReport:
        return IndexReport(self.indexed + other.indexed, self.failed + other.failed)


# The rows of what is to be computed


def create_pending(
    face_images: Iterable[FaceImage],
    models: Iterable[str],
    crops: Mapping[int, Crop] | None = None,
) -> list[int]:
    """Create a pending row for each picture and model; return the ids.

    The rows store the faces of `crops` (by picture id), so they need not be detected again.
    """
    crops = crops or {}
    weights = {name: find_weights(name).fingerprint for name in models}
    rows = FaceEmbedding.objects.bulk_create(
        FaceEmbedding(
            face_image=face_image,
            model=model,
            fingerprint=fingerprint,
            face=crops[face_image.pk].face_record() if face_image.pk in crops else None,
        )
        for face_image in face_images
        for model, fingerprint in weights.items()
    )
    return [row.pk for row in rows]


def complete_rows(face_images: Sequence[FaceImage]) -> list[int]:
    """Create the pending rows that the pictures lack for the current weights; return the ids.

    Pending rows of replaced weights are deleted, as nothing can compute their vectors any more.
    """
    created: list[int] = []
    for model in usable_names():
        fingerprint = find_weights(model).fingerprint
        rows = FaceEmbedding.objects.filter(face_image__in=face_images, model=model)
        rows.filter(vector=None).exclude(fingerprint=fingerprint).delete()
        current = rows.filter(fingerprint=fingerprint)
        there = set(current.values_list("face_image_id", flat=True))
        created += create_pending([p for p in face_images if p.pk not in there], [model])
    return created


# Doing the work, after the commit


@task()
def index_embeddings(ids: list[int]) -> None:
    """Compute the missing vectors of these embeddings and copy all of them to Milvus."""
    index_rows(ids)


def index_rows(
    ids: Sequence[int],
    crops: Mapping[int, Crop] | None = None,
    *,
    begun: Mapping[int, Future[Crop]] | None = None,
) -> IndexReport:
    """Compute the missing vectors of these embeddings, copy them to Milvus and mark them indexed.

    Pictures that are new or have a new vector are then judged; see `enrollment.judging.doubts`.
    `crops` (by picture id) saves detecting faces again, and so does `begun`, from `begin`. A failure
    marks its row and does not stop the others. Deleted rows are skipped. Only a `DatabaseError` is
    raised; the rows not reached stay pending.
    """
    report = IndexReport()
    for batch in in_batches(ids, BATCH_SIZE, COPY_SIZE):
        report += _index_batch(batch, crops or {}, begun or {})
    return report


def begin(crew: Crew, ids: Sequence[int]) -> dict[int, Future[Crop]]:
    """Begin to crop the pictures whose vectors are missing, and to embed the crops.

    Return the crops to be by picture id, for `index_rows` or `compute`.
    """
    rows = _without_vector(ids)
    pictures, faces = _pictures_and_faces(rows)
    models_of = defaultdict(list)
    for row in rows:
        models_of[row.face_image_id].append(row.model)
    return {
        pk: crew.begin(_begin_picture, picture, faces.get(pk), models_of[pk])
        for pk, picture in pictures.items()
    }


def _begin_picture(picture: FaceImage, face: dict[str, Any] | None, names: list[str]) -> Crop:
    crop = _find_face(picture, face)
    begin_embedding(crop, names)
    return crop


def in_batches(ids: Sequence[int], computed: int, copied: int) -> Iterator[list[int]]:
    """Yield batches for `index_rows`: large ones of `copied` ids whose vectors are there, then small
    ones of `computed` ids whose vectors must be computed."""
    if len(ids) <= min(computed, copied):
        yield list(ids)
        return
    lacking: set[int] = set()
    for start in range(0, len(ids), COPY_SIZE):
        rows = FaceEmbedding.objects.filter(pk__in=ids[start : start + COPY_SIZE])
        lacking.update(rows.filter(vector__isnull=True).values_list("pk", flat=True))
    groups = ([pk for pk in ids if pk not in lacking], copied), (sorted(lacking), computed)
    for group, size in groups:
        for start in range(0, len(group), size):
            yield group[start : start + size]


def compute(ids: Sequence[int], begun: Mapping[int, Future[Crop]]) -> None:
    """Compute the missing vectors and leave the rows pending, for a process that can write to
    Milvus."""
    _mark_failed(_compute(_without_vector(ids), {}, begun))


def _without_vector(ids: Sequence[int]) -> list[FaceEmbedding]:
    rows = FaceEmbedding.objects.filter(pk__in=ids, vector__isnull=True)
    return list(rows.select_related("face_image").order_by("model", "face_image_id"))


def _mark_failed(failures: Mapping[int, str]) -> None:
    by_code = defaultdict(list)
    for pk, code in failures.items():
        by_code[code if code in Failure else Failure.UNEXPECTED].append(pk)
    for known, ids in by_code.items():
        FaceEmbedding.objects.filter(pk__in=ids).update(status=Status.FAILED, error=known)


def _index_batch(
    ids: Sequence[int], crops: Mapping[int, Crop], begun: Mapping[int, Future[Crop]]
) -> IndexReport:
    """Index a batch. If it fails unexpectedly, index its rows one by one, so that one bad row
    blocks no other; those that fail again have one line of the log together."""
    try:
        return _index_rows(ids, crops, begun)
    except DatabaseError:
        raise
    except Exception:  # noqa: BLE001 (see above)
        logger.exception("Embeddings %s were not indexed at once", few(ids))
        if len(ids) == 1:
            _mark_failed(dict.fromkeys(ids, Failure.UNEXPECTED))
            return IndexReport(failed=1)
    report = IndexReport()
    failed: list[int] = []
    cause: Exception | None = None
    for pk in ids:
        try:
            report += _index_rows([pk], crops, begun)
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 (see above)
            failed.append(pk)
            cause = error
    if failed:
        logger.error("Embeddings %s were not indexed", few(failed), exc_info=cause)
        _mark_failed(dict.fromkeys(failed, Failure.UNEXPECTED))
    return report + IndexReport(failed=len(failed))


def _index_rows(
    ids: Sequence[int], crops: Mapping[int, Crop], begun: Mapping[int, Future[Crop]]
) -> IndexReport:
    new = _without_vector(ids)
    failures = _compute(new, crops, begun)
    rows = FaceEmbedding.objects.filter(pk__in=set(ids) - failures.keys()).order_by("pk")
    ready = list(rows.values_list("pk", "face_image_id", "face_image__judged_at"))
    try:
        indexed = _copy_to_milvus([pk for pk, _picture, _judged in ready])
    except RecognitionError as error:
        written = few([pk for pk, _picture, _judged in ready])
        logger.error("Embeddings %s were not written to Milvus: %s", written, first_line(error))
        failures |= {pk: error.code for pk, _picture, _judged in ready}
        indexed = 0
    else:
        computed = {row.pk for row in new}
        to_judge = {picture for pk, picture, judged_at in ready if pk in computed or not judged_at}
        if to_judge:
            judging.judge(to_judge)
    _mark_failed(failures)
    return IndexReport(indexed, len(failures))


def _compute(
    rows: list[FaceEmbedding], crops: Mapping[int, Crop], begun: Mapping[int, Future[Crop]]
) -> dict[int, str]:
    """Compute and save the vectors of the rows; return the `Failure` code by id of those that
    failed."""
    known = dict(crops)
    pictures, faces = _pictures_and_faces(rows)
    missing = [picture for pk, picture in pictures.items() if pk not in known]
    found, broken = find_faces(missing, faces, begun)
    known |= found
    judging.note_quality({pk: known[pk] for pk in pictures if pk in known})
    failures = {row.pk: broken[row.face_image_id] for row in rows if row.face_image_id in broken}
    left = [row for row in rows if row.pk not in failures]
    for model, group in groupby(left, key=lambda row: row.model):
        failures |= _embed(model, list(group), known)
    return failures


def _pictures_and_faces(
    rows: Iterable[FaceEmbedding],
) -> tuple[dict[int, FaceImage], dict[int, dict[str, Any]]]:
    """Return the pictures of the rows, and the faces detected or chosen before, by picture id."""
    pictures = {row.face_image_id: row.face_image for row in rows}
    faces = {row.face_image_id: row.face for row in rows if row.face}
    faces |= {pk: picture.chosen_face for pk, picture in pictures.items() if picture.chosen_face}
    return pictures, faces


def find_faces(
    pictures: Iterable[FaceImage],
    faces: Mapping[int, dict[str, Any]],
    begun: Mapping[int, Future[Crop]],
) -> tuple[dict[int, Crop], dict[int, str]]:
    """Return the crops of stored pictures and the error codes of the others, both by picture id.

    `faces` holds the faces that were detected or chosen before, `begun` the crops that are being
    made, by picture id.
    """
    crops: dict[int, Crop] = {}
    broken: dict[int, str] = {}
    for picture in pictures:
        try:
            coming = begun.get(picture.pk)
            crops[picture.pk] = (
                coming.result() if coming else _find_face(picture, faces.get(picture.pk))
            )
        except RecognitionError as error:
            broken[picture.pk] = error.code
            if not isinstance(error, PictureMissing | StorageUnavailable):
                logger.exception("Picture %s has no crop", picture.pk)
    return crops, broken


def _find_face(picture: FaceImage, face: dict[str, Any] | None) -> Crop:
    content = read_picture(picture)
    if face:
        return crop_again(content, face)
    (crop,) = crop_upload(
        content, use_face_detection=picture.use_face_detection, on_several_faces="largest"
    )
    return crop


def _embed(model: str, rows: list[FaceEmbedding], crops: Mapping[int, Crop]) -> dict[int, str]:
    try:
        embeddings = embeddings_of([crops[row.face_image_id] for row in rows], model)
    except RecognitionError as error:
        logger.exception("Pictures %s were not embedded", few([row.face_image_id for row in rows]))
        return {row.pk: error.code for row in rows}
    failures: dict[int, str] = {}
    for row, vector in zip(rows, embeddings.vectors, strict=True):
        if row.fingerprint != embeddings.fingerprint:
            failures[row.pk] = Failure.WEIGHTS_REPLACED
            continue
        row.array = vector
        crop = crops[row.face_image_id]
        row.face_detected, row.face = crop.face is not None, crop.face_record()
    done = [row for row in rows if row.pk not in failures]
    with transaction.atomic():
        FaceEmbedding.objects.bulk_update(done, ["vector", "face_detected", "face"])
    return failures


_SENT: Final = "face_image__person__person_id", "face_image__original_path"
_COPIED: Final = "model", "fingerprint", "pk", "vector", "face_image__created_at", *_SENT


def _copy_to_milvus(ids: Iterable[int]) -> int:
    """Upsert the rows to Milvus as they are in SQL and mark them; return how many are indexed."""
    computed = FaceEmbedding.objects.filter(pk__in=ids, vector__isnull=False)
    store = get_vector_store()
    with writing if store.is_embedded else nullcontext():
        by_partition: defaultdict[str, list[VectorRow]] = defaultdict(list)
        for model, fingerprint, *values in computed.order_by("pk").values_list(*_COPIED):
            by_partition[partition_name(model, fingerprint)].append(_vector_row(*values))
        for partition, rows in by_partition.items():
            store.upsert(partition, rows)
        sent = {
            row.id: (row.person_id, row.image_path)
            for rows in by_partition.values()
            for row in rows
        }
        there, indexed = _mark_indexed(sent)
        if there < sent.keys():
            # Deleted meanwhile: Milvus may have applied the deletion before this upsert.
            for partition, rows in by_partition.items():
                store.delete(partition, {row.id for row in rows} - there)
        # What was deleted may have been restored before its vector went: of it, too, SQL says what is so.
        changed = sent.keys() - indexed
        return len(indexed) + (_copy_to_milvus(changed) if changed else 0)


def _mark_indexed(sent: Mapping[int, tuple[str, str]]) -> tuple[set[int], set[int]]:
    """Mark the rows that SQL still has as they were sent; return the existing ids and the marked
    ids."""
    there, indexed, ids = set[int](), set[int](), list(sent)
    for start in range(0, len(ids), MARK_SIZE):
        rows = FaceEmbedding.objects.filter(pk__in=ids[start : start + MARK_SIZE])
        with transaction.atomic():
            there.update(lock_rows(rows))
            same = {pk for pk, *now in rows.values_list("pk", *_SENT) if sent[pk] == tuple(now)}
            FaceEmbedding.objects.filter(pk__in=same).update(
                status=Status.INDEXED, error="", indexed_at=timezone.now()
            )
        indexed |= same
    return there, indexed


def _vector_row(
    pk: int, vector: bytes, created_at: datetime, person_id: str, image_path: str
) -> VectorRow:
    return VectorRow(
        pk, np.frombuffer(vector, "<f4"), person_id, image_path, created_at.isoformat()
    )
