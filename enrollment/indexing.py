"""How a row becomes a vector that a search can find, and stops being one.

SQL is written first: an embedding's row is `pending` before anything is computed, a deletion is a
row until Milvus has done it. So whatever is cut off leaves a row that says what is still to do.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext
from django_tasks import task

from enrollment import doubts
from enrollment.models import FaceEmbedding, FaceImage, VectorDeletion
from recognition.embedding import FaceCrop, crop_uploads, embed_crops
from recognition.exceptions import RecognitionError
from recognition.networks import find_weights, usable_names
from recognition.vector_store import VectorRow, get_vector_store, partition_name

logger = logging.getLogger(__name__)

BATCH_SIZE = (
    64  # embeddings computed and written at a time: bounds memory, and what a crash repeats
)
DELETIONS_AT_A_TIME = 1_000

# Within a process one thread at a time copies rows to Milvus, so that what was read is still true
# when it is written. Between processes `reindex` compares and mends.
_writing = threading.RLock()

Status = FaceEmbedding.Status


@dataclass(frozen=True, slots=True)
class IndexReport:
    indexed: int = 0
    failed: int = 0

    def __add__(self, other: IndexReport) -> IndexReport:
        return IndexReport(self.indexed + other.indexed, self.failed + other.failed)


# Asking for work, within the transaction that makes it necessary


def create_pending(face_images: Iterable[FaceImage], models: Iterable[str]) -> list[int]:
    """Pending rows for the pictures, one for each model; returns their ids."""
    weights = {name: find_weights(name).fingerprint for name in models}
    rows = FaceEmbedding.objects.bulk_create(
        FaceEmbedding(face_image=face_image, model=model, fingerprint=fingerprint)
        for face_image in face_images
        for model, fingerprint in weights.items()
    )
    return [row.pk for row in rows]


def complete_rows(face_images: Sequence[FaceImage]) -> list[int]:
    """Pending rows for the models, as their weights are now, that the pictures lack; their ids.

    Rows that wait for a vector of weights that were replaced since go: nothing can compute it now.
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


def request_embeddings(face_images: Iterable[FaceImage]) -> None:
    """Has the pictures embedded by every model that has weights, after the commit."""
    _enqueue_after_commit(create_pending(face_images, usable_names()))


def request_upsert(embeddings: models.QuerySet[FaceEmbedding]) -> None:
    """Has Milvus told again what SQL now says of these embeddings, after the commit.

    Their pictures may be another person's now, so they are judged again.
    """
    ids = list(embeddings.values_list("pk", flat=True))
    FaceImage.objects.filter(pk__in=embeddings.values("face_image")).update(judged_at=None)
    embeddings.update(status=Status.PENDING)
    _enqueue_after_commit(ids)


def request_deletion(embedding: FaceEmbedding) -> None:
    """Notes that Milvus must forget the vector, and has it told after the commit."""
    VectorDeletion.objects.create(
        embedding_id=embedding.pk,
        partition=partition_name(embedding.model, embedding.fingerprint),
    )
    _once_after_commit(delete_vectors.enqueue)


def _once_after_commit(work: Callable[[], object]) -> None:
    """Deleting a person with a thousand pictures must not call Milvus a thousand times.

    What was asked for within a savepoint that is still open, or outside of any, will run if this does.
    """
    connection = transaction.get_connection()
    open_savepoints = set(connection.savepoint_ids)
    waiting = (
        func
        for savepoints, func, _robust in connection.run_on_commit
        if savepoints <= open_savepoints
    )
    if work not in waiting:
        transaction.on_commit(work, robust=True)


def _enqueue_after_commit(ids: list[int]) -> None:
    if ids:
        transaction.on_commit(partial(index_embeddings.enqueue, ids), robust=True)


# Doing it, after the commit


@task()
def index_embeddings(ids: list[int]) -> None:
    """Computes what is missing of these embeddings and copies them to Milvus."""
    index(ids)


