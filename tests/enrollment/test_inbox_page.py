"""The page of the inbox, in a browser without JavaScript, and the answers to its script."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client

from enrollment import inbox
from enrollment.corrections import merge_persons
from enrollment.models import Doubt, FaceImage, JournalEntry, Person, Probe
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import add_vectors, enroll, set_thresholds
from tests.enrollment.test_views import Markup
from tests.pictures import upload

pytestmark = pytest.mark.django_db

ANA, BIA, CAL = PEOPLE
FRAGMENT = {"x-fragment": "1"}


@pytest.fixture(scope="module")
def photos() -> dict[int, bytes]:
    return {seed: as_jpeg(draw_face(seed)) for seed in PEOPLE}


@pytest.fixture
def desk(boss, settings, weights, photos) -> Client:
    """An operator with Ana enrolled; Bia was searched twice and Cal once, whom nobody knows."""
    settings.KEEP_PROBES_DAYS = 3
    enroll("ana", photos[ANA], use_face_detection=True)
    set_thresholds(0.99, 0.98)
    for seed in (BIA, BIA, CAL):
        images = [upload(photos[seed])]
        boss.post("/", {"images": images, "model": "mobilenetv3_large", "top_k": 3})
    cache.clear()  # of the number of cards
    return boss


def keys(response) -> list[str]:
    return [each.card.key for each in response.context["cards"]]


def said(response) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def waiting() -> list[str]:
    return [each.key for each in inbox.cards(limit=9)]


def test_a_card_is_settled_and_taken_back(desk, photos):
    page = desk.get("/inbox/")
    bia, cal = keys(page)
    assert "came 2 times" in page.text and "2 cards wait" in page.text
    assert f'data-key="{cal}" tabindex="-1" aria-labelledby="why-{cal}" hidden' in page.text
    done = desk.post("/inbox/", {"key": bia, "act": "new", "person_id": "bia"}, follow=True)
    assert "bia has 1 face more. These are the best of 2, and all are settled." in said(done)
    assert keys(done) == [cal]
    ana = Person.objects.get(person_id="ana")
    done = desk.post("/inbox/", {"key": cal, "act": f"assign:{ana.pk}"}, follow=True)
    assert cal not in keys(done)
    assert ana.face_images.count() == 2
    lines = JournalEntry.objects.filter(action="settled").order_by("number")
    assert [line.facts["faces"] for line in lines] == [2, 1]
    back = desk.post("/inbox/undo", follow=True)
    assert "the card is back" in said(back) and keys(back) == [cal]
    assert keys(desk.post("/inbox/undo", follow=True)) == [bia, cal]
    assert not Person.objects.filter(person_id="bia").exists()
    assert "nothing to undo" in said(desk.post("/inbox/undo", follow=True))


def test_a_page_of_the_list_that_was_settled_whole_leads_to_the_first(desk, monkeypatch):
    monkeypatch.setattr("enrollment.pages.inbox.LISTED", 1)
    second = desk.get("/inbox/?view=list&page=2")
    (cal,) = keys(second)
    left = desk.post("/inbox/?view=list&page=2", {"key": cal, "act": "discard"}, follow=True)
    assert len(keys(left)) == 1 and keys(left) != [cal]
    assert 'id="nothing" tabindex="-1" hidden' in left.text


def test_what_was_ticked_and_typed_stays_when_it_is_refused(desk):
    both = waiting()
    form = {"key": both, "act": "new", "person_id": "ana", "name": "Ana L"}
    for view in ("?view=list", ""):
        refused = desk.post(f"/inbox/{view}", form)
        assert "already a person with the id" in said(refused) and waiting() == both
        page = Markup(refused)
        ticked = {
            each["value"]
            for each in page.find("input", type="checkbox", name="key")
            if "checked" in each
        }
        assert ticked == (set(both) if view else set())
        assert page.find("input", name="person_id", value="ana")
        assert page.find("input", name="name", value="Ana L")
        assert [each for each in page.find("details") if "open" in each]


def test_a_cpf_is_typed_without_its_punctuation(desk):
    bia, cal = waiting()
    ana = Person.objects.get()
    ana.person_id = "123.456.789-09"
    ana.save()
    done = desk.post(
        "/inbox/", {"key": cal, "act": "assign", "person_id": "12345678909"}, follow=True
    )
    assert "123.456.789-09 has 1 face more" in said(done)
    other = {"key": bia, "act": "assign", "person_id": "1234.56789-09"}
    assert "Nobody has the id" in said(desk.post("/inbox/", other, follow=True))
    new = {"key": bia, "act": "new", "person_id": "12345678909"}
    assert "differs only in punctuation" in said(desk.post("/inbox/", new, follow=True))
    assert Person.objects.count() == 2


def test_only_one_face_of_a_group_is_settled_when_that_is_said(desk):
    bia, _cal = keys(desk.get("/inbox/"))
    desk.post("/inbox/", {"key": bia, "act": "discard", "one": "1"})
    assert Probe.objects.waiting().count() == 2


def test_what_is_skipped_comes_again_when_asked_for(desk):
    bia, cal = keys(desk.get("/inbox/"))
    assert keys(desk.post("/inbox/", {"key": bia, "act": "skip"}, follow=True)) == [cal]
    assert keys(desk.get("/inbox/?view=list")) == [bia, cal]
    assert keys(desk.post("/inbox/undo", follow=True)) == [bia, cal]
    desk.post("/inbox/", {"key": [bia, cal], "act": "skip"})
    page = desk.get("/inbox/")
    assert keys(page) == [] and "That was all" in page.text and "still waits" in page.text
    assert keys(desk.post("/inbox/", {"act": "again"}, follow=True)) == [bia, cal]


def test_several_are_settled_together_and_by_what_is_likeliest_for_each(desk):
    picture = FaceImage.objects.get()
    Doubt.objects.create(face_image=picture, code="blurred", given=3, expected=10)
    page = desk.get("/inbox/?view=list&tick=all")
    bia, cal, doubt = keys(page)
    boxes = Markup(page).find("input", name="key")
    assert ["checked" in box for box in boxes] == [True, True, True]
    where = "/inbox/?view=list"
    assert "No card was chosen" in said(desk.post(where, {"act": "likeliest"}, follow=True))
    done = desk.post(where, {"key": [bia, doubt], "act": "likeliest"}, follow=True)
    assert "right as it is" in said(done) and "No answer is likely" in said(done)
    assert keys(done) == [bia, cal]
    done = desk.post(where, {"key": [bia, cal], "act": "new", "person_id": "two"}, follow=True)
    assert "two has 2 faces more. These are the best of 3" in said(done)
    assert not {bia, cal} & set(keys(done))
    assert desk.post("/inbox/undo?view=list").headers["Location"] == where
    assert waiting() == [bia, cal]
    desk.post("/inbox/undo")
    assert waiting() == [bia, cal, doubt]


def test_the_script_gets_what_it_lacks(desk):
    bia, cal = keys(desk.get("/inbox/"))
    answer = desk.post("/inbox/", {"key": bia, "act": "skip", "have": [bia]}, headers=FRAGMENT)
    assert answer.headers["X-Fragment"] == "1" and keys(answer) == [cal]
    assert 'data-undo="1"' in answer.text and "Skipped." in answer.text
    taken = {"key": cal, "act": "new", "person_id": "ana", "have": cal}
    answer = desk.post("/inbox/", taken, headers=FRAGMENT)
    assert 'data-refused="1"' in answer.text and "ana" in said(answer) and keys(answer) == [cal]
    assert keys(desk.post("/inbox/undo", {"have": cal}, headers=FRAGMENT)) == [bia]
    desk.post("/inbox/", {"key": cal, "act": "discard"})
    again = desk.post("/inbox/", {"key": cal, "act": "discard"}, headers=FRAGMENT)
    assert 'data-refused="1"' in again.text and "settled meanwhile" in again.text


def test_whoever_was_merged_since_the_card_came_stands_for_who_took_them_over(boss, weights):
    picture, old, kept = add_vectors({"ana": 1, "old": 1, "kept": 1})
    Doubt.objects.create(face_image=picture, code="blurred", given=3, expected=10)
    merge_persons(kept.person, old.person)
    boss.post("/inbox/", {"key": f"doubt-{picture.pk}", "act": f"assign:{old.person_id}"})
    picture.refresh_from_db()
    assert picture.person == kept.person


def test_what_nobody_offered_is_refused(desk):
    (bia, _cal) = keys(desk.get("/inbox/"))
    for fields, sentence in (
        ({"act": "explode"}, "No answer was chosen"),
        ({"act": "assign:999"}, "not enrolled any more"),
        ({"act": "assign", "person_id": "nobody"}, "Nobody has the id"),
        ({"act": "new", "person_id": ""}, "Give an id"),
        ({"act": "delete"}, "does not settle"),
        ({"act": "discard", "key": "probe-0"}, "settled meanwhile"),
        ({"act": "discard", "key": "probe-1-2"}, "has no card"),
        ({"act": "confirm", "key": "doubt-1-2"}, "has no card"),
    ):
        answer = desk.post("/inbox/", {"key": bia} | fields, follow=True)
        assert sentence in said(answer), fields
    assert len(waiting()) == 2


@pytest.mark.parametrize("key", ["probe-²", "doubt-²", f"probe-{10**22}", f"doubt-{10**22}"])
def test_keys_that_no_card_has_are_skipped_and_told_without_harm(desk, key):
    """They used to fail, and each page of the session after them."""
    shown = keys(desk.get("/inbox/"))
    answer = desk.post("/inbox/", {"key": key, "act": "skip", "have": [key]}, headers=FRAGMENT)
    assert answer.status_code == 200
    assert keys(desk.get("/inbox/")) == shown


def test_cards_are_filtered(desk):
    Doubt.objects.create(face_image=FaceImage.objects.get(), code="blurred")
    assert len(keys(desk.get("/inbox/?who=admin&kind=probe"))) == 2
    assert len(keys(desk.get("/inbox/?kind=doubt&person=AN"))) == 1
    for query in ("person=zoe", "who=zoe&kind=probe", "day=2001-01-01", "kind=file"):
        page = desk.get(f"/inbox/?{query}")
        assert keys(page) == [] and "No card passes the filter" in page.text, query
    assert len(keys(desk.get("/inbox/?kind=nonsense&day=x"))) == 3


def test_nobody_acts_without_the_right(desk, settings):
    settings.API_AUTH_REQUIRED = True
    reader = User.objects.create_user("reader")
    reader.user_permissions.add(Permission.objects.get(codename="view_person"))
    browser = Client(headers={"host": "localhost"})
    assert 'class="inbox-count">' not in browser.get("/login").text
    browser.force_login(reader)
    page = browser.get("/inbox/")
    (bia, _cal) = keys(page)
    acts = {button["value"] for button in Markup(page).find("button", name="act")}
    assert acts == {"skip", "again"}
    assert browser.post("/inbox/", {"key": bia, "act": "discard"}).status_code == 403
    assert len(waiting()) == 2


def test_pages_ask_few_questions(desk, django_assert_max_num_queries):
    page = desk.get("/people/")
    assert 'class="inbox-count">2<' in page.text
    with django_assert_max_num_queries(6):  # the session and the account among them
        desk.get("/people/")
    with django_assert_max_num_queries(60):
        desk.get("/inbox/")


def test_the_page_holds_nothing_that_the_policy_forbids(desk):
    for path in ("/inbox/", "/inbox/?view=list&tick=all"):
        response = desk.get(path)
        markup = Markup(response)
        assert not markup.find("style") and "style=" not in response.text
        assert all(script.get("src") for script in markup.find("script"))
        named = {attributes.get("for") for attributes in markup.find("label")}
        for control in markup.find("input", type="text"):
            assert control["id"] in named
