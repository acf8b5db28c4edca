"""Rows become vectors; when something prevents that, the row says why."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from django.utils import translation

from enrollment.enrolling.services import sync_again
from enrollment.gallery import storage
from enrollment.index import indexing, removals
from enrollment.index.indexing import IndexReport
from enrollment.models import FaceEmbedding, FaceImage, Person, Removal
from recognition.conf import get_settings
from recognition.embedding import crop_upload, embed_crops
from recognition.exceptions import DetectorUnavailable
from recognition.networks import find_weights
from recognition.vector_store import get_vector_store, partition_name
from tests.enrollment.gallery import MODEL, enroll, found, stored, vector_row

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]
Status = FaceEmbedding.Status


@pytest.fixture
def row(picture) -> FaceEmbedding:
    """A pending embedding of an enrolled picture, as after a crash before the computation."""
    row = enroll("ana", picture).outcomes[0].embeddings[0]
    get_vector_store().delete(partition_name(row.model, row.fingerprint), [row.pk])
    FaceEmbedding.objects.update(
        vector=None, face_detected=None, status=Status.PENDING, indexed_at=None
    )
    row.refresh_from_db()
    return row


@pytest.fixture
def own_weights(settings, tmp_path: Path) -> Path:
    """A copy of the weights folder that the test may change."""
    source = find_weights(MODEL).path
    folder = tmp_path / "weights"
    folder.mkdir()
    # Other weights would have to be converted for OpenVINO, which takes seconds.
    own = {"WEIGHTS_DIR": folder, "NETWORK_RUNTIME": "torch"}
    settings.RECOGNITION = settings.RECOGNITION | own
    return Path(shutil.copy(source, folder))


def replace_weights(file: Path) -> str:
    """Replace the file by other valid weights; return their fingerprint."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    save_file(tensors | {name: tensors[name] * 1.01}, file)
    return find_weights(MODEL).fingerprint


def test_pending_row_becomes_a_vector_that_is_found(row, picture):
    assert indexing.index_rows([row.pk]) == IndexReport(indexed=1)
    row.refresh_from_db()
    assert (row.status, row.error, row.face_detected) == (Status.INDEXED, "", False)
    assert row.indexed_at is not None
    assert [hit.id for hit in stored()] == [row.pk]
    assert found(picture) == ["ana"]


def test_vector_equals_a_fresh_computation_of_the_stored_file(row):
    indexing.index_rows([row.pk])
    row.refresh_from_db()
    (crop,) = crop_upload(storage.read_picture(row.face_image))
    fresh = embed_crops([crop.pixels], MODEL)
    assert row.fingerprint == fresh.fingerprint
    assert row.array.shape == (512,)
    np.testing.assert_allclose(row.array, fresh.vectors[0], atol=1e-6)
    assert np.linalg.norm(row.array) == pytest.approx(1, abs=1e-5)


def test_indexing_twice_changes_nothing(row):
    indexing.index_rows([row.pk])
    before = stored()
    assert indexing.index_rows([row.pk, row.pk + 1000]) == IndexReport(indexed=1)
    assert stored() == before


def test_rows_deleted_meanwhile_are_passed_over(row):
    FaceEmbedding.objects.filter(pk=row.pk).delete()
    Removal.objects.all().delete()
    assert indexing.index_rows([row.pk]) == IndexReport()
    assert stored() == []


def test_row_without_a_vector_is_never_called_indexed(row):
    assert indexing._copy_to_milvus([row.pk]) == 0
    row.refresh_from_db()
    assert row.status == Status.PENDING


def test_missing_file_marks_the_row_and_stops_no_other(row, draw_picture):
    other = enroll("bia", draw_picture(seed=7)).outcomes[0].embeddings[0]
    row.face_image.image.storage.delete(row.face_image.image.name)
    assert indexing.index_rows([row.pk, other.pk]) == IndexReport(indexed=1, failed=1)
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.FAILED, "picture_missing")
    assert "backup" in row.error_message
    assert str(get_settings().weights_dir.parent) not in row.error_message


