"""A repeated insert gets the first answer and stores nothing twice, even after a crash in the
middle."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from django.utils.datastructures import MultiValueDict

from enrollment.api.serializers import InsertFormSerializer
from enrollment.corrections import change_person, delete_person, erase_person
from enrollment.enrolling import (
    Upload,
    begin_request,
    carry_out_request,
    digest_of_request,
    services,
)
from enrollment.exceptions import StorageUnavailable
from enrollment.index import indexing
from enrollment.models import FaceEmbedding, FaceImage, IdempotentRequest, Person
from enrollment.upkeep.backlog import BacklogThread
from tests.drawn_faces import as_jpeg, draw_group
from tests.enrollment.gallery import set_thresholds, stored
from tests.pictures import draw_picture, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

INSERT = "/api/milvus/insert"


class Killed(BaseException):
    """An exception that stands for the end of the process."""


@pytest.fixture
def insert(api):
    """Insert two drawn pictures with this key."""

    def insert(key: str = "order-1", seeds=(1, 2), path: str = INSERT, **fields):
        images = [upload(draw_picture(seed=seed), f"{seed}.jpg") for seed in seeds]
        form = {"images": images, "use_face_detection": "false", **fields}
        if path == INSERT:
            form = {"person_id": "ana"} | form
        return api.post(path, form, headers={"idempotency-key": key})

    return insert


def test_repetition_gets_the_first_answer(insert):
    first, second = insert(), insert()
    assert first.status_code == second.status_code == 200
    assert second.json() == first.json()
    assert "Idempotency-Replayed" not in first and second["Idempotency-Replayed"] == "true"
    assert FaceImage.objects.count() == len(stored()) == 2


def test_a_repetition_about_somebody_deleted_since_is_told_so(insert, api, commits):
    """The person's own URL used to answer 404, as for an unknown person."""
    first = insert(path="/api/milvus/insert", key="order-0")
    assert first.status_code == 200
    again = {"path": "/api/persons/ana/images", "key": "order-1"}
    assert insert(**again).status_code == 200
    with commits():
        delete_person(Person.objects.get(person_id="ana"))

    assert insert(path="/api/milvus/insert", key="order-0").status_code == 410
    gone = insert(**again)
    assert (gone.status_code, gone.json()["error"]) == (410, "person_deleted")
    assert insert(**again | {"key": "order-2"}).json()["error"] == "person_not_found"
    assert insert(**again, seeds=(3,)).json()["error"] == "idempotency_key_reused"
    assert not Person.objects.exists()
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert insert(**again).json()["error"] == "person_not_found"


def test_an_answer_about_somebody_deleted_before_it_is_stored_is_not_kept():
    """Nobody looked for it any more, so who was erased stayed in it for a day."""
    row = begin_request("", "key", "digest")
    answer = {"success": True, "person_id": "ana"}
    assert carry_out_request(row, lambda: (200, answer)) == (200, answer)
    row.refresh_from_db()
    assert row.status == 410 and "ana" not in str(row.answer)


@pytest.mark.parametrize("later", ["joao.7", "12345678909"])
def test_who_is_erased_is_in_no_answer_about_others_either(api, insert, settings, later):
    """For a day a repetition told whom the face had looked like."""
    set_thresholds()
    insert("order-1", (1,), person_id="João")
    change_person(Person.objects.get(), person_id=later)
    insert("order-2", (1, 2), person_id="ana")  # the first picture is the same
    settings.ENROLL_IDENTITY = "refuse"
    insert("order-3", (1, 3), person_id="bia")
    told = [str(row.answer) for row in IdempotentRequest.objects.all()]
    assert "João" in told[0] and later in told[1] and later in told[2]

    erase_person(Person.objects.get(person_id=later))
    told = [str(row.answer) for row in IdempotentRequest.objects.all()]
    assert not any(name in text for text in told for name in ("João", later))
    assert insert("order-1", (1,), person_id="João").status_code == 410
    settings.ENROLL_IDENTITY = "warn"
    first, second = insert("order-2", (1, 2), person_id="ana").json()["results"]
    assert [each["code"] for each in first["warnings"]] == ["unlike_own_pictures"]
    assert first["success"] and second["success"]
    refused, stored = insert("order-3", (1, 3), person_id="bia").json()["results"]
    assert (refused["error"], stored["success"]) == ("doubtful_identity", True)


