"""What a Viewer sees: the persons whom they found, with pictures, for a limited time, and nothing
of others."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape
from urllib.parse import urlsplit

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from rest_framework.authtoken.models import Token

from enrollment.index import index_rows
from enrollment.models import FaceEmbedding
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import add_vectors, enroll, set_thresholds
from tests.pictures import draw_picture, upload

SEARCH = "/api/milvus/search"


@pytest.fixture
def viewer(db) -> User:
    return User.objects.create_user("viewer")


@pytest.fixture
def call(api, viewer):
    headers = {"authorization": f"Token {Token.objects.create(user=viewer).key}"}

    def call(path: str, data=None):
        method = api.get if data is None else api.post
        return method(path, data, REMOTE_ADDR="10.0.0.7", headers=headers)

    return call


@pytest.fixture
def browser(viewer) -> Client:
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    browser.force_login(viewer)
    return browser


@pytest.fixture
def gallery(commits, weights) -> list[int]:
    """Ana, and five persons who do not look like her; returns the ids of their pictures."""
    with commits():
        made = [enroll(f"person {n}", draw_picture(seed=n)) for n in range(6)]
    set_thresholds()
    return [each.outcomes[0].face_image.pk for each in made]


def of(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


def test_the_gallery_cannot_be_listed(call, viewer, gallery):
    asked = {"image": upload(draw_picture(seed=1)), "top_k": 1000, "threshold": -1}
    asked["use_face_detection"] = False
    body = call(SEARCH, asked).json()
    assert [hit["person_id"] for hit in body["results"]] == ["person 1"]
    assert body["total"] == 1
    viewer.user_permissions.add(Permission.objects.get(codename="view_person"))
    asked["image"] = upload(draw_picture(seed=1))
    assert call(SEARCH, asked).json()["total"] == 6


def test_at_most_20_hits_are_shown(call, db, commits):
    pictures = add_vectors({"ana": 30}, noise=0.01)
    row = FaceEmbedding.objects.get(face_image=pictures[0])
    set_thresholds(match=0.5, review=0.4)
    FaceEmbedding.objects.update(status=FaceEmbedding.Status.PENDING)
    index_rows(list(FaceEmbedding.objects.values_list("pk", flat=True)))
    sent = {"embedding": json.dumps(row.array.tolist()), "top_k": 1000}
    assert call(SEARCH, sent).json()["total"] == 20


def test_without_thresholds_nobody_is_found(call, gallery, monkeypatch):
    monkeypatch.setattr("enrollment.api.probes.search_thresholds", lambda model: None)
    sent = {"image": upload(draw_picture(seed=1)), "use_face_detection": False}
    body = call(SEARCH, sent).json()
    assert (body["total"], body["decision"]) == (0, None)


def test_pictures_are_seen_by_who_found_them_for_a_while(call, browser, gallery, monkeypatch):
    for pk in gallery:
        assert call(f"/pictures/{pk}").status_code == 403
        assert browser.get(f"/pictures/{pk}?size=face").status_code == 403
    sent = {"image": upload(draw_picture(seed=1)), "use_face_detection": False}
    found = call(SEARCH, sent).json()["results"][0]["image_url"]
    assert call(of(found)).status_code == 200
    key = urlsplit(found).query
    assert call(f"/pictures/{gallery[2]}?{key}").status_code == 403
    other = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    assert other.get(of(found)).status_code == 302
    other.force_login(User.objects.create_user("other"))
    assert other.get(of(found)).status_code == 403
    monkeypatch.setattr("enrollment.web.visibility.SEEN_FOR", timedelta(seconds=-1))
    assert call(of(found)).status_code == 403


def test_the_page_shows_what_was_found_and_no_more(browser, gallery, commits):
    with commits():
        enroll("the woman", as_jpeg(draw_face(PEOPLE[0])), use_face_detection=True)
    sent = {"model": "mobilenetv3_large", "top_k": 50, "group_by_person": "on"}
    page = browser.post("/", sent | {"images": upload(as_jpeg(draw_face(PEOPLE[0])))})
    shown = page.content.decode()
    assert "the woman" in shown and not re.search(r"person \d", shown)
    (picture,) = set(re.findall(r'href="(/pictures/[^"]+)"', shown))
    assert browser.get(unescape(picture)).status_code == 200
    page = browser.post("/", sent | {"images": upload(as_jpeg(draw_face(PEOPLE[1])))})
    shown = page.content.decode()
    assert "Nobody known" in shown and "/pictures/" not in shown and "the woman" not in shown


def verify(call, person_id: str, **fields: object) -> dict:
    sent = {"source_image": upload(draw_picture(seed=1)), "use_face_detection": False} | fields
    answer = call("/api/verify", sent | {"person_id": person_id})
    assert answer.status_code == 200, answer.content
    return answer.json()


@pytest.mark.parametrize("fields", [{}, {"threshold": -1}, {"require_face": False}])
def test_a_guessed_id_tells_nothing(call, gallery, fields):
    """Used to be 404 for an unknown id, and to reveal the similarity to an existing person."""
    FaceEmbedding.objects.filter(face_image=gallery[3]).delete()  # nothing to compare with
    known = verify(call, "person 2", **fields)
    assert known == verify(call, "nobody", **fields) == verify(call, "person 3", **fields)
    assert (known["verified"], known["similarity"], known["decision"]) == (False, None, "unknown")
    assert not {"id", "person_id", "person_name", "image_url"} & set(known["target"])

    found = verify(call, "person 1", **fields)
    assert found["verified"] and found["similarity"] > 0.99
    assert call(of(found["target"]["image_url"])).status_code == 200


def test_a_guessed_id_tells_nothing_without_a_face(call, gallery):
    fields = {"use_face_detection": True, "require_face": False}
    known = verify(call, "person 1", **fields)
    assert known == verify(call, "nobody", **fields)
    assert (known["verified"], known["similarity"]) == (None, None)
    assert known["decision_reason"] == "no_face_detected"


def test_who_may_browse_is_told_that_an_id_is_nobodys(call, viewer, gallery):
    viewer.user_permissions.add(Permission.objects.get(codename="view_person"))
    sent = {"source_image": upload(draw_picture(seed=1)), "use_face_detection": False}
    missing = call("/api/verify", sent | {"person_id": "nobody"})
    assert (missing.status_code, missing.json()["error"]) == (404, "person_not_found")
    assert verify(call, "person 2")["similarity"] < 0.9


def test_a_vector_alone_lists_nobody(call, gallery):
    vector = np.ones(512) / 512**0.5
    assert call(SEARCH, {"embedding": json.dumps(vector.tolist())}).json()["total"] == 0


@pytest.mark.parametrize("key", ["", "x", "1:2:3", "%00"])
def test_a_key_cannot_be_guessed(call, gallery, key):
    assert call(f"/pictures/{gallery[0]}?key={key}").status_code == 403
