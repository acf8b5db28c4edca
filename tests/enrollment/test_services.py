"""Enrolment: what is stored, what is refused, and the state after a failure."""

from __future__ import annotations

import errno
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections, transaction
from django.db.utils import DatabaseError
from PIL import Image

from enrollment.enrolling import inspection, services
from enrollment.enrolling.inspection import Upload
from enrollment.exceptions import StorageUnavailable
from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.exceptions import InvalidImage, NoFaceDetected
from recognition.imaging import read_image
from tests.enrollment.gallery import enroll, found, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]


def files(settings) -> list:
    return [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]


def test_new_person_is_found_on_return(picture, draw_picture):
    enrollment = enroll("ana", picture, draw_picture(seed=1), name="Ana")
    assert (enrollment.person.person_id, enrollment.person.name) == ("ana", "Ana")
    assert [outcome.face_image.original_path for outcome in enrollment.accepted] == [
        "0.jpg",
        "1.jpg",
    ]
    first = FaceImage.objects.first()
    assert (first.source, first.width, first.height) == ("api", 160, 160)
    assert first.content_hash == Upload("", "", picture).digest
    assert enrollment.outcomes[0].embedding("mobilenetv3_large").status == "indexed"
    assert enrollment.outcomes[0].embedding("cosface_resnet50") is None
    assert found(picture) == ["ana", "ana"]


def test_second_time_adds_to_the_same_person(picture, draw_picture):
    first = enroll("ana", picture, name="Ana").person
    second = enroll("  ana ", draw_picture(seed=1), name="Another").person
    assert second == first and Person.objects.get().name == "Ana"
    assert first.face_images.count() == 2


@pytest.mark.parametrize("person_id", ["", "   ", "x" * 201, "a\0b"])
def test_person_id_that_cannot_be_one_stores_nothing(picture, person_id, settings):
    with pytest.raises(ValidationError):
        enroll(person_id, picture)
    assert not Person.objects.exists() and files(settings) == []


def test_refused_files_say_why_and_stop_no_other(picture, settings):
    hostile = [b"", b"<html>", picture[:500], picture, b"\xff\xd8\xff"]
    enrollment = enroll("ana", *hostile)
    assert [isinstance(outcome.error, InvalidImage) for outcome in enrollment.outcomes] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert [outcome.filename for outcome in enrollment.accepted] == ["3.jpg"]
    assert enrollment.person.face_images.count() == len(files(settings)) == 1


def test_no_person_is_made_when_every_picture_is_refused(settings):
    enrollment = enroll("ana", b"", b"no picture")
    assert enrollment.person is None and enrollment.accepted == []
    assert not Person.objects.exists() and files(settings) == []


@pytest.mark.parametrize("option", ["use_face_detection", "require_face"])
def test_pictures_without_a_face_are_refused(picture, option):
    enrollment = enroll("ana", picture, **{option: True})
    assert isinstance(enrollment.outcomes[0].error, NoFaceDetected)
    assert not Person.objects.exists()


def test_real_photo_is_aligned_to_its_face(faces):
    photos = sorted(next(folder for folder in sorted(faces.iterdir())).glob("*.jpg"))
    enrollment = enroll("somebody", photos[0].read_bytes(), use_face_detection=True)
    row = enrollment.outcomes[0].embeddings[0]
    assert row.face_detected and len(row.face["landmarks"]) == 5
    assert found(photos[1].read_bytes()) == ["somebody"]


def test_one_batch_may_hold_pictures_of_many_persons(picture, draw_picture):
    contents = [picture, draw_picture(seed=1), draw_picture(seed=2)]
    uploads = [
        Upload(person_id, "x.jpg", content, name=name)
        for person_id, content, name in zip("aba", contents, ["Ana", "Bia", "Ana"], strict=True)
    ]
    outcomes = services.enroll_pictures(uploads, source="folder", use_face_detection=False)
    assert [outcome.face_image.person.name for outcome in outcomes] == ["Ana", "Bia", "Ana"]
    assert [row.person_id for row in stored()] == ["a", "b", "a"]


def test_dry_run_reads_and_writes_nothing(picture, settings, monkeypatch):
    monkeypatch.setattr(inspection, "storable_bytes", lambda *_args: 1 / 0)  # nothing is encoded
    uploads = [Upload("ana", "x.jpg", data) for data in (picture, b"")]
    outcomes = services.enroll_pictures(
        uploads, source="folder", use_face_detection=False, dry_run=True
    )
    assert [outcome.error is None for outcome in outcomes] == [True, False]
    assert not Person.objects.exists() and files(settings) == [] and stored() == []


