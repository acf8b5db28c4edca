"""A picture beside an enrolled person, the quality of both sides, and the report to keep."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_file, encode_multipart

from enrollment.models import JournalEntry, Person, SearchEntry
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.enrollment.gallery import enroll, set_thresholds
from tests.pictures import upload

pytestmark = pytest.mark.django_db

ANA, BIA, CAIO = (as_jpeg(draw_face(person)) for person in PEOPLE[:3])


@pytest.fixture
def gallery(commits, weights) -> Person:
    """Ana and Bia, with a face each; thresholds that tell them apart."""
    with commits():
        for person_id, name, content in (("111", "Ana Lima", ANA), ("222", "Bia Lima", BIA)):
            enroll(person_id, content, name=name, use_face_detection=True)
    set_thresholds()
    return Person.objects.get(person_id="111")


@pytest.fixture
def viewer(db) -> Client:
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    browser.force_login(User.objects.create_user("viewer"))
    return browser


def compare(client: Client, source: bytes, person: str, **more: object):
    sent = {"source": upload(source), "person": person, "model": "mobilenetv3_large"} | more
    return client.post("/compare", sent)


def report_of(response) -> str:
    (address,) = re.findall(r'href="data:text/html;charset=utf-8;base64,([^"]+)"', response.text)
    return b64decode(address).decode()


@pytest.mark.parametrize("name", ["111", "ana"])
def test_a_picture_is_compared_with_all_of_a_person(boss, gallery, name: str) -> None:
    response = compare(boss, as_jpeg(draw_group()), name)
    assert response.status_code == 200
    comparison = response.context["comparison"]
    assert [len(row) for row in comparison.rows] == [1, 1, 1]
    assert comparison.person == gallery and comparison.best.decision == "match"
    assert "Ana Lima (111)" in response.text
    assert "First picture: trust the answer less" in response.text  # the face in the middle
    assert "Enrolled picture: good to recognise" in response.text
    entry = SearchEntry.objects.get()
    assert (entry.channel, entry.person, entry.decision) == ("verify", gallery, "match")
    assert JournalEntry.objects.filter(action="verified").exists()


def test_the_report_stands_alone_and_says_what_was_compared(boss, gallery) -> None:
    report = report_of(compare(boss, ANA, "111"))
    for text in ("The same person", "1.000", "Ana Lima (111)", "by admin", "no proof"):
        assert text in report
    assert hashlib.sha256(ANA).hexdigest() in report
    addresses = re.findall(r'(?:src|href)="([^"]*)"', report)
    assert len(addresses) == 3 and all(each.startswith("data:image/jpeg") for each in addresses)
    assert "<script" not in report and "csrf" not in report


def test_the_report_of_two_pictures_has_both(boss, weights) -> None:
    response = compare(boss, ANA, "", target=upload(as_jpeg(draw_group())))
    report = report_of(response)
    assert "Every face with every other" in report
    assert report.count("SHA-256") == 2


def test_the_form_asks_for_one_thing_to_compare_with(boss, gallery) -> None:
    assert "Leave one of them out." in compare(boss, ANA, "111", target=upload(BIA)).text
    assert "or name an enrolled person" in compare(boss, ANA, " ").text
    several = compare(boss, ANA, "lima")
    assert several.status_code == 404 and "Several people have" in several.text
    nobody = compare(boss, ANA, "999")
    assert nobody.status_code == 404 and "Nobody has the id" in nobody.text


def test_who_may_not_browse_learns_only_of_whom_the_picture_shows(viewer, gallery) -> None:
    unlike, unknown, by_name = (compare(viewer, ANA, text).text for text in ("222", "999", "ana"))
    assert "Not known to be the same person" in unlike
    masked = [re.sub(r'(value|name)="[^"]*"', "", text) for text in (unlike, unknown, by_name)]
    assert masked[0] == masked[1] == masked[2] and "Lima" not in unlike
    found = compare(viewer, ANA, "111")
    assert "Ana Lima" in found.text and "/people/" not in found.text


def test_the_persons_page_leads_to_the_form(boss, viewer, gallery) -> None:
    page = boss.get(f"/people/{gallery.pk}/").text
    assert f'href="/compare?person={gallery.pk}"' in page
    assert 'value="111"' in boss.get(f"/compare?person={gallery.pk}").text
    assert 'value="111"' not in viewer.get(f"/compare?person={gallery.pk}").text
    assert boss.get("/compare?person=²").status_code == 200


def test_the_camera_of_a_phone_gives_either_picture(boss, weights) -> None:
    """Without a script a phone's camera is a second input of the same name."""
    page = boss.get("/compare").text
    for name in ("source", "target"):
        inputs = re.findall(rf'<input type="file" name="{name}"[^>]*>', page)
        assert len(inputs) == 2 and "capture" in inputs[1]
        assert not any("required" in each for each in inputs)
    data = encode_multipart(BOUNDARY, {"source": upload(ANA), "model": "mobilenetv3_large"})
    first, second = (
        encode_file(BOUNDARY, "target", upload(ANA)),
        encode_file(BOUNDARY, "target", upload(b"", "x")),
    )
    second[1] = second[1].replace(b'filename="x"', b'filename=""')  # as browsers send an empty one
    end = f"--{BOUNDARY}--\r\n".encode()
    body = data.removesuffix(end) + b"\r\n".join([*first, *second, end])
    assert boss.generic("POST", "/compare", body, MULTIPART_CONTENT).status_code == 200