def test_a_request_that_is_taken_up_tells_of_the_face_as_at_first(api):
    """The repeated answer used to have the stored reasons without their messages."""

    def face() -> dict:
        form = {"images": [upload(as_jpeg(draw_group()))], "person_id": "ana"}
        (result,) = api.post(INSERT, form, headers={"idempotency-key": "order-1"}).json()["results"]
        return result["face"]

    first = face()
    IdempotentRequest.objects.update(status=None, started_at=None)
    assert face() == first
    assert "several faces" in first["quality"]["reasons"][-1]["message"]


def test_a_repetition_warns_of_namesakes_as_the_first_answer_did(insert):
    """Who never got the first answer never learned of them."""
    Person.objects.create(person_id="A.n.a")
    first, second = insert().json(), insert().json()
    assert first == second and "A.n.a" in first["warnings"][0]
    assert "A.n.a" not in str(IdempotentRequest.objects.get().answer)  # whom a day may outlive
    assert "warnings" not in insert(key="order-2").json()


def test_another_key_or_none_is_another_request(insert):
    insert()
    insert(key="order-2")
    insert(key="")
    assert FaceImage.objects.count() == 6


@pytest.mark.parametrize(
    "change", [{"seeds": (1, 3)}, {"person_id": "bia"}, {"require_face": "true"}, {"seeds": (2, 1)}]
)
def test_key_of_something_else_is_refused(insert, change):
    insert()
    refused = insert(**change)
    assert (refused.status_code, refused.json()["error"]) == (422, "idempotency_key_reused")
    assert FaceImage.objects.count() == 2


def test_users_have_keys_of_their_own(insert, api):
    insert()
    api.force_authenticate(User.objects.create_superuser("boss"))
    assert "Idempotency-Replayed" not in insert()
    assert FaceImage.objects.count() == 4


def test_pictures_of_a_person_take_a_key_too(insert):
    insert()
    path = "/api/persons/ana/images"
    first, second = (insert("more", (5,), path) for _ in range(2))
    assert first.json() == second.json() and second["Idempotency-Replayed"] == "true"
    assert FaceImage.objects.count() == 3


def test_after_a_day_the_key_is_new(insert):
    insert()
    old = timezone.now() - timedelta(hours=25)
    IdempotentRequest.objects.update(created_at=old)
    assert "Idempotency-Replayed" not in insert()
    assert FaceImage.objects.count() == 4
    assert IdempotentRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_server_forgets_old_answers_without_being_asked(insert):
    insert()
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(hours=25))
    BacklogThread()._pass(timezone.now())
    assert not IdempotentRequest.objects.exists()


def test_refused_request_frees_its_key(insert):
    assert insert(seeds=(1,), require_face="true").status_code == 422
    assert not IdempotentRequest.objects.exists()
    assert insert().status_code == 200


def test_too_long_a_key_is_refused(insert):
    response = insert("k" * 256)
    assert response.status_code == 400 and "Idempotency-Key" in response.json()["fields"]


def test_what_is_being_done_is_not_done_twice(insert, monkeypatch):
    """The repetition arrives while the first request is about to end."""
    index, answers = indexing.index_rows, []

    def slow(*args):
        monkeypatch.setattr("enrollment.index.index_rows", index)
        answers.append(insert())
        return index(*args)

    monkeypatch.setattr("enrollment.index.index_rows", slow)
    assert insert().status_code == 200
    (early,) = answers
    assert (early.status_code, early.json()["error"]) == (409, "request_in_progress")
    assert int(early["Retry-After"]) > 0
    assert FaceImage.objects.count() == 2