@task()
def delete_vectors() -> None:
    """Has Milvus forget every vector whose row is gone; leaves the note when it cannot."""
    try:
        apply_deletions()
    except RecognitionError:
        logger.exception("Vectors of deleted pictures stay in Milvus until it answers again")


def index(ids: Sequence[int], crops: Mapping[int, FaceCrop] | None = None) -> IndexReport:
    """Computes what is missing of these embeddings, copies them to Milvus, and marks them indexed.

    Then it judges the pictures that are new, or whose vectors are, see `enrollment.doubts`.
    `crops` (by picture id) spares finding faces that the caller has just found. A failure marks its
    row and does not stop the others; rows deleted meanwhile are passed over.
    """
    report = IndexReport()
    for start in range(0, len(ids), BATCH_SIZE):
        report += _index_batch(ids[start : start + BATCH_SIZE], crops or {})
    return report


def compute(ids: Sequence[int]) -> dict[int, str]:
    """Computes what is missing of these embeddings and leaves them pending, for whoever has Milvus.

    Returns why, by id, for those that have no vector.
    """
    failures = _compute([row for row in _with_pictures(ids) if row.vector is None], {})
    _mark_failed(failures)
    return failures


def _with_pictures(ids: Sequence[int]) -> list[FaceEmbedding]:
    rows = FaceEmbedding.objects.filter(pk__in=ids).select_related("face_image")
    return list(rows.order_by("model", "face_image_id"))


def _mark_failed(failures: Mapping[int, str]) -> None:
    for pk, message in failures.items():
        FaceEmbedding.objects.filter(pk=pk).update(status=Status.FAILED, error=message)


def _index_batch(ids: Sequence[int], crops: Mapping[int, FaceCrop]) -> IndexReport:
    rows = _with_pictures(ids)
    new = [row for row in rows if row.vector is None]
    failures = _compute(new, crops)
    ready = [row for row in rows if row.pk not in failures]
    try:
        indexed = _copy_to_milvus([row.pk for row in ready])
    except RecognitionError as error:
        logger.exception("Embeddings %s were not written to Milvus", [row.pk for row in ready])
        failures |= {row.pk: str(error) for row in ready}
        indexed = 0
    else:
        doubts.judge(
            {row.face_image_id for row in ready if row in new or not row.face_image.judged_at}
        )
    _mark_failed(failures)
    return IndexReport(indexed, len(failures))


def _compute(rows: list[FaceEmbedding], crops: Mapping[int, FaceCrop]) -> dict[int, str]:
    """Fills and saves the vectors of the rows; returns why, by id, for those that have none."""
    known = dict(crops)
    pictures = {row.face_image_id: row.face_image for row in rows}
    missing = [picture for pk, picture in pictures.items() if pk not in known]
    found, broken = find_faces(missing)
    known |= found
    doubts.note_quality({pk: known[pk] for pk in pictures if pk in known})
    failures = {row.pk: broken[row.face_image_id] for row in rows if row.face_image_id in broken}
    left = [row for row in rows if row.pk not in failures]
    for model, group in groupby(left, key=lambda row: row.model):
        failures |= _embed(model, list(group), known)
    return failures


def find_faces(pictures: Sequence[FaceImage]) -> tuple[dict[int, FaceCrop], dict[int, str]]:
    """The crop of each stored picture, and why there is none for the others, both by picture id."""
    crops: dict[int, FaceCrop] = {}
    broken: dict[int, str] = {}
    for detect in (True, False):
        read: list[int] = []
        files = _files([p for p in pictures if p.use_face_detection == detect], read, broken)
        for index, item in enumerate(crop_uploads(files, detect=detect)):
            if isinstance(item, RecognitionError):
                broken[read[index]] = str(item)
            else:
                crops[read[index]] = item.crop
    return crops, broken


def _files(
    pictures: Iterable[FaceImage], read: list[int], broken: dict[int, str]
) -> Iterator[tuple[None, bytes]]:
    """The pictures' bytes; notes the ids of those read, and why the others could not be."""
    for picture in pictures:
        try:
            content = read_picture(picture)
        except PictureMissing as error:
            broken[picture.pk] = str(error)
            continue
        read.append(picture.pk)
        yield None, content