def test_storage_that_fails_is_told_from_a_missing_file(row):
    path = Path(row.face_image.image.path)
    path.unlink()
    path.mkdir()
    assert indexing.index_rows([row.pk]) == IndexReport(failed=1)
    row.refresh_from_db()
    assert row.error == "storage_unavailable"


def test_failure_is_told_in_the_language_of_the_reader_not_of_the_request_that_met_it(row):
    row.face_image.image.storage.delete(row.face_image.image.name)
    with translation.override("pt-br"):
        indexing.index_rows([row.pk])
        row.refresh_from_db()
        assert "de um backup" in row.error_message
    with translation.override("en"):
        assert "Bring it back from a backup" in row.error_message


def test_sentence_that_an_older_version_stored_is_shown_as_it_is():
    assert FaceEmbedding(error="The disk was full.").error_message == "The disk was full."


class AbsentDetector:
    def detect(self, image, min_score):
        raise DetectorUnavailable("It is not installed.")


def test_absent_detector_fails_the_pictures_that_need_it_and_stops_no_other(
    row, draw_picture, settings
):
    other = enroll("bia", draw_picture(seed=7), use_face_detection=False).outcomes[0].embeddings[0]
    FaceImage.objects.filter(pk=row.face_image_id).update(use_face_detection=True)
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": f"{__name__}.AbsentDetector"}
    assert indexing.index_rows([row.pk, other.pk]) == IndexReport(indexed=1, failed=1)
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.FAILED, "detector_unavailable")


def test_failure_that_nobody_foresaw_stops_no_other(row, draw_picture, caplog):
    """One such row used to keep all later rows from Milvus, in every attempt."""
    other = enroll("bia", draw_picture(seed=7)).outcomes[0].embeddings[0]
    Person.objects.filter(person_id="ana").update(person_id="😀" * 201)  # more than Milvus takes
    assert indexing.index_rows([row.pk, other.pk]) == IndexReport(indexed=1, failed=1)
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.FAILED, "unexpected")
    caplog.clear()
    with caplog.at_level("ERROR"):
        assert indexing.index_rows([row.pk]) == IndexReport(failed=1)
    assert len(caplog.records) == 1  # it is tried once; there is no other that it could stop
    Person.objects.filter(face_images=row.face_image).update(person_id="ana")
    assert indexing.index_rows([row.pk]) == IndexReport(indexed=1)


@pytest.fixture
def meanwhile(monkeypatch):
    """Run an action of another process once, between the upsert to Milvus and the marking of rows."""

    def arrange(work) -> None:
        store = get_vector_store()
        upsert, left = store.upsert, [work]

        def told(*arguments) -> None:
            upsert(*arguments)
            while left:
                left.pop()()

        monkeypatch.setattr(store, "upsert", told)

    return arrange


def test_person_renamed_by_another_process_while_the_vector_is_written(row, meanwhile):
    """Milvus used to keep the old id although the row said indexed."""
    meanwhile(lambda: Person.objects.update(person_id="bia"))
    assert indexing.index_rows([row.pk]) == IndexReport(indexed=1)
    assert [hit.person_id for hit in stored()] == ["bia"]
    row.refresh_from_db()
    assert row.status == Status.INDEXED


def test_row_deleted_by_another_process_while_the_vector_is_written(row, meanwhile):
    def delete() -> None:
        Person.objects.all().delete()
        removals.apply_deletions()
        get_vector_store().upsert(*late)

    late = (
        partition_name(row.model, row.fingerprint),
        [vector_row(computed(row))],
    )
    meanwhile(delete)
    assert indexing.index_rows([row.pk]) == IndexReport()
    assert stored() == [] and not Removal.objects.filter(file="").exists()


