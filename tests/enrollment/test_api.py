"""The calls about the gallery, as the contract has them."""

from __future__ import annotations

import json
import re

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command

from enrollment.corrections import corrections
from enrollment.index import indexing
from enrollment.models import FaceEmbedding, FaceImage, Person
from recognition.exceptions import VectorStoreUnavailable
from recognition.vector_store import LiteVectorStore, VectorStore
from tests.enrollment.gallery import set_thresholds
from tests.pictures import draw_picture, upload

pytestmark = pytest.mark.django_db

INSERT = "/api/milvus/insert"
SEARCH = "/api/milvus/search"


def insert(api, *contents: bytes, person_id: str = "ana", **fields):
    """Insert pictures as crops unless `fields` say otherwise: those of `tests.pictures` show no
    face."""
    fields = {"use_face_detection": "false"} | fields
    images = [upload(content, f"{number}.jpg") for number, content in enumerate(contents)]
    return api.post(INSERT, {"images": images, "person_id": person_id, **fields})


def test_what_was_inserted_is_found(api):
    contents = [draw_picture(seed=seed) for seed in range(2)]
    response = insert(api, *contents, image_paths=json.dumps(["/a/1.jpg", "/a/2.jpg"]))
    body = response.json()
    assert response.status_code == 200, body
    assert body["success"] is True
    assert body["message"] == "2 embeddings inserted successfully"
    assert body["inserted_count"] == 2
    assert body["collection"] == "face_embeddings"

    found = api.post(SEARCH, {"image": upload(contents[1])}).json()
    assert (found["success"], found["model"], found["total"]) == (True, "mobilenetv3_large", 2)
    best = found["results"][0]
    assert best["id"] == body["results"][1]["id"]
    assert (best["person_id"], best["image_path"]) == ("ana", "/a/2.jpg")
    assert best["distance"] == best["similarity"] == pytest.approx(1, abs=1e-4)
    assert best["distance"] > found["results"][1]["distance"]
    assert best["created_at"].startswith("20")
    picture = api.get(best["image_url"])
    assert picture.status_code == 200 and picture["Content-Type"] == "image/jpeg"


def test_insert_without_waiting_answers_202_and_where_to_ask(api, no_store):
    response = insert(api, draw_picture(), b"no picture", person_id="a/b", **{"async": "true"})
    body = response.json()
    assert response.status_code == 202, body
    stored, refused = body["results"]
    assert (body["success"], body["inserted_count"]) == (True, 0)
    assert (stored["success"], stored["stored"], stored["searchable"]) == (True, True, False)
    assert (refused["success"], refused["stored"]) == (False, False)
    (picture,) = api.get(body["status_url"]).json()["results"]
    assert [row["status"] for row in picture["embeddings"]] == ["failed"]


@pytest.mark.django_db(transaction=True)
def test_a_worker_makes_searchable_what_was_stored(api, settings, picture):
    settings.TASKS_BACKEND = "database"
    settings.TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    assert insert(api, picture, **{"async": "true"}).status_code == 202
    assert api.post(SEARCH, {"image": upload(picture)}).json()["total"] == 0
    call_command("db_worker", batch=True, interval=0, startup_delay=False, verbosity=0)
    assert api.post(SEARCH, {"image": upload(picture)}).json()["total"] == 1


def test_insert_makes_rows_and_files(api):
    insert(api, draw_picture(), person_id=" 123.456.789-09 ")
    person = Person.objects.get()
    face_image = person.face_images.get()
    assert person.person_id == "123.456.789-09"
    assert face_image.source == FaceImage.Source.API
    assert face_image.original_path == "0.jpg"
    assert default_storage.exists(face_image.image.name)
    assert face_image.embeddings.get().status == FaceEmbedding.Status.INDEXED


