"""The Python client against a running server."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
from faceclient import FaceApiError, FaceClient

from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.gallery_folder import migrated_data
from tests.pictures import draw_picture
from tests.test_server import Served

ODD_IDS = ["a/b", "ç %\"'", "a/images", "x/", "50%2Foff"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("client") / "data"
    served = Served(Path(shutil.copytree(migrated_data(), data)))
    yield served
    served.stop()


@pytest.fixture
def faces(server: Served) -> Iterator[FaceClient]:
    """A client of an empty gallery, whose trash is empty too."""
    with FaceClient(server.url + "/") as client:
        for person in client.persons(page_size=2):
            client.erase_person(person["person_id"])
        for item in client.trash(page_size=2):
            client.erase(item["id"])
        deadline = time.monotonic() + 60
        while client.stats()["row_count"]:  # the server deletes vectors after its answer
            assert time.monotonic() < deadline, "The vectors of the deleted persons stay."
        yield client


def refusal(call) -> FaceApiError:
    with pytest.raises(FaceApiError) as refused:
        call()
    return refused.value


def test_the_service_describes_itself(faces):
    assert faces.health()["status"] == "healthy"
    models = faces.models()
    assert models["default"] in {model["name"] for model in models["models"]}
    assert faces.stats()["row_count"] == 0
    assert list(faces.inbox(kind="probe")) == []
    assert refusal(lambda: faces.settle("probe-0", "discard")).code == "already_settled"


def test_pictures_come_in_every_form(faces, tmp_path: Path):
    content = draw_picture(format="PNG")
    file = tmp_path / "who.png"
    file.write_bytes(content)
    with file.open("rb") as handle:
        answers = [faces.embedding(it) for it in (file, str(file), content, handle)]
    answers.append(faces.embedding(io.BytesIO(content)))
    assert len(answers[0]["embedding"]) == answers[0]["embedding_dim"] == 512
    assert all(answer["embedding"] == answers[0]["embedding"] for answer in answers)
    assert faces.detect(content)["faces"] == []
    batch = faces.embeddings([content, b"nothing"], use_face_detection=False)
    assert [result["success"] for result in batch["results"]] == [True, False]
    for one in (file, str(file), content, io.BytesIO(content)):  # each letter was a path to open
        assert faces.embeddings(one)["total"] == 1
    assert faces.embeddings(tmp_path.glob("*.png"))["total"] == 1
    vector = np.array(answers[0]["embedding"], np.float32)
    assert faces.search(embedding=vector)["results"] == []


def test_insert_search_verify(faces):
    one, two = draw_picture(seed=1), draw_picture(seed=2)
    inserted = faces.insert("ana", [one], image_paths=["/a/1.jpg"], use_face_detection=False)
    assert inserted["inserted_count"] == 1
    (hit,) = faces.search(one, top_k=3)["results"]
    assert (hit["person_id"], hit["image_path"]) == ("ana", "/a/1.jpg")
    assert hit["similarity"] == pytest.approx(1, abs=1e-3)
    vector = faces.embedding(one)["embedding"]
    assert faces.search(embedding=vector)["results"][0]["id"] == hit["id"]
    plain = {"use_face_detection": False, "require_face": False}
    assert faces.verify(one, two, **plain)["similarity"] < 0.999
    assert faces.verify(one, person_id="ana", **plain)["target"]["person_id"] == "ana"


def test_same_key_stores_once(faces):
    content = as_jpeg(draw_face(PEOPLE[0]))
    first, second = (faces.insert("ana", [content], idempotency_key="k-1") for _ in range(2))
    assert first == second and faces.person("ana")["picture_count"] == 1
    faces.insert("ana", [content])
    assert faces.person("ana")["picture_count"] == 2


@pytest.mark.parametrize("person_id", ODD_IDS)
def test_any_id_can_be_named(faces, person_id):
    made = faces.create_person(person_id, name="Odd")
    assert made["person_id"] == person_id
    assert faces.person(person_id)["name"] == "Odd"
    assert requests.get(made["url"], timeout=60).json()["person_id"] == person_id
    assert list(faces.pictures(person_id)) == []
    assert faces.delete_person(person_id) == 0


def test_persons_are_listed_changed_merged(faces):
    for number in range(5):
        faces.create_person(f"p{number}", name="Lima" if number % 2 else "")
    assert [each["person_id"] for each in faces.persons(page_size=2)] == [
        f"p{number}" for number in range(5)
    ]
    assert [each["person_id"] for each in faces.persons("lima", ordering="-person_id")] == [
        "p3",
        "p1",
    ]
    created = next(faces.journal(action="created"))
    assert (created["channel"], created["persons"][0]["person_id"]) == ("api", "p4")
    assert faces.change_person("p0", new_id="ana", notes="n")["notes"] == "n"
    assert faces.merge_persons("ana", "p1")["name"] == "Lima"
    assert faces.person("p1")["person_id"] == "ana"  # the id lives on
    faces.delete_person("p2")
    assert faces.restore_person("p2", new_id="p5")["person_id"] == "p5"
    (merge,) = (item for item in faces.trash() if item["kind"] == "merge")
    assert (merge["kind"], faces.undo(merge["id"])["person_ids"]) == ("merge", ["p1"])
    faces.delete_person("p1", erase=True)
    assert refusal(lambda: faces.person("p1")).code == "person_not_found"


def test_lists_that_change_while_they_are_walked_are_walked_whole(faces):
    """Pages by number moved up: whoever deleted what a page told missed the page after it."""
    for number in range(5):
        faces.create_person(f"p{number}")
    for person in faces.persons(page_size=2):
        faces.delete_person(person["person_id"])
    assert list(faces.persons()) == []
    receipts = [faces.erase(item["id"]) for item in faces.trash(page_size=2)]
    ids = [receipt["receipt"]["person_id"] for (receipt,) in receipts]
    assert ids == ["p4", "p3", "p2", "p1", "p0"] and not list(faces.trash())
    for person_id in ("ana", "bia", "caio"):
        faces.insert(person_id, [draw_picture(seed=1)], use_face_detection=False)
    cards = [card["key"] for card in faces.inbox(kind="doubt", page_size=1)]
    settled = [
        faces.settle(card["key"], "confirm") for card in faces.inbox(kind="doubt", page_size=1)
    ]
    assert len(settled) == len(cards) > 1 and not list(faces.inbox(kind="doubt"))


def test_feedback_is_given_by_the_picture_too(faces):
    content = as_jpeg(draw_face(PEOPLE[0]))
    faces.insert("ana", [content])
    said = faces.feedback("ana", "rejected", image=content)
    assert (said["verdict"], said["person_id"]) == ("rejected", "ana")
    assert faces.search(content)["results"] == []
    faces.feedback("ana", "withdrawn", image=content)
    assert len(faces.search(content)["results"]) == 1
    assert "answer_number" in refusal(lambda: faces.feedback("ana", "confirmed")).fields


def test_pictures_are_added_shown_moved_deleted(faces):
    faces.create_person("ana")
    faces.add_pictures(
        "ana", [draw_picture(seed=1), draw_picture(seed=2)], use_face_detection=False
    )
    newest, oldest = faces.pictures("ana", page_size=1)
    assert newest["embeddings"][0]["status"] == "indexed"
    assert faces.picture("ana", oldest["id"])[:2] == b"\xff\xd8"
    assert len(faces.picture("ana", oldest["id"], thumbnail=True)) > 0
    moved = faces.move_picture("ana", oldest["id"], "b/ia", create_person=True)
    assert moved["person_id"] == "b/ia"
    faces.delete_picture("ana", newest["id"])
    counts = {each["person_id"]: each["picture_count"] for each in faces.persons()}
    assert counts == {"ana": 0, "b/ia": 1}


def test_consents_are_recorded_read_and_removed(faces, tmp_path: Path):
    faces.create_person("a/na")
    signed = tmp_path / "signed.txt"
    signed.write_bytes(b"yes")
    plain = faces.add_consent("a/na", day="2026-11-26")
    made = faces.add_consent("a/na", signed, day="2026-11-27", expires="2027-11-27")
    assert [(each["id"], each["document"]) for each in faces.consents("a/na")] == [
        (made["id"], "signed.txt"),
        (plain["id"], ""),
    ]
    assert faces.consent_document("a/na", made["id"]) == b"yes"
    pdf = faces.add_consent("a/na", b"%PDF-1.4 signed", day="2026-11-25")
    assert pdf["document"] == "document.pdf"  # was image.jpg
    faces.remove_consent("a/na", pdf["id"])
    assert faces.export_person("a/na")[:2] == b"PK"
    faces.remove_consent("a/na", made["id"])
    assert [each["id"] for each in faces.consents("a/na")] == [plain["id"]]


def test_lists_are_repeated_fields(faces):
    """The list itself was sent as one text, and no purpose has such a name."""
    error = refusal(lambda: faces.import_zip(b"PK", purposes=["door", "gate"]))
    assert error.code == "unknown_purpose" and "'door'" in error.message


def test_refusals_say_what_the_server_said(faces):
    error = refusal(lambda: faces.embedding(b"no picture"))
    assert (error.status, error.code) == (400, "invalid_image")
    assert error.message in str(error) and len(error.request_id) == 32
    error = refusal(lambda: faces.create_person(""))
    assert list(error.fields) == ["person_id"]


def test_messages_come_in_the_language_asked_for(server):
    with FaceClient(server.url, language="pt-BR") as client:
        inserted = client.insert("pt", [draw_picture(seed=9)], use_face_detection=False)
        assert inserted["message"] == "1 embedding inserido com sucesso"
        client.delete_person("pt")


def test_wrong_token_is_refused(server):
    error = refusal(FaceClient(server.url, token="wrong").models)
    assert (error.status, error.code) == (401, "authentication_failed")


@pytest.fixture
def busy() -> Iterator[tuple[str, list]]:
    """A server that answers from a list of (status, Retry-After), then succeeds, and records its
    requests."""
    answers, seen = [], []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.command, self.headers.get("Idempotency-Key"), len(body)))
            status, after = answers.pop(0) if answers else (200, None)
            text = json.dumps({"error": "busy", "message": "Wait."}).encode()
            self.send_response(status)
            if after is not None:
                self.send_header("Retry-After", after)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", answers, seen
    http.shutdown()
    http.server_close()


def test_answers_that_ask_to_wait_are_asked_again(busy):
    url, answers, seen = busy
    answers += [(429, "0"), (503, "0")]
    FaceClient(url).insert("ana", [b"picture"])
    assert len(seen) == 3 and len({key for _method, key, _size in seen}) == 1
    assert seen[0][2] > 7  # and every time the whole form
    assert len({size for _method, _key, size in seen}) == 1


@pytest.mark.parametrize(
    ("answers_given", "call", "requests_made"),
    [
        ([(503, "0")], lambda client: client.create_person("ana"), 1),
        ([(503, None)], lambda client: client.models(), 1),
        ([(429, "3600")], lambda client: client.models(), 1),
        ([(500, "0")], lambda client: client.models(), 1),
        ([(503, "0")] * 3, lambda client: client.models(), 3),
    ],
    ids=["would do it twice", "no time named", "too long", "a fault", "not for ever"],
)
def test_what_is_not_repeated_is_told(busy, answers_given, call, requests_made):
    url, answers, seen = busy
    answers += answers_given
    refusal(lambda: call(FaceClient(url)))
    assert len(seen) == requests_made
