"""Answers of the search page that are kept: shown again, shared, acted on, and remembered."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from enrollment.models import (
    Calibration,
    FaceImage,
    Feedback,
    JournalEntry,
    Person,
    Probe,
    SearchAnswer,
)
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.enrollment.gallery import enroll, set_thresholds
from tests.pictures import upload

pytestmark = pytest.mark.django_db

ANA, BIA, CAL = (as_jpeg(draw_face(person)) for person in PEOPLE)
GROUP = as_jpeg(draw_group())


@pytest.fixture
def gallery(commits, weights) -> dict[str, Person]:
    """Ana and Bia with a face each; every similarity is a match."""
    with commits():
        for person_id, name, content in (("111", "Ana", ANA), ("222", "Bia", BIA)):
            enroll(person_id, content, name=name, use_face_detection=True)
    set_thresholds(-1, -1)
    return {person.name: person for person in Person.objects.all()}


def viewer(name: str, *permissions: str) -> Client:
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    user = User.objects.create_user(name)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    browser.force_login(user)
    return browser


def search(client: Client, *contents: bytes, **fields: object):
    sent = {"model": "mobilenetv3_large", "top_k": 5, "group_by_person": "on"} | fields
    return client.post("/", sent | {"images": [upload(each) for each in contents]})


def number_of(response) -> str:
    return re.findall(r'data-answer="(\w+)"', response.text)[0]


def act(client: Client, number: str, what: str, place: int = 1, **fields: object):
    return client.post(f"/answers/{number}/{place}", {"act": what} | fields, follow=True)


def face_of(response, place: int = 1):
    (answer,) = response.context["results"]
    return answer.faces[place - 1]


def names(hits) -> list[str]:
    return [shown.hit.person.name for shown in hits]


def test_an_answer_survives_a_reload_and_is_shared_by_its_number(boss, gallery) -> None:
    found = search(boss, GROUP)
    number = number_of(found)
    page = boss.get(f"/answers/{number}")
    for shown in ("face.jpg", "3 faces were found and compared", "Ana", "Bia", "1.000"):
        assert (shown in found.text) == (shown in page.text)
    before = [face for picture in found.context["pictures"] for face in picture.faces]
    for place, face in enumerate(before, 1):
        again = face_of(page, place)
        assert names(again.hits) == names(face.hits)
        assert again.box == pytest.approx(face.box, abs=0.01) and again.doubts == face.doubts
        assert again.uri == face.uri and again.decision == face.decision
    assert JournalEntry.objects.filter(action="searched").count() == 1

    colleague = viewer("colleague")
    shared = colleague.get(f"/answers/{number}")
    assert "Ana" in shared.text and 'name="act"' not in shared.text
    assert JournalEntry.objects.filter(action="searched", who="colleague").count() == 1
    assert Client(REMOTE_ADDR="10.0.0.7").get(f"/answers/{number}").status_code == 302

    both = boss.get(f"/answers/{number},{number_of(search(boss, ANA))}")
    assert len(both.context["results"]) == 2
    SearchAnswer.objects.filter(number=number).update(expires_at=timezone.now())
    gone = boss.get(f"/answers/{number}")
    assert gone.status_code == 404 and "Search again." in gone.text
    assert "face.jpg" not in gone.text


def test_what_is_kept_cannot_be_read_without_the_key(boss, gallery) -> None:
    number = number_of(search(boss, ANA))
    content = bytes(SearchAnswer.objects.get(number=number).content)
    assert b"face.jpg" not in content and b"quality" not in content


def test_nothing_can_be_done_where_answers_are_not_kept(boss, gallery, settings) -> None:
    settings.KEEP_ANSWERS_MINUTES = 0
    page = search(boss, ANA)
    assert "data-answer" not in page.text and 'name="act"' not in page.text
    settings.KEEP_PROBES_DAYS = 3
    assert 'name="act"' not in search(boss, ANA).text


def test_who_was_said_not_to_be_on_a_picture_is_set_aside(boss, api, gallery) -> None:
    ana = gallery["Ana"]
    number = number_of(search(boss, ANA))
    page = act(boss, number, "reject", person=ana.pk)
    assert "Remembered: this is not Ana" in page.text
    face = face_of(page)
    assert names(face.hits) == ["Bia"] and names(face.aside) == ["Ana"]
    assert "Set aside: admin said that it is not them" in page.text
    said = Feedback.objects.get()
    assert (said.verdict, said.person, said.decision) == ("rejected", ana, "match")
    assert said.face_image.person == ana and said.similarity > 0.99

    again = search(boss, ANA, top_k=1)
    (face,) = (face for picture in again.context["pictures"] for face in picture.faces)
    assert names(face.hits) == ["Bia"] and names(face.aside) == ["Ana"]
    other = search(boss, CAL)  # it holds for that picture only
    assert "Set aside" not in other.text

    body = api.post("/api/milvus/search", {"image": upload(ANA), "top_k": 1}).json()
    assert [hit["person_name"] for hit in body["results"]] == ["Bia"]
    (aside,) = body["set_aside"]
    assert (aside["person_id"], aside["person_name"], aside["by"]) == ("111", "Ana", "admin")
    assert aside["similarity"] > 0.99 and aside["at"]
    assert "set_aside" not in api.post("/api/milvus/search", {"image": upload(CAL)}).json()

    page = act(boss, number, "take_back", person=ana.pk)
    assert names(face_of(page).hits) == ["Ana", "Bia"] and not Feedback.objects.exists()
    assert names(face_of(act(boss, number, "confirm", person=ana.pk)).hits) == ["Ana", "Bia"]
    assert "admin)" in boss.get(f"/answers/{number}").text
    verdicts = [line.facts["verdict"] for line in JournalEntry.objects.filter(action="feedback")]
    assert sorted(verdicts) == ["confirmed", "rejected", "withdrawn"]


def test_who_sees_little_is_told_of_few_who_are_set_aside(boss, api, gallery) -> None:
    Calibration.objects.update(match=0.9, review=0.8)
    number = number_of(search(boss, ANA))
    for person in gallery.values():
        act(boss, number, "reject", person=person.pk)
    seen = search(viewer("maria"), ANA)
    (face,) = (face for picture in seen.context["pictures"] for face in picture.faces)
    assert names(face.aside) == ["Ana"] and "admin said" not in seen.text
    assert "Nobody known" in seen.text


def test_any_face_of_a_group_is_enrolled_as_somebody_new_and_that_is_undone(boss, gallery) -> None:
    number = number_of(search(boss, GROUP))
    wrong = act(boss, number, "new", 3, person_id=" ", answers=number)
    assert wrong.status_code == 400 and "This field is required." in wrong.text
    taken = act(boss, number, "new", 3, person_id="111")
    assert taken.status_code == 400 and "field-error" in taken.text
    page = act(boss, number, "new", 3, person_id="333", name="Cal")
    assert page.redirect_chain[0][0] == f"/answers/{number}#face-{number}-3"
    cal = Person.objects.get(person_id="333")
    assert "now enrolled as a picture of Cal" in page.text
    assert "This face is enrolled as a picture of Cal" in page.text
    probe = Probe.objects.get(answer__number=number, place=3)
    assert probe.settled_as == "assigned" and cal.face_images.get().source == "page"
    third = face_of(page, 3)
    hits = [names(face.hits)[0] for face in search(boss, GROUP).context["pictures"][0].faces]
    assert hits[2] == "Cal" and names(third.hits)[0] != "Cal"
    again = act(boss, number, "add", 3, who="Ana")
    assert "settled meanwhile" in again.text and Person.objects.count() == 3
    (back,) = set(re.findall(r'name="back" value="([^"]+)"', again.text))
    undone = boss.post(f"/people/trash/{probe.settled_in}/undo", {"back": back}, follow=True)
    assert undone.redirect_chain[0][0] == back == f"/answers/{number}#face-{number}-3"
    assert "This face is enrolled" not in undone.text and 'value="new"' in undone.text
    assert not Person.objects.filter(person_id="333").exists()


def test_a_face_is_added_to_whom_it_shows_or_to_somebody_else(boss, gallery) -> None:
    number = number_of(search(boss, BIA, ANA))
    act(boss, number, "add", 1, person=gallery["Bia"].pk)
    assert gallery["Bia"].face_images.count() == 2
    page = act(boss, number, "add", 2, who="bia")
    assert gallery["Bia"].face_images.count() == 3
    assert FaceImage.objects.count() == 4 and 'class="undo"' in page.text
    assert "Nobody has the id" in act(boss, number, "add", 2, who="nobody").text


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ((), set()),
        (("change_faceimage",), {"confirm", "reject", "take_back"}),
        (("view_person", "add_faceimage"), {"add"}),
        (("add_person", "add_faceimage"), {"new"}),
    ],
)
def test_each_act_needs_its_permission(gallery, permissions, allowed: set[str]) -> None:
    browser = viewer("maria", *permissions)
    page = search(browser, ANA)
    number = number_of(page)
    assert set(re.findall(r'name="act" value="(\w+)"', page.text)) <= allowed
    for name in ("confirm", "take_back", "reject", "new", "add"):
        fields = {"person": gallery["Ana"].pk, "person_id": "333"}
        answer = act(browser, number, name, **fields)
        assert ("lacks the permission" in answer.text) == (name not in allowed), name


def test_faces_of_others_and_persons_not_found_are_refused(boss, gallery, commits) -> None:
    number = number_of(search(boss, ANA, top_k=1))
    page = act(boss, number, "confirm", person=gallery["Bia"].pk)
    # Beside the face, to which the browser scrolls, and not above the form as well.
    assert page.text.count("not in the answer any more") == 1
    assert page.text.index("not in the answer any more") > page.text.index(f'id="face-{number}-1"')
    assert "has no face 7" in act(boss, number, "confirm", 7, person=gallery["Ana"].pk).text
    assert "Say what to do" in act(boss, number, "burn").text
    assert act(boss, "nosuchnumber", "confirm").status_code == 404
    Probe.objects.update(kept_until=timezone.now() - timedelta(days=1))
    assert not Feedback.objects.exists()


def test_a_comparison_with_whom_it_was_said_not_to_be_tells_so(boss, api, gallery) -> None:
    ana = gallery["Ana"]
    act(boss, number_of(search(boss, ANA)), "reject", person=ana.pk)
    sent = {"source_image": upload(ANA), "person_id": "111"}
    body = api.post("/api/verify", sent).json()
    assert (body["verified"], body["set_aside"][0]["person_id"]) == (True, "111")
    assert "set_aside" not in api.post("/api/verify", sent | {"source_image": upload(BIA)}).json()
    form = {"source": upload(ANA), "person": "111", "model": "mobilenetv3_large"}
    page = boss.post("/compare", form)
    assert "Set aside: admin said that it is not them" in page.text


def test_the_history_tells_in_words_who_said_what(boss, gallery) -> None:
    ana = gallery["Ana"]
    number = number_of(search(boss, ANA))
    for what in ("confirm", "reject", "take_back"):
        act(boss, number, what, person=ana.pk)
    viewer("colleague").get(f"/answers/{number}")
    page = boss.get(f"/people/{ana.pk}/").text
    for told in (
        "admin confirmed a match with Ana",
        "admin said of a match that it is not Ana",
        "admin took back what was said of a match",
        "colleague looked at the answer of a search",
    ):
        assert told in page


def test_an_answer_sealed_with_another_key_is_refused_in_words(boss, gallery) -> None:
    number = number_of(search(boss, ANA))
    answer = SearchAnswer.objects.get(number=number)
    SearchAnswer.objects.update(content=bytes(answer.content)[:-1] + b"\0\0")
    page = boss.get(f"/answers/{number}")
    assert page.status_code == 503 and "The answer cannot be read" in page.text
    SearchAnswer.objects.update(content=None)
    assert "was given to a program" in boss.get(f"/answers/{number}").text