def test_row_restored_by_another_process_before_its_vector_is_deleted(row, meanwhile, monkeypatch):
    """It was called indexed, and no search found it."""
    restored, store = computed(row), get_vector_store()
    delete = store.delete

    def restore_first(partition, ids) -> None:
        if ids and not FaceEmbedding.objects.exists():
            restored.save(force_insert=True)
            indexing.index_rows([restored.pk])
        delete(partition, ids)

    monkeypatch.setattr(store, "delete", restore_first)
    meanwhile(lambda: FaceEmbedding.objects.filter(pk=row.pk)._raw_delete("default"))
    indexing.index_rows([row.pk])
    assert [hit.id for hit in stored()] == [row.pk]
    assert FaceEmbedding.objects.get().status == Status.INDEXED


def computed(row: FaceEmbedding) -> FaceEmbedding:
    row.array = np.eye(512, dtype=np.float32)[0]
    return row


def test_vanished_weights_fail_with_the_way_out_and_are_mended(row, own_weights):
    hidden = own_weights.rename(own_weights.with_suffix(".away"))
    assert indexing.index_rows([row.pk]) == IndexReport(failed=1)
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.FAILED, "weights_unavailable")
    hidden.rename(own_weights)
    assert sync_again([row.face_image]) == IndexReport(indexed=1)


def test_weights_replaced_meanwhile_never_fill_the_old_row(row, own_weights):
    new = replace_weights(own_weights)
    assert indexing.index_rows([row.pk]) == IndexReport(failed=1)
    row.refresh_from_db()
    assert (row.status, row.vector) == (Status.FAILED, None)
    assert row.error == "weights_replaced"
    assert stored() == []

    assert sync_again([row.face_image]) == IndexReport(indexed=1)
    current = FaceEmbedding.objects.get()
    assert (current.fingerprint, current.status) == (new, Status.INDEXED)
    assert [hit.id for hit in stored()] == [current.pk]


def test_milvus_away_keeps_row_and_file_and_sync_again_mends(settings, tmp_path, picture):
    working = settings.RECOGNITION
    (tmp_path / "file").write_text("no database")
    settings.RECOGNITION = working | {"MILVUS_URI": str(tmp_path / "file")}
    outcome = enroll("ana", picture).outcomes[0]
    row = FaceEmbedding.objects.get()
    assert outcome.error is None
    assert (row.status, row.error) == (Status.FAILED, "vector_store_unavailable")
    assert row.vector is not None
    assert row.face_image.image.storage.exists(row.face_image.image.name)

    settings.RECOGNITION = working
    assert found(picture) == []
    assert sync_again(FaceImage.objects.all()) == IndexReport(indexed=1)
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.INDEXED, "")
    assert found(picture) == ["ana"]


def test_deletions_wait_until_milvus_is_back(settings, tmp_path, picture):
    row = enroll("ana", picture).outcomes[0].embeddings[0]
    working = settings.RECOGNITION
    (tmp_path / "file").write_text("no database")
    settings.RECOGNITION = working | {"MILVUS_URI": str(tmp_path / "file")}
    Person.objects.all().delete()
    removals.remove_deleted.enqueue()
    assert Removal.objects.get().embedding_id == row.pk

    settings.RECOGNITION = working
    assert [hit.id for hit in stored()] == [row.pk]
    assert found(picture) == []
    assert removals.apply_deletions() == 1
    assert stored() == [] and not Removal.objects.exists()


def test_many_deletions_are_applied_in_steps(monkeypatch, draw_picture):
    monkeypatch.setattr(removals, "AT_A_TIME", 2)
    enroll("ana", *(draw_picture(seed=n) for n in range(5)))
    Person.objects.all().delete()
    assert removals.apply_deletions() == 5
    assert stored() == []


def test_picture_is_indexed_for_weights_that_came_later(own_weights, picture):
    hidden = own_weights.rename(own_weights.with_suffix(".away"))
    face_image = enroll("ana", picture).outcomes[0].face_image
    assert not face_image.embeddings.exists()
    hidden.rename(own_weights)
    assert sync_again([face_image]) == IndexReport(indexed=1)
    assert found(picture) == ["ana"]