@pytest.mark.parametrize(
    ("language", "count", "message"),
    [
        ("pt-BR", 1, "1 embedding inserido com sucesso"),
        ("pt-BR", 2, "2 embeddings inseridos com sucesso"),
        ("pt-BR,pt;q=0.9,en;q=0.8", 2, "2 embeddings inseridos com sucesso"),
        ("en-US,en;q=0.9,pt-BR;q=0.1", 1, "1 embedding inserted successfully"),
        ("de", 2, "2 embeddings inserted successfully"),
    ],
)
def test_insert_answers_in_the_clients_language(api, language, count, message):
    images = [upload(draw_picture(seed=seed)) for seed in range(count)]
    form = {"images": images, "person_id": "x", "use_face_detection": "false"}
    response = api.post(INSERT, form, headers={"accept-language": language})
    assert response.json()["message"] == message


def test_a_bad_file_does_not_sink_the_others(api):
    body = insert(api, draw_picture(), b"", draw_picture(seed=1)).json()
    assert (body["success"], body["inserted_count"]) == (True, 2)
    assert [result["success"] for result in body["results"]] == [True, False, True]
    refused = body["results"][1]
    assert (refused["error"], refused["stored"]) == ("invalid_image", False)
    assert FaceImage.objects.count() == 2


def test_insert_of_which_nothing_came_stores_nobody(api):
    response = insert(api, b"", b"<html>")
    body = response.json()
    assert response.status_code == 422
    assert (body["success"], body["error"]) == (False, "all_images_failed")
    assert body["inserted_count"] == 0 and len(body["results"]) == 2
    assert not Person.objects.exists()


def test_a_required_face_refuses_the_pictures_without_one(api, faces):
    photo = next((faces / "Ann_Veneman").iterdir()).read_bytes()
    body = insert(api, photo, draw_picture(), use_face_detection="true").json()
    assert [result["success"] for result in body["results"]] == [True, False]
    assert body["results"][0]["face_detected"] is True
    assert body["results"][1]["error"] == "no_face_detected"


def test_a_picture_of_somebody_else_is_inserted_with_a_warning(api):
    set_thresholds()
    crop = {"use_face_detection": "false"}
    insert(api, draw_picture(seed=1), person_id="ana", **crop)
    body = insert(api, draw_picture(seed=1, quality=60), person_id="bia", **crop).json()
    (result,) = body["results"]
    assert (body["inserted_count"], result["searchable"]) == (1, True)
    (warning,) = result["warnings"]
    assert (warning["code"], warning["person_id"]) == ("looks_like_someone_else", "ana")
    assert warning["similarity"] == pytest.approx(0.98, abs=0.02)
    assert "looks like somebody else who is enrolled: ana" in warning["message"]


def test_warnings_are_in_the_clients_order_and_absent_where_all_is_well(api):
    set_thresholds()
    crops = [draw_picture(seed=1), draw_picture(seed=1)]
    results = insert(api, *crops, use_face_detection="false").json()["results"]
    assert [[w["code"] for w in result["warnings"]] for result in results] == [
        [],
        ["same_picture"],
    ]
    (result,) = insert(
        api, draw_picture(colour=(4, 4, 4), size=(112, 112), seed=30), person_id="bia"
    ).json()["results"]
    assert [warning["code"] for warning in result["warnings"]] == ["too_dark"]
    assert set(result["warnings"][0]) == {"code", "message"}


def test_a_doubtful_picture_is_refused_when_told(api, settings, tmp_path):
    settings.ENROLL_QUALITY = "refuse"
    response = insert(api, draw_picture(colour=(4, 4, 4), size=(112, 112), seed=30))
    (result,) = response.json()["results"]
    assert (response.status_code, result["error"]) == (422, "low_quality")
    assert "too dark" in result["message"]
    assert_nothing_stored(tmp_path)


def assert_nothing_stored(tmp_path):
    assert not Person.objects.exists() and not FaceImage.objects.exists()
    assert not list((tmp_path / "media").rglob("*.*"))


def test_a_model_without_weights_stores_nothing(api, tmp_path):
    response = insert(api, draw_picture(), model="cosface_resnet50")
    assert response.status_code == 503
    assert response.json()["error"] == "weights_unavailable"
    assert response["Retry-After"]
    assert_nothing_stored(tmp_path)


