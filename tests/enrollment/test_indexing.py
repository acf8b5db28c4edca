"""Rows become vectors; and whatever prevents that leaves a row that says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from enrollment import indexing
from enrollment.indexing import IndexReport
from enrollment.models import FaceEmbedding, FaceImage, Person, VectorDeletion
from enrollment.services import sync_again
from recognition.conf import get_settings
from recognition.embedding import crop_uploads, embed_crops
from recognition.networks import find_weights
from recognition.vector_store import get_vector_store, partition_name
from tests.enrollment.gallery import MODEL, enrol, found, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]
Status = FaceEmbedding.Status


@pytest.fixture
def row(picture) -> FaceEmbedding:
    """The pending embedding of an enrolled picture, as a crash before the computation leaves it."""
    row = enrol("ana", picture).outcomes[0].embeddings[0]
    get_vector_store().delete(partition_name(row.model, row.fingerprint), [row.pk])
    FaceEmbedding.objects.update(
        vector=None, face_detected=None, status=Status.PENDING, indexed_at=None
    )
    row.refresh_from_db()
    return row


@pytest.fixture
def own_weights(settings, tmp_path: Path) -> Path:
    """A weights folder of the test's own, with the bundled file in it."""
    source = find_weights(MODEL).path
    folder = tmp_path / "weights"
    folder.mkdir()
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder}
    return Path(shutil.copy(source, folder))


def replace_weights(file: Path) -> str:
    """Puts other, equally fitting weights into the file; returns their fingerprint."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    save_file(tensors | {name: tensors[name] * 1.01}, file)
    return find_weights(MODEL).fingerprint


def test_pending_row_becomes_a_vector_that_is_found(row, picture):
    assert indexing.index([row.pk]) == IndexReport(indexed=1)
    row.refresh_from_db()
    assert (row.status, row.error, row.face_detected) == (Status.INDEXED, "", False)
    assert row.indexed_at is not None
    assert [hit.id for hit in stored()] == [row.pk]
    assert found(picture) == ["ana"]


def test_vector_equals_a_fresh_computation_of_the_stored_file(row):
    indexing.index([row.pk])
    row.refresh_from_db()
    (upload,) = crop_uploads([(None, indexing.read_picture(row.face_image))])
    fresh = embed_crops([upload.crop.pixels], MODEL)
    assert row.fingerprint == fresh.fingerprint
    assert row.array.shape == (512,)
    np.testing.assert_allclose(row.array, fresh.vectors[0], atol=1e-6)
    assert np.linalg.norm(row.array) == pytest.approx(1, abs=1e-5)


def test_indexing_twice_changes_nothing(row):
    indexing.index([row.pk])
    before = stored()
    assert indexing.index([row.pk, row.pk + 1000]) == IndexReport(indexed=1)
    assert stored() == before


def test_rows_deleted_meanwhile_are_passed_over(row):
    FaceEmbedding.objects.filter(pk=row.pk).delete()
    VectorDeletion.objects.all().delete()
    assert indexing.index([row.pk]) == IndexReport()
    assert stored() == []


def test_row_without_a_vector_is_never_called_indexed(row):
    assert indexing._copy_to_milvus([row.pk]) == 0
    row.refresh_from_db()
    assert row.status == Status.PENDING


def test_missing_file_marks_the_row_and_stops_no_other(row, draw_picture):
    other = enrol("bia", draw_picture(seed=7)).outcomes[0].embeddings[0]
    row.face_image.image.storage.delete(row.face_image.image.name)
    assert indexing.index([row.pk, other.pk]) == IndexReport(indexed=1, failed=1)
    row.refresh_from_db()
    assert row.status == Status.FAILED
    assert "backup" in row.error and str(get_settings().weights_dir.parent) not in row.error


def test_vanished_weights_fail_with_the_way_out_and_are_mended(row, own_weights):
    hidden = own_weights.rename(own_weights.with_suffix(".away"))
    assert indexing.index([row.pk]) == IndexReport(failed=1)
    row.refresh_from_db()
    assert row.status == Status.FAILED and "weights" in row.error
    hidden.rename(own_weights)
    assert sync_again([row.face_image]) == IndexReport(indexed=1)


def test_weights_replaced_meanwhile_never_fill_the_old_row(row, own_weights):
    new = replace_weights(own_weights)
    assert indexing.index([row.pk]) == IndexReport(failed=1)
    row.refresh_from_db()
    assert (row.status, row.vector) == (Status.FAILED, None)
    assert "replaced" in row.error
    assert stored() == []

    assert sync_again([row.face_image]) == IndexReport(indexed=1)
    current = FaceEmbedding.objects.get()
    assert (current.fingerprint, current.status) == (new, Status.INDEXED)
    assert [hit.id for hit in stored()] == [current.pk]


def test_milvus_away_keeps_row_and_file_and_sync_again_mends(settings, tmp_path, picture):
    working = settings.RECOGNITION
    (tmp_path / "file").write_text("no database")
    settings.RECOGNITION = working | {"MILVUS_URI": str(tmp_path / "file")}
    outcome = enrol("ana", picture).outcomes[0]
    row = FaceEmbedding.objects.get()
    assert outcome.error is None and row.status == Status.FAILED
    assert "MILVUS_URI" in row.error and str(tmp_path) not in row.error
    assert row.vector is not None
    assert row.face_image.image.storage.exists(row.face_image.image.name)

    settings.RECOGNITION = working
    assert found(picture) == []
    assert sync_again(FaceImage.objects.all()) == IndexReport(indexed=1)
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.INDEXED, "")
    assert found(picture) == ["ana"]


def test_deletions_wait_until_milvus_is_back(settings, tmp_path, picture):
    row = enrol("ana", picture).outcomes[0].embeddings[0]
    working = settings.RECOGNITION
    (tmp_path / "file").write_text("no database")
    settings.RECOGNITION = working | {"MILVUS_URI": str(tmp_path / "file")}
    Person.objects.all().delete()
    indexing.delete_vectors.enqueue()
    assert VectorDeletion.objects.get().embedding_id == row.pk

    settings.RECOGNITION = working
    assert [hit.id for hit in stored()] == [row.pk]
    assert found(picture) == []
    assert indexing.apply_deletions() == 1
    assert stored() == [] and not VectorDeletion.objects.exists()


def test_many_deletions_are_applied_in_steps(monkeypatch, draw_picture):
    monkeypatch.setattr(indexing, "DELETIONS_AT_A_TIME", 2)
    enrol("ana", *(draw_picture(seed=n) for n in range(5)))
    Person.objects.all().delete()
    assert indexing.apply_deletions() == 5
    assert stored() == []


def test_picture_is_indexed_for_weights_that_came_later(own_weights, picture):
    hidden = own_weights.rename(own_weights.with_suffix(".away"))
    face_image = enrol("ana", picture).outcomes[0].face_image
    assert not face_image.embeddings.exists()
    hidden.rename(own_weights)
    assert sync_again([face_image]) == IndexReport(indexed=1)
    assert found(picture) == ["ana"]
