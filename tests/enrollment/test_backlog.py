"""The server itself finishes what interrupted writes left."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from django_tasks_db import DatabaseBackend
from django_tasks_db.models import DBTaskResult

from enrollment import index
from enrollment.index import removals
from enrollment.models import FaceEmbedding, FaceImage, Person, Removal
from enrollment.upkeep import backlog, reconcile
from enrollment.upkeep.backlog import (
    GRACE,
    LAST_RETRY,
    PAUSE,
    TASKS_KEPT,
    TRANSIENT,
    BacklogThread,
    Work,
    forget_old_tasks,
    note_missing,
    work_off,
)
from recognition.exceptions import VectorStoreUnavailable
from recognition.networks import find_weights
from recognition.networks.loader import unload_networks
from recognition.vector_store import (
    LiteVectorStore,
    get_vector_store,
    partition_name,
    reset_vector_store,
)
from tests.enrollment.gallery import MODEL, enroll, found, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]
Status = FaceEmbedding.Status


@pytest.fixture
def row(picture) -> FaceEmbedding:
    """The embedding of an enrolled picture whose vector is missing in Milvus, and which is pending."""
    row = enroll("ana", picture).outcomes[0].embeddings[0]
    get_vector_store().delete(partition_name(row.model, row.fingerprint), [row.pk])
    FaceEmbedding.objects.update(status=Status.PENDING)
    FaceImage.objects.update(judged_at=None)
    return row


@pytest.fixture
def away(settings):
    """Milvus is unavailable until the returned function is called."""
    there = settings.RECOGNITION

    def back() -> None:
        settings.RECOGNITION = there
        reset_vector_store()

    reset_vector_store()
    settings.RECOGNITION = there | {"MILVUS_URI": "http://127.0.0.1:9", "MILVUS_TIMEOUT": 0.5}
    return back


def test_a_row_that_a_crash_left_pending_is_computed_copied_and_judged(row, picture):
    FaceEmbedding.objects.update(vector=None)
    assert work_off(timezone.now()) == Work(indexed=1)
    assert found(picture) == ["ana"]
    assert work_off(timezone.now()) == Work()


def test_a_picture_that_was_not_compared_with_the_gallery_is(row):
    work_off(timezone.now())
    FaceImage.objects.update(judged_at=None)
    assert work_off(timezone.now()) == Work(judged=1)
    assert FaceImage.objects.get().judged_at is not None


def test_a_vector_that_milvus_did_not_take_is_copied_later(row, picture):
    """Without waiting for the grace period: nobody is working on a failed row."""
    FaceEmbedding.objects.update(status=Status.FAILED, error="vector_store_unavailable")
    assert work_off(timezone.now() - GRACE).indexed == 1
    row.refresh_from_db()
    assert (row.status, row.error) == (Status.INDEXED, "")
    assert found(picture) == ["ana"]


def test_a_picture_that_cannot_be_computed_is_left_to_people(row):
    FaceEmbedding.objects.update(status=Status.FAILED, error="picture_missing", vector=None)
    FaceImage.objects.update(judged_at=timezone.now())
    assert work_off(timezone.now()) == Work()


@pytest.mark.parametrize("error", TRANSIENT)
def test_what_hindered_the_computation_and_may_be_over_is_tried_again(row, picture, error):
    FaceEmbedding.objects.update(status=Status.FAILED, error=error, vector=None)
    assert work_off(timezone.now() - GRACE).indexed == 1
    assert found(picture) == ["ana"]


def test_weights_that_do_not_load_are_not_tried_again_until_they_are_others(
    row, settings, tmp_path
):
    whole = find_weights(MODEL).path
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path}
    (tmp_path / whole.name).write_bytes(whole.read_bytes()[:1000])
    FaceEmbedding.objects.update(vector=None, fingerprint=find_weights(MODEL).fingerprint)
    assert work_off(timezone.now()) == Work(failed=1)
    assert FaceEmbedding.objects.get().error == "weights_unavailable"
    assert work_off(timezone.now()) == Work()
    unload_networks()  # what was seen of the file is forgotten, as by a new server
    assert work_off(timezone.now()) == Work(failed=1)


def test_old_tasks_are_forgotten_and_those_to_be_done_are_not():
    backend = DatabaseBackend("default", {})
    for status in ("SUCCESSFUL", "FAILED", "RUNNING", "READY"):
        task = backend.enqueue(removals.remove_deleted, [], {})
        DBTaskResult.objects.filter(pk=task.id).update(status=status)
    forget_old_tasks()
    assert DBTaskResult.objects.count() == 4
    DBTaskResult.objects.update(enqueued_at=timezone.now() - 2 * TASKS_KEPT)
    forget_old_tasks()
    assert [task.status for task in DBTaskResult.objects.all()] == ["READY"]


def test_what_is_younger_is_somebody_elses_work_in_hand(row):
    FaceImage.objects.update(judged_at=timezone.now())
    assert work_off(timezone.now() - timedelta(minutes=1)) == Work()
    row.refresh_from_db()
    assert row.status == Status.PENDING


def test_while_milvus_is_away_everything_stays_and_is_done_when_it_is_back(
    row, away, django_capture_on_commit_callbacks
):
    other = enrol_without_vector("bia", row)
    with django_capture_on_commit_callbacks(execute=True):
        Person.objects.get(person_id="bia").delete()
    assert Removal.objects.get().embedding_id == other
    with pytest.raises(VectorStoreUnavailable):
        work_off(timezone.now())
    row.refresh_from_db()
    assert row.status == Status.PENDING
    away()
    assert work_off(timezone.now()) == Work(indexed=1, deleted=1)
    assert [hit.id for hit in stored()] == [row.pk]
    assert not Removal.objects.exists()


def enrol_without_vector(person_id: str, like: FaceEmbedding) -> int:
    person = Person.objects.create(person_id=person_id)
    picture = FaceImage.objects.create(person=person, image="none.jpg")
    return FaceEmbedding.objects.get_or_create(
        face_image=picture, model=MODEL, fingerprint=like.fingerprint
    )[0].pk


def test_what_milvus_does_not_take_is_told_in_a_line(row, away, caplog):
    """Commands beside a server, whose the database is, showed 50 lines of a traceback, though all was well."""
    index.index_rows([row.pk])
    Person.objects.all().delete()
    removals.remove_deleted.func()
    told = [each for each in caplog.records if each.name.startswith("enrollment.index")]
    assert [each.exc_info for each in told] == [None, None]
    assert all("Check that it runs" in each.getMessage() for each in told)


def test_a_store_that_was_emptied_or_set_back_is_filled_by_a_new_server(
    row, picture, draw_picture, monkeypatch
):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    work_off(timezone.now())
    enroll("bia", draw_picture(seed=2))
    get_vector_store().delete(partition_name(row.model, row.fingerprint), [row.pk])
    assert found(picture) == ["bia"]
    assert BacklogThread()._pass(timezone.now()) == PAUSE
    assert found(picture) == ["ana", "bia"]

    get_vector_store().clear()
    assert found(picture) == []
    assert note_missing() == 2
    assert work_off(timezone.now()) == Work(indexed=2)
    assert found(picture) == ["ana", "bia"]
    assert note_missing() == 0


def test_a_milvus_server_that_is_emptied_while_this_one_runs_is_filled(
    row, picture, draw_picture, monkeypatch
):
    """Every search answered "unknown" until the next start."""
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    monkeypatch.setattr(LiteVectorStore, "is_embedded", False)
    thread = BacklogThread()
    thread._pass(timezone.now())
    enroll("bia", draw_picture(seed=2))
    get_vector_store().clear()
    monkeypatch.setattr(backlog, "note_missing", noted := Mock(wraps=note_missing))
    for _pass in range(2):
        assert thread._pass(timezone.now()) == PAUSE
    assert found(picture) == ["ana", "bia"]
    noted.assert_called_once()


def test_stops_between_batches(row, draw_picture, monkeypatch):
    for size in ("BATCH_SIZE", "COPY_SIZE"):
        monkeypatch.setattr(f"enrollment.index.progress.{size}", 1)
    enroll("bia", draw_picture(seed=2))
    FaceEmbedding.objects.update(status=Status.PENDING)
    answers = iter((False, True, True))
    assert work_off(timezone.now(), lambda: next(answers)).indexed == 1


def test_waits_longer_after_each_failure_and_not_after_a_success(row, away, monkeypatch):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    thread = BacklogThread()
    pauses = [thread._pass(timezone.now()) for _ in range(3)]
    assert pauses == [1, 2, 4]
    thread._failures = 30
    assert thread._pass(timezone.now()) == LAST_RETRY
    away()
    assert thread._pass(timezone.now()) == PAUSE
    assert FaceEmbedding.objects.get().status == Status.INDEXED


def test_an_unforeseen_error_does_not_end_the_thread(row, monkeypatch):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)
    monkeypatch.setattr(backlog, "get_vector_store", lambda: 1 / 0)
    assert BacklogThread()._pass(timezone.now()) == 1


@pytest.fixture
def thread(monkeypatch):
    """A backlog thread with short pauses that counts its requests."""
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    monkeypatch.setattr(backlog, "PAUSE", 0.05)
    return BacklogThread()


def test_a_queue_that_is_never_empty_does_not_keep_due_work_from_being_done(thread, monkeypatch):
    passes, done = [], []

    def work() -> None:
        done.append(1)
        time.sleep(0.01)
        index.requested.put(work)
        if len(passes) == 3 or len(done) == 500:
            thread._stopping.set()

    monkeypatch.setattr(thread, "_pass", lambda before: passes.append(before) or backlog.PAUSE)
    index.requested.put(work)
    thread.run()
    while not index.requested.empty():
        index.requested.get()
    assert len(passes) == 3 <= len(done) < 500


def test_a_long_pass_lets_others_have_their_turn(row, thread, draw_picture, monkeypatch):
    enroll("bia", draw_picture(seed=2))
    FaceEmbedding.objects.update(status=Status.PENDING)
    for size in ("BATCH_SIZE", "COPY_SIZE"):
        monkeypatch.setattr(f"enrollment.index.progress.{size}", 1)
    monkeypatch.setattr(backlog, "AT_A_TIME", -1.0)
    assert thread._pass(timezone.now()) == 0
    assert FaceEmbedding.objects.filter(status=Status.PENDING).count() == 2
    monkeypatch.setattr(backlog, "AT_A_TIME", 60.0)
    assert thread._pass(timezone.now()) == backlog.PAUSE
    assert not FaceEmbedding.objects.filter(status=Status.PENDING).exists()


def test_a_step_that_fails_keeps_no_other_from_being_done(row, thread, monkeypatch):
    monkeypatch.setattr(backlog.enrolling, "forget_old_requests", lambda: 1 / 0)
    Person.objects.filter(person_id="ana").update(keep_until=timezone.localdate() - timedelta(1))
    assert thread._pass(timezone.now()) == 1
    assert not Person.objects.exists()


def test_of_several_servers_one_does_what_is_done_once(row, thread, monkeypatch):
    Person.objects.filter(person_id="ana").update(keep_until=timezone.localdate() - timedelta(1))
    leads = [False]
    monkeypatch.setattr(thread._leadership, "held", lambda: leads[0])
    assert thread._pass(timezone.now()) == backlog.PAUSE
    assert Person.objects.exists()
    leads[0] = True
    assert thread._pass(timezone.now()) == backlog.PAUSE
    assert not Person.objects.exists()


def test_who_begins_to_lead_finishes_what_the_last_left_half_done(row, thread, monkeypatch):
    leads = [False]
    monkeypatch.setattr(thread._leadership, "held", lambda: leads[0])
    thread._pass(timezone.now() - backlog.GRACE)
    leads[0] = True
    thread._pass(timezone.now() - backlog.GRACE)
    assert FaceEmbedding.objects.get().status == Status.INDEXED


def test_memory_that_searches_use_is_compared_every_hour(row, thread, picture):
    index.index_rows([row.pk])
    assert found(picture) == ["ana"]
    (resident,) = get_vector_store()._resident.values()
    resident.remove([row.pk])
    thread._pass(timezone.now())
    assert found(picture) == []
    thread._memory_due = 0.0
    thread._pass(timezone.now())
    assert found(picture) == ["ana"]
    assert thread._memory_due > time.monotonic() + 3000


def test_reindex_compares_the_memory_too(row, picture):
    index.index_rows([row.pk])
    assert found(picture) == ["ana"]
    (resident,) = get_vector_store()._resident.values()
    resident.remove([row.pk])
    assert reconcile(mend=False).found == {}
    assert found(picture) == ["ana"]


def stored_file(folder: str, age: timedelta) -> str:
    """Store a file that no row names, this long ago; return its name."""
    name = default_storage.save(f"{folder}/2001/01/left.jpg", ContentFile(b"half a picture"))
    at = (timezone.now() - age).timestamp()
    os.utime(default_storage.path(name), (at, at))
    return name


def test_files_of_uploads_that_were_cut_off_are_deleted_after_a_week(row, thread, caplog):
    old = [stored_file(folder, timedelta(days=8)) for folder in ("pictures", "consents")]
    young = stored_file("pictures", timedelta(days=6))
    os.utime(row.face_image.image.path, (1e9, 1e9))
    thread._pass(timezone.now())
    assert all(map(default_storage.exists, old))
    thread._files_due = 0.0
    thread._pass(timezone.now())
    assert not any(map(default_storage.exists, old))
    assert default_storage.exists(young)
    assert default_storage.exists(row.face_image.image.name)
    assert "Deleted 2 stored files that no row named" in caplog.text
    assert time.monotonic() + 3600 < thread._files_due < time.monotonic() + 86400


def test_files_of_another_installation_are_left_and_told(row, thread, caplog):
    row.face_image.image.storage.delete(row.face_image.image.name)
    name = stored_file("pictures", timedelta(days=9))
    thread._files_due = 0.0
    assert thread._pass(timezone.now()) == backlog.PAUSE
    assert default_storage.exists(name)
    assert "1 × The picture file is named by no row, and so are all others" in caplog.text
    assert "1 × The picture's stored file is missing" in caplog.text


def test_a_storage_that_cannot_be_listed_is_told_and_hinders_nothing(
    row, thread, caplog, monkeypatch
):
    def refused(*arguments: object) -> None:
        raise OSError("AccessDenied: ListBucket")

    monkeypatch.setattr(default_storage._wrapped, "listdir", refused)
    thread._files_due = 0.0
    assert thread._pass(timezone.now()) == backlog.PAUSE
    assert "The stored files cannot be compared with SQL: AccessDenied: ListBucket" in caplog.text