def test_an_unreachable_store_stores_nothing(api, no_store, tmp_path):
    response = insert(api, draw_picture())
    assert response.status_code == 503
    assert response.json()["error"] == "vector_store_unavailable"
    assert_nothing_stored(tmp_path)


def test_a_store_that_another_process_holds_stores_nothing(api, tmp_path, settings):
    with_lock = LiteVectorStore(settings.RECOGNITION["MILVUS_URI"])
    with_lock.ping()
    try:
        response = insert(api, draw_picture())
    finally:
        with_lock.close()
    assert response.status_code == 503
    assert response.json()["error"] == "vector_store_locked"
    assert_nothing_stored(tmp_path)


@pytest.mark.parametrize(
    ("correct", "status"),
    [
        (lambda ana: corrections.change_person(ana, person_id="bia"), 200),
        (corrections.delete_person, 422),
    ],
)
def test_a_correction_before_the_answer_is_told_as_it_is(api, monkeypatch, correct, status):
    """A rename or deletion meanwhile used to give 503 `not_searchable_yet`, with advice to reindex."""
    index = indexing.index_rows

    def and_then_correct(*args):
        index(*args)
        correct(Person.objects.get())

    monkeypatch.setattr("enrollment.index.index_rows", and_then_correct)
    response = insert(api, draw_picture())
    (result,) = response.json()["results"]
    assert response.status_code == status, response.content
    assert (result["stored"], result["searchable"]) == (status == 200,) * 2
    assert result.get("error") == (None if status == 200 else "picture_not_found")


def test_a_store_that_fails_on_the_way_keeps_the_pictures_and_says_so(api, monkeypatch):
    def fail(*args):
        raise VectorStoreUnavailable("The disk is full.")

    monkeypatch.setattr(VectorStore, "upsert", fail)
    response = insert(api, draw_picture(), b"")
    body = response.json()
    assert response.status_code == 503
    assert (body["success"], body["error"]) == (False, "not_searchable_yet")
    assert body["inserted_count"] == 0
    assert "manage.py diagnose" in body["message"] and "Do not send it again" in body["message"]
    kept, refused = body["results"]
    assert (kept["stored"], kept["searchable"], kept["success"]) == (True, False, False)
    assert kept["message"].startswith("The vector database did not take the picture.")
    assert (refused["stored"], refused["error"]) == (False, "invalid_image")
    assert FaceEmbedding.objects.get().status == FaceEmbedding.Status.FAILED
    assert "Retry-After" not in response


def test_weights_replaced_on_the_way_are_told_as_what_somebody_must_mend(api, monkeypatch):
    """The message said that the server tries again by itself, which it does not do then."""
    monkeypatch.setattr(
        "enrollment.index.indexing._embed",
        lambda _model, rows, _crops: dict.fromkeys(
            [row.pk for row in rows], FaceEmbedding.Failure.WEIGHTS_REPLACED
        ),
    )
    body = insert(api, draw_picture()).json()
    assert body["error"] == "not_searchable_yet"
    assert "was replaced" in body["message"] and "manage.py reindex" in body["message"]
    assert "by itself" not in body["message"]


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param("not json", id="no JSON"),
        pytest.param('{"a": "b"}', id="an object"),
        pytest.param('"a.jpg"', id="a string"),
        pytest.param("[1]", id="numbers"),
        pytest.param('["a.jpg"]', id="too few"),
        pytest.param('["a.jpg", "b.jpg", "c.jpg"]', id="too many"),
        pytest.param('["a\\u0000.jpg", "b.jpg"]', id="a null character"),
        pytest.param('["\\ud800", "b.jpg"]', id="half a character"),
        pytest.param(json.dumps(["a" * 1001, "b"]), id="too long"),
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_wrong_image_paths_are_refused(api, paths, tmp_path):
    response = insert(api, draw_picture(), draw_picture(seed=1), image_paths=paths)
    body = response.json()
    assert response.status_code == 400
    assert list(body["fields"]) == ["image_paths"]
    assert_nothing_stored(tmp_path)


@pytest.mark.parametrize("paths", [{}, {"image_paths": ""}], ids=["absent", "empty"])
def test_image_paths_may_be_left_out(api, paths):
    assert insert(api, draw_picture(), **paths).status_code == 200


