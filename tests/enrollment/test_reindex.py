"""`manage.py reindex`: every difference between SQL and its copies is reported and repaired."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command

from enrollment.enrolling import add_consent
from enrollment.enrolling.inspection import Upload
from enrollment.enrolling.services import enroll_pictures
from enrollment.gallery.selectors import search_gallery
from enrollment.index import index_rows
from enrollment.models import FaceEmbedding, FaceImage, Person, Removal, today
from enrollment.upkeep import Kind, reconcile
from recognition.embedding import crop_upload, embed_crops
from recognition.inference import Embeddings
from recognition.networks import find_weights
from recognition.vector_store import get_vector_store, partition_name, reset_vector_store
from tests.commands import run
from tests.conftest import REAL_MILVUS
from tests.enrollment.gallery import vector_row
from tests.enrollment.holder import held_by_another_process

pytestmark = pytest.mark.django_db(transaction=True)
MODEL = "mobilenetv3_large"
OLD = "0123456789abcdef"
PDF = b"%PDF-1.4 a consent"


@pytest.fixture
def gallery(draw_picture, weights) -> list[FaceEmbedding]:
    """Three indexed pictures of two persons."""
    for person, seeds in {"ana": (1, 2), "bia d'Água %": (3,)}.items():
        uploads = [
            Upload(person, f"{seed}.jpg", draw_picture(seed=seed), f"{person}/{seed}.jpg")
            for seed in seeds
        ]
        enroll_pictures(uploads, source="api", use_face_detection=False)
    rows = list(FaceEmbedding.objects.all())
    assert [row.status for row in rows] == ["indexed"] * 3
    return rows


def partition() -> str:
    return partition_name(MODEL, find_weights(MODEL).fingerprint)


def stored() -> dict[str, list]:
    """Return everything in Milvus, by partition."""
    store = get_vector_store()
    return {
        name: sorted((row.id, row.person_id, row.image_path) for row in store.iterate(name))
        for name in store.partitions()
    }


def rows_of_sql() -> list:
    return [
        *FaceEmbedding.objects.order_by("pk").values_list(),
        *FaceImage.objects.order_by("pk").values_list(),
        *Removal.objects.order_by("pk").values_list(),
    ]


def files() -> list[str]:
    root = Path(default_storage.location)
    return sorted(str(path) for path in root.rglob("*") if path.is_file())


def reindex(*arguments: str) -> str:
    return run("reindex", *arguments)


def found() -> dict[Kind, int]:
    return {kind: item.count for kind, item in reconcile(mend=False).found.items()}


def finds_itself(row: FaceEmbedding) -> bool:
    row.refresh_from_db()
    probe = Embeddings(row.array[None], row.model, row.fingerprint)
    return search_gallery(probe, 1)[0][0].id == row.pk


def loses_vector(rows):
    get_vector_store().delete(partition(), [rows[0].pk])


def loses_partition(rows):
    get_vector_store().drop_partition(partition())


def gets_stray(rows):
    row = FaceEmbedding.objects.select_related("face_image__person").get(pk=rows[0].pk)
    row.pk = 10**9
    get_vector_store().upsert(partition(), [vector_row(row)])


def gets_stray_partition(rows):
    row = FaceEmbedding.objects.select_related("face_image__person").get(pk=rows[0].pk)
    row.pk = 10**9
    get_vector_store().upsert(partition_name(MODEL, OLD), [vector_row(row)])


def moves_partition(rows):
    row = FaceEmbedding.objects.select_related("face_image__person").get(pk=rows[0].pk)
    get_vector_store().delete(partition(), [row.pk])
    get_vector_store().upsert(partition_name("cosface_resnet50", OLD), [vector_row(row)])


def is_renamed_unseen(rows):
    Person.objects.filter(person_id="ana").update(person_id="ana maria")


def path_changes_unseen(rows):
    FaceImage.objects.filter(pk=rows[2].face_image_id).update(original_path="elsewhere.jpg")


def is_pending(rows):
    FaceEmbedding.objects.filter(pk=rows[1].pk).update(status="pending")


def has_failed_without_vector(rows):
    loses_vector(rows)
    FaceEmbedding.objects.filter(pk=rows[0].pk).update(status="failed", error="x", vector=None)


def lacks_embedding(rows):
    FaceEmbedding.objects.filter(pk=rows[0].pk)._raw_delete("default")


def has_note_of_deletion(rows):
    gets_stray(rows)
    Removal.objects.create(embedding_id=10**9, partition=partition())


def has_orphan_file(rows):
    name = default_storage.save("pictures/2001/01/orphan.jpg", ContentFile(b"half a pict"))
    os.utime(default_storage.path(name), (1e9, 1e9))


def has_orphan_document(rows):
    name = default_storage.save("consents/2001/01/orphan.pdf", ContentFile(b"half a page"))
    os.utime(default_storage.path(name), (1e9, 1e9))


DRIFT = {
    loses_vector: {Kind.MISSING: 1},
    loses_partition: {Kind.MISSING: 3},
    gets_stray: {Kind.STRAY: 1},
    gets_stray_partition: {Kind.STRAY_PARTITION: 1},
    moves_partition: {Kind.MISSING: 1, Kind.STRAY_PARTITION: 1},
    is_renamed_unseen: {Kind.DIFFERENT: 2},
    path_changes_unseen: {Kind.DIFFERENT: 1},
    is_pending: {Kind.NOT_INDEXED: 1},
    has_failed_without_vector: {Kind.NOT_INDEXED: 1},
    lacks_embedding: {Kind.NO_EMBEDDING: 1, Kind.STRAY: 1},
    has_note_of_deletion: {Kind.DELETION_PENDING: 1, Kind.STRAY: 1},
    has_orphan_file: {Kind.ORPHAN_FILE: 1},
    has_orphan_document: {Kind.ORPHAN_FILE: 1},
}


@pytest.mark.parametrize(
    ("cause", "expected"), DRIFT.items(), ids=lambda item: getattr(item, "__name__", "")
)
def test_drift_is_named_then_mended(gallery, cause, expected):
    cause(gallery)
    before = (rows_of_sql(), stored(), files())
    assert found() == expected
    with pytest.raises(CommandError, match="Run 'manage.py reindex'") as error:
        reindex("--check")
    assert error.value.returncode == 1
    assert (rows_of_sql(), stored(), files()) == before

    reindex()

    assert found() == {}
    truth = FaceEmbedding.objects.order_by("pk").values_list(
        "pk", "face_image__person__person_id", "face_image__original_path"
    )
    assert stored() == {partition(): list(truth)}
    assert len(truth) == 3
    assert all(finds_itself(row) for row in FaceEmbedding.objects.all())
    assert len(files()) == 3


def test_equal_gallery_has_nothing_to_do(gallery):
    before = (rows_of_sql(), stored(), files())
    assert "No difference" in reindex("--check")
    assert "Nothing to do" in reindex()
    assert (rows_of_sql(), stored(), files()) == before


def test_report_names_counts_and_ids(gallery):
    get_vector_store().delete(partition(), [gallery[0].pk, gallery[2].pk])
    output = io.StringIO()
    with pytest.raises(CommandError, match="^2 differences"):
        call_command("reindex", "--check", stdout=output)
    assert output.getvalue() == (
        f"2 embeddings missing in Milvus: {gallery[0].pk}, {gallery[2].pk}\n"
    )


def test_lost_database_is_filled_from_stored_vectors(gallery, settings, monkeypatch):
    reset_vector_store()
    shutil.rmtree(settings.RECOGNITION["MILVUS_URI"])
    monkeypatch.setattr("recognition.embedding.get_queue", None)  # no network may run
    assert "3 embeddings indexed" in reindex()
    assert all(finds_itself(row) for row in gallery)


@pytest.mark.parametrize(
    "engine", ["lite_address", pytest.param("milvus_address", marks=REAL_MILVUS)]
)
def test_gallery_moves_to_a_server_and_back(gallery, settings, monkeypatch, request, engine):
    folder, address = settings.RECOGNITION["MILVUS_URI"], request.getfixturevalue(engine)
    monkeypatch.setattr("recognition.embedding.get_queue", None)  # no network may run
    before = stored()

    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": address}
    get_vector_store().clear()
    assert found() == {Kind.MISSING: 3}
    assert "3 embeddings indexed" in reindex()
    assert stored() == before
    assert all(finds_itself(row) for row in gallery)

    shutil.rmtree(folder)
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": folder}
    assert "3 embeddings indexed" in reindex()
    assert stored() == before
    assert all(finds_itself(row) for row in gallery)


def test_rebuild_replaces_all_that_was_there(gallery, monkeypatch):
    gets_stray(gallery)
    monkeypatch.setattr("recognition.embedding.get_queue", None)
    assert "3 embeddings indexed" in reindex("--rebuild")
    assert [row[0] for row in stored()[partition()]] == [row.pk for row in gallery]
    assert found() == {}


def test_damaged_database_is_made_anew_by_rebuild(gallery, settings, monkeypatch):
    reset_vector_store()
    for path in Path(settings.RECOGNITION["MILVUS_URI"]).rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"\xff" * 64)
    for arguments in (), ("--check",):
        with pytest.raises(CommandError, match="run `manage.py reindex --rebuild`"):
            reindex(*arguments)
    assert len(rows_of_sql()) == 6

    monkeypatch.setattr("recognition.embedding.get_queue", None)
    assert "3 embeddings indexed" in reindex("--rebuild")
    assert all(finds_itself(row) for row in gallery)
    assert found() == {}


def test_rebuild_of_one_model_leaves_the_others(gallery, monkeypatch):
    other = partition_name("cosface_resnet50", OLD)
    FaceEmbedding.objects.filter(pk=gallery[0].pk).update(model="cosface_resnet50", fingerprint=OLD)
    reindex()
    before = stored()
    assert [row[0] for row in before[other]] == [gallery[0].pk]
    assert "1 embeddings indexed" in reindex("--rebuild", "--model", "cosface_resnet50")
    assert stored() == before


def test_replaced_weights_are_embedded_again_then_dropped(gallery):
    ids = [row.pk for row in gallery]
    loses_partition(gallery)
    FaceEmbedding.objects.update(fingerprint=OLD, status="pending")
    index_rows(ids)
    assert list(stored()) == [partition_name(MODEL, OLD)]
    assert found() == {Kind.STALE: 3}

    assert "3 embeddings indexed, 3 removed, 1 partitions dropped" in reindex()

    assert list(stored()) == [partition()]
    assert not FaceEmbedding.objects.filter(pk__in=ids).exists()
    assert all(finds_itself(row) for row in FaceEmbedding.objects.all())
    assert "Nothing to do" in reindex()


def test_replaced_embedding_stays_when_its_picture_is_gone(gallery):
    FaceEmbedding.objects.update(fingerprint=OLD, status="pending")
    lost = gallery[0].face_image
    lost.image.storage.delete(lost.image.name)

    with pytest.raises(CommandError, match="its old embedding is kept") as error:
        reindex()

    assert "stored file is missing" in str(error.value)
    assert FaceEmbedding.objects.get(pk=gallery[0].pk).fingerprint == OLD
    assert not FaceEmbedding.objects.filter(pk=gallery[1].pk).exists()
    renewed = FaceEmbedding.objects.exclude(fingerprint=OLD)
    assert list(renewed.values_list("status", flat=True).order_by("status")) == [
        "failed",
        "indexed",
        "indexed",
    ]


def test_embeddings_of_absent_weights_are_kept(gallery, settings, tmp_path):
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path / "none"}
    before = (rows_of_sql(), stored())
    output = reindex()
    assert "3 embeddings of mobilenetv3_large are kept as they are" in output
    assert "Nothing to do" in output
    assert (rows_of_sql(), stored()) == before


def test_embeddings_of_absent_weights_are_copied_again(gallery, settings, tmp_path):
    there = partition()
    before = stored()
    get_vector_store().drop_partition(there)
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path / "none"}
    assert "3 embeddings indexed" in reindex()
    assert stored() == before


def test_damaged_weights_are_reported_once(gallery, settings, tmp_path):
    (tmp_path / f"{MODEL}.ckpt").write_bytes(b"no checkpoint")
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path}
    before = stored()
    with pytest.raises(CommandError, match="3 × The weights file") as error:
        reindex()
    assert "3 × The picture was not embedded again" in str(error.value)
    assert stored() == before


def test_missing_file_is_named_until_it_is_back(gallery):
    picture = gallery[0].face_image
    content = picture.image.read()
    picture.image.storage.delete(picture.image.name)
    assert found() == {Kind.MISSING_FILE: 1}
    with pytest.raises(CommandError, match="1 × The picture's stored file is missing"):
        reindex()
    picture.image.storage.save(picture.image.name, ContentFile(content))
    assert "Nothing to do" in reindex()


def test_the_document_of_a_consent_is_kept_and_its_loss_named(gallery):
    consent = add_consent(
        Person.objects.first(), document=File(io.BytesIO(PDF), "a.pdf"), day=today()
    )
    os.utime(default_storage.path(consent.document.name), (1e9, 1e9))
    assert "Nothing to do" in reindex()
    default_storage.delete(consent.document.name)
    assert found() == {Kind.MISSING_DOCUMENT: 1}
    with pytest.raises(CommandError, match="1 × The document of a consent is missing"):
        reindex()


def test_many_files_without_rows_are_left_alone(gallery):
    """With a wrong DATABASE_URL, no picture may be deleted."""
    for number in range(101):
        name = default_storage.save(f"pictures/{number}.jpg", ContentFile(b"x"))
        os.utime(default_storage.path(name), (1e9, 1e9))
    with pytest.raises(CommandError, match="101 × .* DATABASE_URL"):
        reindex()
    assert len(files()) == 104


def test_pictures_of_another_installation_are_left_alone(gallery):
    """As with an empty or another database: few files, and no row names any."""
    for name in files():
        default_storage.save(f"pictures/of/another/{Path(name).name}", ContentFile(b"x"))
        default_storage.delete(name)
    for name in files():
        os.utime(default_storage.path(name), (1e9, 1e9))
    with pytest.raises(CommandError, match="3 × The picture file is named .* two installations"):
        reindex()
    assert len(files()) == 3


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_a_storage_that_does_not_answer_is_a_sentence(gallery, monkeypatch, arguments):
    """Without its bucket, reindex ended in a traceback."""

    def away(*_given: object) -> None:
        raise OSError("NoSuchBucket: the bucket does not exist.")

    monkeypatch.setattr(default_storage._wrapped, "listdir", away)
    with pytest.raises(
        CommandError, match="NoSuchBucket: the bucket does not exist. Check that the disk"
    ):
        reindex(*arguments)


def test_young_files_are_left_to_their_upload(gallery, monkeypatch):
    monkeypatch.setattr(type(get_vector_store()), "is_embedded", False)
    default_storage.save("pictures/young.jpg", ContentFile(b"x"))
    assert "it may belong to an upload" in reindex()
    assert len(files()) == 4


def test_database_of_another_process_is_left_alone(gallery, settings):
    is_pending(gallery)
    before = rows_of_sql()
    reset_vector_store()
    with held_by_another_process(settings.RECOGNITION["MILVUS_URI"]):
        for arguments in (), ("--check",), ("--rebuild",):
            with pytest.raises(CommandError, match="open in another process") as error:
                reindex(*arguments)
            assert error.value.returncode == 1
    assert rows_of_sql() == before
    reindex()
    assert found() == {}


def test_unknown_model_is_refused(db):
    with pytest.raises(
        CommandError, match="no model 'resnet'. Known models: mobilenetv3_large, cos"
    ):
        reindex("--model", "resnet")


def test_interrupted_run_is_finished_by_the_next(gallery, monkeypatch):
    get_vector_store().clear()
    FaceEmbedding.objects.update(status="pending")
    for size in ("BATCH_SIZE", "COPY_SIZE"):
        monkeypatch.setattr(f"enrollment.index.progress.{size}", 1)
    from enrollment.index import indexing

    index, calls = indexing.index_rows, []

    def interrupted(ids, **begun):
        calls.append(ids)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return index(ids, **begun)

    monkeypatch.setattr("enrollment.index.index_rows", interrupted)
    with pytest.raises(CommandError, match="Interrupted") as error:
        reindex()
    assert error.value.returncode == 130
    monkeypatch.setattr("enrollment.index.index_rows", index)
    assert found() == {Kind.NOT_INDEXED: 2}
    assert "2 embeddings indexed" in reindex()
    assert found() == {}


def test_pictures_enrolled_and_deleted_during_a_check_are_not_missing(
    gallery, draw_picture, monkeypatch
):
    """A check beside a busy server called them so."""
    store = get_vector_store()
    iterate = store.iterate

    def meanwhile(partition):
        before = list(iterate(partition))
        if Person.objects.filter(person_id="ana").exists():
            late = Upload("late", "late.jpg", draw_picture(seed="late"))
            enroll_pictures([late], source="api", use_face_detection=False)
            Person.objects.filter(person_id="ana").delete()
        return (row for row in before if row.person_id != "ana")

    monkeypatch.setattr(store, "iterate", meanwhile)
    assert Kind.MISSING not in reconcile(mend=False).found


def test_vectors_with_and_without_their_mirror_image_never_meet(gallery, draw_picture, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"FLIP_TTA": True}
    (crop,) = crop_upload(draw_picture(seed=1), use_face_detection=False)
    probe = embed_crops([crop.pixels], MODEL)
    assert search_gallery(probe, 3) == [[]]

    reindex()

    (hits,) = search_gallery(probe, 3)
    assert len(hits) == 3
    assert hits[0].similarity == pytest.approx(1, abs=1e-4)
    assert list(stored()) == [partition()]
    assert reconcile(mend=False, model=MODEL).found == {}  # all of them were called missing