def test_stored_file_has_no_gps_and_stays_upright(draw_picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (23.0, 33.0, 1.0)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(draw_picture((80, 120)))).save(buffer, "JPEG", exif=exif)
    face_image = enroll("ana", buffer.getvalue()).outcomes[0].face_image

    content = face_image.image.open("rb").read()
    kept = Image.open(io.BytesIO(content)).getexif()
    assert b"SecretCamera" not in content
    assert dict(kept) == {0x0112: 6} and not kept.get_ifd(0x8825)
    assert (face_image.width, face_image.height) == (120, 80)
    assert np.array_equal(read_image(content).pixels, read_image(buffer.getvalue()).pixels)


def test_files_go_again_when_the_rows_fail(picture, settings):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE INSERT ON enrollment_faceimage "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(DatabaseError, match="disk full"):
        enroll("ana", picture, picture)
    assert files(settings) == []
    assert not Person.objects.exists() and stored() == []


@pytest.mark.django_db(transaction=True)
def test_connection_that_breaks_after_the_commit_costs_no_file(picture, settings, monkeypatch):
    """The error says nothing of the commit, and the file of a stored row was deleted."""
    commit = connection.commit

    def commit_and_break() -> None:
        commit()
        raise DatabaseError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "commit", commit_and_break)
    with pytest.raises(DatabaseError, match="closed"):
        enroll("ana", picture)
    monkeypatch.undo()
    assert [path.name for path in files(settings)] == [
        Path(FaceImage.objects.get().image.name).name
    ]


def test_picture_is_on_the_disk_itself_before_its_row_is(picture, monkeypatch):
    """After a power loss there used to be a row with an empty file."""
    synced = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced[Path(f"/proc/self/fd/{descriptor}").readlink()] = FaceImage.objects.exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    path = Path(enroll("ana", picture).outcomes[0].face_image.image.path)
    assert synced[path] is False and synced[path.parent] is False


def test_storage_that_takes_no_file_is_a_sentence_without_a_path(picture, settings):
    settings.MEDIA_ROOT.write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable) as refused:
        enroll("ana", picture)
    assert refused.value.status == 503
    assert str(settings.MEDIA_ROOT) not in refused.value.message
    assert not Person.objects.exists()


@pytest.mark.parametrize("failing", ["os.fsync", "django.core.files.base.File.chunks"])
def test_a_file_that_the_disk_does_not_take_whole_is_not_kept(
    picture, settings, monkeypatch, failing: str
):
    """On a full disk each refused picture left a part of itself, which nobody owned."""

    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(StorageUnavailable):
        enroll("ana", picture)
    monkeypatch.undo()
    assert files(settings) == [] and not Person.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_enrolling_within_a_transaction_is_refused(picture, settings):
    """A rollback would leave vectors and files without rows."""
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        enroll("ana", picture)
    assert files(settings) == [] and stored() == []


@pytest.mark.django_db(transaction=True)
def test_simultaneous_enrolments_make_one_person(draw_picture):
    contents = [draw_picture(seed=seed) for seed in range(8)]
    start = threading.Barrier(4, timeout=60)

    def work(own: list[bytes]) -> None:
        try:
            start.wait()
            for content in own:
                assert enroll("ana", content).accepted
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [contents[n::4] for n in range(4)]))
    assert Person.objects.get().face_images.count() == 8
    assert set(FaceEmbedding.objects.values_list("status", flat=True)) == {"indexed"}
    assert len(stored()) == 8


@pytest.mark.django_db(transaction=True)
def test_persons_deleted_while_pictures_come_leave_no_ghosts(draw_picture, settings):
    contents = [draw_picture(seed=seed) for seed in range(6)]
    done = threading.Event()

    def delete_all() -> None:
        try:
            while not done.is_set():
                if FaceEmbedding.objects.exists():
                    Person.objects.all().delete()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(delete_all)
        try:
            for content in contents:
                enroll("ana", content)
        finally:
            done.set()
        deleting.result()
    kept = set(FaceEmbedding.objects.values_list("pk", flat=True))
    assert {row.id for row in stored()} == kept
    assert len(files(settings)) == FaceImage.objects.count()