@pytest.mark.parametrize(
    "person_id",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty"),
        pytest.param(" \t ", id="blank"),
        pytest.param("x" * 201, id="too long"),
        pytest.param("a\0b", id="null character"),
    ],
)
def test_a_person_id_that_cannot_be_one_is_refused(api, person_id, tmp_path):
    fields = {} if person_id is None else {"person_id": person_id}
    response = api.post(INSERT, {"images": [upload()], **fields})
    assert response.status_code == 400
    assert list(response.json()["fields"]) == ["person_id"]
    assert_nothing_stored(tmp_path)


@pytest.mark.parametrize(
    "person_id",
    ["x" * 200, 'O\'Brien "the" 100%', "%(count)d {0} \\", "' or 1==1 --", "José 😀"],
)
def test_any_other_text_is_a_person_id(api, person_id):
    content = draw_picture()
    assert insert(api, content, person_id=person_id).status_code == 200
    found = api.post(SEARCH, {"image": upload(content)}).json()
    assert [hit["person_id"] for hit in found["results"]] == [person_id]


def test_search_answers_top_k_and_five_by_default(api):
    insert(api, *(draw_picture((112, 112), seed=seed) for seed in range(7)))
    assert api.post(SEARCH, {"image": upload()}).json()["total"] == 5
    found = api.post(SEARCH, {"image": upload(), "top_k": "2"}).json()
    assert found["total"] == len(found["results"]) == 2


def test_search_in_an_empty_gallery_finds_nobody(api):
    response = api.post(SEARCH, {"image": upload()})
    assert response.status_code == 200
    assert response.json()["results"] == [] and response.json()["total"] == 0


@pytest.mark.parametrize("top_k", ["0", "abc", "9" * 5000])
def test_a_top_k_out_of_bounds_is_refused(api, top_k):
    response = api.post(SEARCH, {"image": upload(), "top_k": top_k})
    assert response.status_code == 400
    assert list(response.json()["fields"]) == ["top_k"]


def test_an_empty_top_k_is_the_default(api):
    assert api.post(SEARCH, {"image": upload(), "top_k": ""}).status_code == 200


def test_search_finds_another_photo_of_the_same_person(api, faces):
    for name in ("Ann_Veneman", "George_Clooney", "Hans_Blix"):
        first, *_ = sorted((faces / name).iterdir())
        insert(api, first.read_bytes(), person_id=name)
    _, probe, *_ = sorted((faces / "Hans_Blix").iterdir())
    found = api.post(SEARCH, {"image": upload(probe.read_bytes())}).json()
    assert found["face_detected"] is True
    assert found["results"][0]["person_id"] == "Hans_Blix"


def test_search_without_the_store_is_503(api, no_store):
    response = api.post(SEARCH, {"image": upload()})
    assert response.status_code == 503
    assert response.json()["error"] == "vector_store_unavailable"


def test_stats_counts_vectors(api):
    expected = {"success": True, "collection": "face_embeddings", "row_count": 0}
    assert api.get("/api/milvus/stats").json() == expected
    insert(api, draw_picture(), draw_picture(seed=1))
    assert api.get("/api/milvus/stats/").json() == expected | {"row_count": 2}


def test_stats_without_the_store_is_503(api, no_store):
    assert api.get("/api/milvus/stats").status_code == 503


def test_the_insert_form_of_a_browser_takes_several_files(api):
    page = api.get(INSERT, headers={"accept": "text/html,application/xhtml+xml"}).content.decode()
    assert re.search(r'<input id="field-images" name="images"[^>]* type="file" multiple>', page)
    assert 'name="person_id"' in page


def test_gallery_calls_answer_with_a_slash(api, picture):
    assert insert(api, picture).status_code == 200
    form = {"images": upload(), "person_id": "b", "use_face_detection": "false"}
    assert api.post(f"{INSERT}/", form).status_code == 200
    assert api.post(f"{SEARCH}/", {"image": upload()}).json()["total"] == 2