class PictureMissing(RecognitionError):
    """The storage does not give the picture's file."""

    code = "picture_missing"


def read_picture(picture: FaceImage) -> bytes:
    """The stored file; `PictureMissing` when the storage cannot give it."""
    try:
        with picture.image.open("rb") as file:
            return file.read()
    except Exception as error:  # noqa: BLE001 (each storage fails with classes of its own)
        logger.exception("Picture %s cannot be read from its storage", picture.pk)
        raise PictureMissing(
            gettext(
                "The stored file of this picture cannot be read. Bring it back from a backup or delete "
                "the picture, then run 'manage.py reindex'."
            )
        ) from error


def _embed(model: str, rows: list[FaceEmbedding], crops: Mapping[int, FaceCrop]) -> dict[int, str]:
    try:
        embeddings = embed_crops([crops[row.face_image_id].pixels for row in rows], model)
    except RecognitionError as error:
        logger.exception("Pictures %s were not embedded", [row.face_image_id for row in rows])
        return {row.pk: str(error) for row in rows}
    failures = {}
    for row, vector in zip(rows, embeddings.vectors, strict=True):
        if row.fingerprint != embeddings.fingerprint:
            failures[row.pk] = gettext(
                "The weights file was replaced meanwhile. Run 'manage.py reindex'."
            )
            continue
        row.array = vector
        crop = crops[row.face_image_id]
        row.face_detected, row.face = crop.face is not None, crop.face_record()
    done = [row for row in rows if row.pk not in failures]
    with transaction.atomic():
        FaceEmbedding.objects.bulk_update(done, ["vector", "face_detected", "face"])
    return failures


def _copy_to_milvus(ids: list[int]) -> int:
    """Upserts the rows as SQL has them now and marks them; returns how many are indexed."""
    computed = FaceEmbedding.objects.filter(pk__in=ids, vector__isnull=False)
    with _writing:
        rows = list(computed.select_related("face_image__person"))
        by_partition = defaultdict(list)
        for row in rows:
            by_partition[partition_name(row.model, row.fingerprint)].append(row)
        store = get_vector_store()
        for partition, group in by_partition.items():
            store.upsert(partition, [vector_row(row) for row in group])
        written = FaceEmbedding.objects.filter(pk__in=[row.pk for row in rows])
        indexed = written.update(status=Status.INDEXED, error="", indexed_at=timezone.now())
        if indexed < len(rows):
            _forget_vanished(by_partition)
        return indexed


def vector_row(row: FaceEmbedding) -> VectorRow:
    """What Milvus holds of an embedding; needs `face_image__person`."""
    return VectorRow(
        id=row.pk,
        embedding=row.array,
        person_id=row.face_image.person.person_id,
        image_path=row.face_image.original_path,
        created_at=row.face_image.created_at.isoformat(),
    )


def _forget_vanished(by_partition: Mapping[str, list[FaceEmbedding]]) -> None:
    """Takes back the vectors of rows that were deleted while they were being written."""
    for partition, rows in by_partition.items():
        ids = {row.pk for row in rows}
        there = set(FaceEmbedding.objects.filter(pk__in=ids).values_list("pk", flat=True))
        get_vector_store().delete(partition, ids - there)


def apply_deletions() -> int:
    """Has Milvus forget the vectors noted for deletion; returns how many it was told."""
    applied = 0
    with _writing:
        while notes := list(VectorDeletion.objects.order_by("pk")[:DELETIONS_AT_A_TIME]):
            by_partition = defaultdict(list)
            for note in notes:
                by_partition[note.partition].append(note.embedding_id)
            for partition, ids in by_partition.items():
                get_vector_store().delete(partition, ids)
            VectorDeletion.objects.filter(pk__in=[note.pk for note in notes]).delete()
            applied += len(notes)
    return applied
