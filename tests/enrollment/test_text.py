"""Text that is not UTF-8 is rejected everywhere, so that no person gets a damaged name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.test import Client

from enrollment.models import FaceImage, Person
from tests.pictures import draw_picture

pytestmark = pytest.mark.django_db

CASES = Path(__file__).parent.parent / "cases"
LATIN1 = "João".encode("latin-1")
MULTIPART = "multipart/form-data; boundary=b0"


def part(disposition: bytes, content: bytes) -> bytes:
    head = b"Content-Disposition: form-data; " + disposition
    return b"--b0\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0--\r\n"


def pictures(name: bytes) -> bytes:
    return part(b'name="images"; ' + name, draw_picture())


PERSON = part(b'name="person_id"', b"ana")
REFUSED = {
    "value": body(part(b'name="person_id"', LATIN1), pictures(b'filename="a.jpg"')),
    "name of a field": body(part(b'name="' + LATIN1 + b'"', b"x"), PERSON),
    "file name": body(PERSON, pictures(b'filename="' + LATIN1 + b'.jpg"')),
    "percent signs": body(PERSON, pictures(b"filename*=UTF-8''Jo%E3o.jpg")),
    "second picture": body(
        PERSON, pictures(b'filename="a.jpg"'), pictures(b'filename="' + LATIN1 + b'"')
    ),
}


def says_so(answer) -> bool:
    answered = answer.json()
    return (
        answer.status_code == 400
        and answered["error"] == "not_utf8"
        and "UTF-8" in answered["message"]
    )


@pytest.mark.parametrize("name", REFUSED)
def test_forms_that_are_not_utf8_are_refused(name, api):
    answer = api.generic("POST", "/api/milvus/insert", REFUSED[name], content_type=MULTIPART)
    assert (
        says_so(answer)
        and "\\xe3" in answer.json()["message"].lower()
        and "\ufffd" not in answer.content.decode()
    )
    assert not Person.objects.exists() and not FaceImage.objects.exists()


@pytest.mark.parametrize(
    "case", sorted(CASES.glob("insert_latin1_*.http")), ids=lambda path: path.stem
)
def test_requests_of_clients_that_write_latin1(case, api):
    _head, _end, sent = case.read_bytes().partition(b"\r\n\r\n")
    assert says_so(api.generic("POST", "/api/milvus/insert", sent, content_type=MULTIPART))
    assert not Person.objects.exists()


def test_json_forms_and_addresses_that_are_not_utf8_are_refused(api, boss):
    form = "application/x-www-form-urlencoded"
    assert says_so(api.generic("POST", "/api/persons", b"person_id=Jo%E3o", content_type=form))
    json = b'{"person_id": "' + LATIN1 + b'"}'
    assert says_so(api.generic("POST", "/api/persons", json, content_type="application/json"))
    assert says_so(api.get("/api/persons?q=Jo%E3o"))
    for answer in (
        boss.get("/people/?q=Jo%E3o"),
        boss.generic("POST", "/people/new", b"person_id=Jo%E3o", content_type=form),
        boss.generic("POST", "/people/new", REFUSED["value"], content_type=MULTIPART),
    ):
        assert answer.status_code == 400 and "UTF-8" in answer.content.decode()
    assert not Person.objects.exists()


def test_forms_are_checked_before_the_token_that_guards_them():
    browser = Client(enforce_csrf_checks=True, headers={"host": "localhost"})
    browser.cookies["csrftoken"] = "a" * 32
    answer = browser.generic("POST", "/", REFUSED["value"], content_type=MULTIPART)
    assert answer.status_code == 400 and "UTF-8" in answer.content.decode()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ('filename="João.jpg"'.encode(), "João.jpg"),
        (b"filename*=UTF-8''Jo%C3%A3o.jpg", "João.jpg"),
        (b"filename*=iso-8859-1''Jo%E3o.jpg", "João.jpg"),
        (b'filename=".."', "unnamed"),
        (b'filename="' + b"a" * 240 + b'.jpg"', "a" * 240 + ".jpg"),
    ],
)
def test_names_that_can_be_read_are_kept(given, kept, api, weights):
    sent = body(PERSON, pictures(given), part(b'name="use_face_detection"', b"false"))
    answer = api.generic("POST", "/api/milvus/insert", sent, content_type=MULTIPART)
    assert [result["filename"] for result in answer.json()["results"]] == [kept]


def test_large_pictures_are_read_whole(api):
    """Their content may resemble boundaries and ends of headers, across the pieces of the body."""
    content = b"--b\r\n\r\n\xe3--b0x" * 200_000
    sent = body(part(b'name="image"; filename="a.jpg"', content.replace(b"--b0x", b"--b1x")))
    answer = api.generic("POST", "/api/detect", sent, content_type=MULTIPART)
    assert answer.status_code == 400 and answer.json()["error"] == "invalid_image"


def test_declared_charset_is_believed(api):
    sent = body(part(b'name="person_id"', LATIN1), part(b'name="notes"', b"x"))
    answer = api.generic("POST", "/api/persons", sent, content_type=f"{MULTIPART}; charset=latin-1")
    assert answer.status_code == 201 and answer.json()["person_id"] == "João"


def test_repeated_fields_are_refused(api):
    sent = {"image": [io.BytesIO(draw_picture()), io.BytesIO(draw_picture())]}
    answer = api.post("/api/embedding", sent)
    assert answer.status_code == 400 and "2 times" in answer.json()["fields"]["image"][0]
    answer = api.post(
        "/api/milvus/insert", {"images": io.BytesIO(draw_picture()), "person_id": ["a", "b"]}
    )
    assert answer.status_code == 400 and list(answer.json()["fields"]) == ["person_id"]
    assert not Person.objects.exists()


def test_unknown_fields_are_named(api, weights):
    sent = {"image": io.BytesIO(draw_picture()), "topk": "3", "use_face_detection": "false"}
    answer = api.post("/api/milvus/search", sent)
    assert answer.status_code == 200
    (warning,) = answer.json()["warnings"]
    assert "'topk'" in warning and "top_k" in warning
    answer = api.post("/api/persons", {"person_id": "ana", "nome": "Ana"}, format="json")
    assert answer.status_code == 201 and "'nome'" in answer.json()["warnings"][0]
    answer = api.patch("/api/persons/ana", {"nome": "Ana"}, format="json")
    assert answer.status_code == 400 and "'nome'" in answer.json()["warnings"][0]
    assert "warnings" not in api.patch("/api/persons/ana", {"name": "Ana"}, format="json").json()


def test_api_warns_of_people_easily_mistaken(api, weights):
    api.post("/api/persons", {"person_id": "123.456.789-09", "name": "Ana"}, format="json")
    answer = api.post("/api/persons", {"person_id": "7", "name": "ána"}, format="json")
    assert answer.status_code == 201 and "same name" in answer.json()["warnings"][0]
    sent = {"person_id": "12345678909", "use_face_detection": "false"}
    answer = api.post("/api/milvus/insert", sent | {"images": io.BytesIO(draw_picture())})
    assert "only in punctuation" in answer.json()["warnings"][0]
    answer = api.post("/api/milvus/insert", sent | {"images": io.BytesIO(draw_picture(seed=2))})
    assert "warnings" not in answer.json()