def test_killed_between_rows_and_vectors_goes_on_where_it_was(insert, monkeypatch):
    """A kill runs no `except`, so the row keeps its start time until it expires."""
    with monkeypatch.context() as patch:
        patch.setattr("enrollment.index.index_rows", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            insert()
    IdempotentRequest.objects.update(started_at=timezone.now())
    assert FaceEmbedding.objects.filter(status="pending").count() == 2
    assert insert().status_code == 409

    IdempotentRequest.objects.update(started_at=timezone.now() - timedelta(minutes=3))
    again = insert()
    assert again.status_code == 200 and again.json()["inserted_count"] == 2
    assert FaceImage.objects.count() == len(stored()) == 2
    assert insert()["Idempotency-Replayed"] == "true"


def test_vector_store_that_fails_on_the_way_is_repeated_safely(insert, settings, monkeypatch):
    from recognition.exceptions import VectorStoreUnavailable
    from recognition.vector_store import VectorStore

    def fail(*args):
        raise VectorStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(VectorStore, "upsert", fail)
        first = insert()
    assert (first.status_code, first.json()["error"]) == (503, "not_searchable_yet")
    second = insert()
    assert second.status_code == 200 and second.json()["inserted_count"] == 2
    assert FaceImage.objects.count() == len(stored()) == 2
    results = [
        [(item["filename"], item["id"]) for item in answer.json()["results"]]
        for answer in (first, second)
    ]
    assert results[0] == results[1]


def test_a_number_that_was_another_requests_before_a_restore_finds_nobody_elses_picture(insert):
    """Ids are used again after a restore, while pictures keep the keys of deleted requests."""
    insert(person_id="alice")
    IdempotentRequest.objects.all().delete()
    table = IdempotentRequest._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
    answer = insert(key="order-2", seeds=(3, 4), person_id="carol").json()
    assert answer["inserted_count"] == 2
    assert {row.person_id for row in stored()} == {"alice", "carol"}
    assert FaceImage.objects.filter(person__person_id="carol").count() == 2


def test_a_first_that_takes_longer_than_it_may_is_told_to_wait_when_the_repetition_was_faster(
    insert, monkeypatch
):
    store, answers = services._store, []

    def slow(*args):
        monkeypatch.setattr(services, "_store", store)
        IdempotentRequest.objects.update(started_at=timezone.now() - timedelta(minutes=3))
        answers.append(insert())
        return store(*args)

    monkeypatch.setattr(services, "_store", slow)
    late = insert()
    assert answers[0].status_code == 200
    assert (late.status_code, late.json()["error"]) == (409, "request_in_progress")
    assert int(late["Retry-After"]) > 0
    assert insert()["Idempotency-Replayed"] == "true"
    assert FaceImage.objects.count() == len(stored()) == 2


def test_a_first_that_fails_late_does_not_take_the_request_from_the_repetition(insert, monkeypatch):
    with monkeypatch.context() as patch:

        def fail(*args):
            IdempotentRequest.objects.update(started_at=timezone.now())  # taken up
            raise StorageUnavailable("away")

        patch.setattr(services, "_store", fail)
        assert insert().status_code == 503
    assert insert().status_code == 409


def test_request_counts_as_the_same_as_at_a_server_of_version_1_0():
    """During an update it may be repeated at the other one, which answered that the key was reused."""
    files = {"images": [upload(b"content", "a.png")]}
    form = InsertFormSerializer(data=MultiValueDict({"person_id": ["ana"], **files}))
    assert form.is_valid(), form.errors
    uploads = [Upload("ana", file.name, file) for file in form.validated_data["images"]]
    digest = digest_of_request("/api/milvus/insert", form.validated_data | {"images": uploads})
    assert digest == "bcf5f11f734f3bb6b041a6a3b684a6f2985d9947d9f0100840f888a53067394e"
