"""The pages about persons, in a browser without JavaScript."""

from __future__ import annotations

import io
import re

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from PIL import Image

from enrollment.gallery import thumbnail
from enrollment.models import Doubt, FaceImage, Person, TrashItem
from tests.enrollment.gallery import enroll, found, stored
from tests.enrollment.test_views import Markup
from tests.pictures import draw_picture, upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def ana(weights) -> Person:
    return enroll("ana", draw_picture(seed=1), draw_picture(seed=2), name="Ana <b>").person


@pytest.fixture
def bia(weights) -> Person:
    return enroll("b/ia", draw_picture(seed=3)).person


def page(person: Person, name: str = "person") -> str:
    return reverse(name, args=[person.pk])


def ids(person: Person) -> list[int]:
    return list(person.face_images.values_list("pk", flat=True))


def texts(response) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def test_gallery_is_searched_sorted_and_paged(local, ana, bia, monkeypatch):
    response = local.get("/people/")
    assert [each.person_id for each in response.context["page"]] == ["ana", "b/ia"]
    assert b"Ana &lt;b&gt;" in response.content
    assert "2 people" in response.content.decode()
    shown = local.get("/people/", {"q": "/I", "order": "newest", "page": "99"}).context["page"]
    assert [each.person_id for each in shown] == ["b/ia"]
    assert b"Nobody was found" in local.get("/people/?q=zoe&order=nonsense").content
    monkeypatch.setattr("enrollment.pages.gallery.PERSONS_A_PAGE", 1)
    first = Markup(local.get("/people/?order=fewest"))
    (following,) = first.find("a", rel="next")
    second = local.get("/people/" + following["href"])
    assert [each.person_id for each in second.context["page"]] == ["ana"]


def test_gallery_asks_few_questions(local, django_assert_max_num_queries):
    for number in range(30):
        Person.objects.create(person_id=f"p{number}")
    local.get("/people/")  # the inbox is counted every ten seconds
    with django_assert_max_num_queries(3):
        local.get("/people/")


def test_empty_gallery_says_so(local):
    assert b"The gallery is empty" in local.get("/people/").content


def test_pages_hold_nothing_that_the_policy_forbids(local, ana, bia):
    pages = [page(ana), page(ana, "person-merge"), page(ana, "person-delete"), "/people/new"]
    pages += [f"{page(ana, 'person-merge')}?with={bia.pk}", "/people/", page(ana, "person-details")]
    pages += [
        f"{page(ana, name)}?picture={ids(ana)[0]}"
        for name in ("person-move-pictures", "person-delete-pictures")
    ]
    for path in pages:
        response = local.get(path)
        assert response.status_code == 200, path
        assert "script-src" in response["Content-Security-Policy"] or (
            "default-src 'self'" in response["Content-Security-Policy"]
        )
        markup = Markup(response)
        assert not markup.find("style") and "style=" not in response.content.decode(), path
        assert all(script.get("src") for script in markup.find("script")), path
        named = {attributes.get("for") for attributes in markup.find("label")}
        for control in markup.find("input", type="search") + markup.find("input", type="text"):
            assert control["id"] in named, path


def test_person_is_made_and_gets_pictures(local, weights):
    made = local.post("/people/new", {"person_id": " ana ", "name": "Ana", "notes": ""})
    person = Person.objects.get(person_id="ana")
    assert made.url == page(person)
    data = {"pictures": [upload(draw_picture(seed=1)), upload(b"")]}
    added = local.post(page(person, "person-add-pictures"), data, follow=True)
    assert "1 picture was added." in texts(added) and "was refused" in texts(added)
    picture = person.face_images.get()
    assert picture.source == FaceImage.Source.PAGE
    assert f"{picture.get_absolute_url()}?size=thumb" in added.content.decode()
    assert "indexed" in added.content.decode()


def test_a_new_person_may_come_with_pictures(local, weights):
    data = {"person_id": "ana", "pictures": [upload(draw_picture(seed=1)), upload(b"")]}
    made = local.post("/people/new", data, follow=True)
    person = Person.objects.get(person_id="ana")
    assert made.redirect_chain == [(page(person), 302)]
    assert "1 picture was added." in texts(made) and "was refused" in texts(made)
    assert person.face_images.get().source == FaceImage.Source.PAGE


def test_a_script_adds_in_parts_and_the_page_tells_of_all_of_them(local, ana):
    for seed in (8, 9):
        data = {"pictures": [upload(draw_picture(seed=seed))]}
        part = local.post(page(ana, "person-add-pictures"), data, headers={"x-fragment": "1"})
        assert (part.status_code, part.content) == (204, b"")
    assert texts(local.get(page(ana))).count("1 picture was added.") == 2


@pytest.mark.parametrize("name", ["person-add-pictures", "person-new"])
def test_pictures_that_are_too_large_together_are_refused_before_anything(
    local, ana, name, settings
):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_REQUEST_BYTES": 1000}
    data = {"person_id": "bia", "pictures": [upload(draw_picture(seed=8))]}
    url = reverse(name) if name == "person-new" else page(ana, name)
    answer = local.post(url, data, follow=True)
    assert "at most 1000 bytes are accepted" in answer.content.decode().replace("\xa0", " ")
    assert FaceImage.objects.count() == 2 and Person.objects.count() == 1


def test_quality_stands_beside_each_picture(local, ana):
    row = ana.face_images.last().embeddings.get()
    quality = {"sharpness": 118.4, "brightness": 131.0, "contrast": 41.0, "width": 124.4}
    row.face = {"box": [1, 2, 3, 4], "quality": quality | {"reasons": []}}
    row.save()
    content = local.get(page(ana)).content.decode()
    assert "good face: 124 px wide, sharpness 118, brightness 131" in content
    reasons = [{"code": "blurred", "given": 3.0, "expected": 10.0}]
    row.face = {"box": [1, 2, 3, 4], "quality": quality | {"sharpness": 3.0, "reasons": reasons}}
    row.save()
    assert "doubtful face: 124 px wide, sharpness 3," in local.get(page(ana)).content.decode()


def test_what_speaks_against_a_picture_stands_beside_it(local, ana, bia):
    mine, other = ana.face_images.first(), bia.face_images.first()
    Doubt.objects.create(
        face_image=mine, code="looks_like_someone_else", given=0.7, expected=0.4, other=other
    )
    content = local.get(page(ana)).content.decode()
    assert "looks like somebody else" in content and f'href="{page(bia)}">b/ia' in content


def test_person_page_asks_few_questions(local, ana, bia, django_assert_max_num_queries):
    local.get(page(ana))  # a look is journalled once an hour
    with django_assert_max_num_queries(9):  # of them 4 for the history
        local.get(page(ana))


def test_taken_or_empty_ids_are_told_at_the_field(local, ana):
    for person_id in ("ana", " "):
        refused = local.post("/people/new", {"person_id": person_id})
        assert refused.status_code == 400 and b"field-error" in refused.content
    assert Person.objects.count() == 1


def test_nothing_chosen_to_add_is_said(local, ana):
    answer = local.post(page(ana, "person-add-pictures"), {}, follow=True)
    assert "No picture was chosen" in texts(answer)


def test_details_are_changed_and_follow_to_milvus(local, ana, commits):
    form = {"person_id": "ana lima", "name": "Ana Lima", "notes": "gate"}
    with commits():
        answer = local.post(page(ana, "person-details"), form, follow=True)
    assert "Saved." in texts(answer) and b"gate" in answer.content
    assert {row.person_id for row in stored()} == {"ana lima"}


def test_what_somebody_else_changed_meanwhile_stays(local, ana):
    """Two edited the same person: whoever saved last used to put all of the other's values back."""
    ana.name = "Ana"
    ana.save()
    shown = local.get(page(ana, "person-details"))
    fields = Markup(shown).find("input", type="hidden")
    form = {each["name"]: each.get("value", "") for each in fields}
    assert form["initial-name"] == "Ana"
    Person.objects.update(name="Ana Lima")
    form |= {"person_id": ana.person_id, "name": "Ana", "notes": "gate\r\neast"}
    assert "Saved." in texts(local.post(page(ana, "person-details"), form, follow=True))
    ana.refresh_from_db()
    assert (ana.name, ana.notes) == ("Ana Lima", "gate\r\neast")
    form |= {"initial-name": "Ana Lima", "initial-notes": "gate\neast", "name": ""}
    local.post(page(ana, "person-details"), form)
    ana.refresh_from_db()
    assert (ana.name, ana.notes) == ("", "gate\r\neast")


def test_what_describes_a_field_is_there_once(local, ana):
    refused = local.post(page(ana, "person-details"), {"person_id": ""})
    for shown in (refused, local.get("/people/import"), local.post("/people/import", {"x": "1"})):
        elements = [attributes for _tag, attributes in Markup(shown).elements]
        there = [each["id"] for each in elements if each.get("id")]
        named = {name for each in elements for name in (each.get("aria-describedby") or "").split()}
        assert named and named <= set(there) and len(there) == len(set(there))


def test_cover_stands_for_the_person(local, ana):
    second = ids(ana)[1]
    local.post(page(ana, "person-cover"), {"picture": second})
    assert f"/pictures/{second}?size=face" in local.get("/people/").content.decode()
    strange = local.post(page(ana, "person-cover"), {"picture": 999}, follow=True)
    assert "no picture 999" in texts(strange)
    assert Person.objects.get().cover_id == second


def test_not_this_person_suggests_who_it_is_and_moves(local, ana, bia, commits):
    first = ids(ana)[0]
    path = page(ana, "person-move-pictures")
    asked = local.get(path, {"picture": first})
    assert [each.pk for each in asked.context["candidates"]] == [bia.pk]
    looked = local.get(path, {"picture": first, "q": "ia"})
    assert [each.pk for each in looked.context["candidates"]] == [bia.pk]
    with commits():
        moved = local.post(path, {"picture": first, "person": bia.pk}, follow=True)
    assert moved.redirect_chain[-1][0] == page(bia)
    assert "1 picture now belongs to b/ia." in texts(moved)
    assert len(ids(bia)) == 2 and found(draw_picture(seed=1))[0] == "b/ia"


def test_not_this_person_makes_a_new_one(local, ana, commits):
    path, first = page(ana, "person-move-pictures"), ids(ana)[0]
    taken = local.post(path, {"picture": first, "new": "1", "person_id": "ana"})
    assert taken.status_code == 400 and b"field-error" in taken.content
    with commits():
        local.post(path, {"picture": first, "new": "1", "person_id": "zoe", "name": "Zoe"})
    assert ids(Person.objects.get(person_id="zoe")) == [first]


@pytest.mark.parametrize("data", [{}, {"picture": "x"}])
def test_moving_or_deleting_nothing_is_said(local, ana, data):
    for name in ("person-move-pictures", "person-delete-pictures"):
        answer = local.get(page(ana, name), data, follow=True)
        assert "No picture was chosen" in texts(answer)


def test_moving_to_nobody_is_said(local, ana):
    form = {"picture": ids(ana)[0], "person": ""}
    assert "No person was chosen" in texts(local.post(page(ana, "person-move-pictures"), form))


def test_pictures_are_deleted_after_a_question(local, ana, bia, commits):
    path, first = page(ana, "person-delete-pictures"), ids(ana)[0]
    asked = local.get(path, {"picture": [first, ids(bia)[0]]})
    assert "Delete 1 picture of" in asked.content.decode() and len(ids(ana)) == 2
    with commits():
        done = local.post(path, {"picture": [first, ids(bia)[0]]}, follow=True)
    assert "1 picture was deleted." in texts(done)
    assert (len(ids(ana)), len(ids(bia)), len(stored())) == (1, 1, 2)


def test_acts_lead_back_to_the_page_of_pictures_that_one_was_on(local, ana, monkeypatch, commits):
    monkeypatch.setattr("enrollment.pages.people.PICTURES_A_PAGE", 1)
    shown = local.get(page(ana), {"page": 2})
    (last,) = [each.pk for each in shown.context["page"]]
    second = f"{page(ana)}?page=2"
    (form,) = Markup(shown).find("form", id="cover-form")
    assert local.post(form["action"], {"picture": last}).url == second
    assert Markup(shown).find("input", type="hidden", name="page", value="2")
    asked = local.get(page(ana, "person-delete-pictures"), {"picture": last, "page": 2})
    assert Markup(asked).find("a", href=second)
    for name in ("delete-pictures", "move-pictures", "face"):
        assert local.post(f"{page(ana, f'person-{name}')}?page=2", {}).url == second
    address = f"{page(ana, 'person-delete-pictures')}?picture={last}&page=2"
    with commits():
        done = local.post(address, {"picture": last}, follow=True)
    assert done.redirect_chain[0][0] == second
    assert done.context["page"].number == 1  # there is no second one any more


def test_what_a_colleague_changed_meanwhile_is_told(local, ana, bia, commits):
    """Of two tabs that correct the same, the second said that nothing had been chosen, or that there was
    no such page."""
    first, second = ids(ana)
    gone = page(bia, "person-delete")

    def told(address: str, given: dict[str, object]) -> str:
        with commits():
            return texts(local.post(address, given, follow=True))

    move = {"picture": first, "person": bia.pk}
    assert "1 picture now belongs" in told(page(ana, "person-move-pictures"), move)
    for name in ("person-move-pictures", "person-delete-pictures", "person-face"):
        assert "was moved or deleted meanwhile" in told(page(ana, name), move)
    assert "was deleted" in told(gone, {})
    undo = f"/people/trash/{TrashItem.objects.latest('pk').pk}/undo"
    for address, given in (
        (page(ana, "person-move-pictures"), {"picture": second, "person": bia.pk}),
        (page(ana, "person-merge"), {"with": bia.pk, "keep": ana.pk}),
    ):
        assert "whom you chose was merged or deleted meanwhile" in told(address, given)
    for name, given in (("person-details", {"person_id": "b"}), ("person-delete", {})):
        assert "this person is in the trash by now" in told(page(bia, name), given)
    added = local.post(page(bia, "person-add-pictures"), headers={"x-fragment": "1"})
    assert (added.status_code, added.text[:20]) == (400, "Nothing was changed:")
    assert "Undone" in told(undo, {})
    for address in (undo, undo.replace("undo", "erase")):
        assert "it was undone already, or erased" in told(address, {})
    assert Person.objects.count() == 2


def test_the_page_of_who_is_in_the_trash_leads_there(local, ana, django_user_model, commits):
    with commits():
        local.post(page(ana, "person-delete"))
    item = TrashItem.objects.get()
    asked = local.get(page(ana))
    assert asked["Location"] == "/people/trash"
    shown = texts(local.get("/people/trash"))
    assert "This person is in the trash: Ana &lt;b&gt; (ana)." in shown
    assert f'action="/people/trash/{item.pk}/undo"' in shown
    reader = Client()
    reader.force_login(django_user_model.objects.create_user("reader"))
    assert reader.get(page(ana)).status_code == 403
    browse = Permission.objects.get(codename="view_person")
    django_user_model.objects.get().user_permissions.add(browse)
    assert reader.get(page(ana)).status_code == 404  # may restore nobody
    local.post(f"/people/trash/{item.pk}/erase")
    assert local.get(page(ana)).status_code == 404
    assert "this person was deleted meanwhile" in texts(
        local.post(page(ana, "person-delete"), follow=True)
    )


@pytest.mark.parametrize("keep", ["ana", "b/ia"])
def test_merge_shows_both_and_keeps_the_chosen(local, ana, bia, commits, keep):
    path = page(ana, "person-merge")
    assert [each.pk for each in local.get(path).context["candidates"]] == [bia.pk]
    both = local.get(path, {"with": bia.pk}).content.decode()
    for picture in ids(ana) + ids(bia):
        assert f"/pictures/{picture}?" in both
    assert "Merge both: 3 pictures" in both and Person.objects.count() == 2
    kept = Person.objects.get(person_id=keep)
    with commits():
        done = local.post(path, {"with": bia.pk, "keep": kept.pk}, follow=True)
    assert done.redirect_chain[-1][0] == page(kept)
    assert len(ids(Person.objects.get())) == 3
    assert {row.person_id for row in stored()} == {keep}
    gone = bia if kept == ana else ana
    told = texts(local.get(page(gone), follow=True))
    assert f"{gone.person_id} was merged into {Person.objects.get()}, whose page this is." in told


def test_deleting_a_person_asks_with_counts(local, ana, commits):
    asked = local.get(page(ana, "person-delete")).content.decode()
    assert "The person and 2 pictures leave every search" in asked and Person.objects.exists()
    assert "For 7 days this can be undone" in asked
    with commits():
        done = local.post(page(ana, "person-delete"), follow=True)
    assert "was deleted, with 2 pictures." in texts(done)
    assert not Person.objects.exists() and stored() == []


def test_suggestions_that_milvus_cannot_give_stop_no_correction(local, ana, no_store):
    answer = local.get(page(ana, "person-move-pictures"), {"picture": ids(ana)[0]})
    assert answer.status_code == 200 and answer.context["candidates"] == []


def test_thumbnails_are_made_once(local, ana, monkeypatch):
    path = f"/pictures/{ids(ana)[0]}?size=thumb"
    first = local.get(path).content
    monkeypatch.setattr(
        "enrollment.web.picture_responses.thumbnail", lambda content: pytest.fail("made again")
    )
    assert local.get(path).content == first


@pytest.mark.parametrize(
    "name", ["person-delete", "person-delete-pictures", "person-move-pictures", "person-merge"]
)
def test_whoever_is_deleted_moved_or_merged_is_seen_by_their_face(local, ana, bia, name):
    """The middle of a group photo showed somebody else."""
    (picture,) = ids(bia)
    shown = Markup(local.get(page(bia, name), {"picture": picture, "with": ana.pk}))
    assert shown.find("img", src=f"/pictures/{picture}?size=face")


def test_a_face_is_cut_from_a_jpeg_that_is_decoded_smaller():
    picture = Image.new("RGB", (1600, 1200), "white")
    picture.paste("black", (800, 400, 1200, 800))
    file = io.BytesIO()
    picture.save(file, "JPEG")
    box = [800, 400, 400, 400]
    small = Image.open(io.BytesIO(thumbnail(file.getvalue(), 100, box, longest=1600)))
    assert small.size == (100, 100)
    black = small.convert("L").point(lambda value: 255 * (value < 128)).getbbox()
    assert black == pytest.approx((17, 17, 83, 83), abs=2)


def test_nobody_and_thousands_are_counted_in_portuguese(local):
    """Nothing is plural: Django's own rule says “0 pessoa”."""
    portuguese = {"accept-language": "pt-br"}
    assert "0 pessoas" in local.get("/people/", headers=portuguese).text
    Person.objects.bulk_create(Person(person_id=f"p{number}") for number in range(1001))
    assert "1.001 pessoas" in local.get("/people/", headers=portuguese).text


def test_where_one_is_stands_out(local, ana):
    assert Markup(local.get("/imports/")).find("a", href="/people/", **{"aria-current": "page"})
    desk = Markup(local.get(page(ana, "person-consents")))
    current = [each["href"] for each in desk.find("a", **{"aria-current": "page"})]
    assert current == ["/people/", page(ana, "person-consents")]


def test_strangers_are_sent_to_the_login(ana):
    remote = Client(REMOTE_ADDR="192.0.2.7", headers={"host": "localhost"})
    for path in ("/people/", page(ana), page(ana, "person-merge")):
        assert remote.get(path).url == f"/login?next={path}"
    assert remote.post(page(ana, "person-delete")).status_code == 302
    assert Person.objects.exists()
    # A form's own address may answer no GET: after the login comes the page that sent it.
    for sender, following in (
        ("http://localhost/people/?q=a", "/people/%3Fq%3Da"),
        ("http://elsewhere.example/people/", page(ana, "person-cover")),
    ):
        refused = remote.post(page(ana, "person-cover"), headers={"referer": sender})
        assert refused.url == f"/login?next={following}"


def test_users_see_and_do_what_their_permissions_say(local, ana, django_user_model):
    user = django_user_model.objects.create_user("maria")
    local.force_login(user)
    refused = local.get("/people/")
    assert refused.status_code == 403 and b"enrollment.view_person" in refused.content
    assert not Markup(local.get("/")).find("a", href="/people/")
    user.user_permissions.add(Permission.objects.get(codename="view_person"))
    shown = local.get(page(ana))
    assert shown.status_code == 200
    links = {link["href"] for link in Markup(shown).find("a")}
    assert not [link for link in links if re.search("delete|merge|details|admin", link or "")]
    for name in ("details", "add-pictures", "cover", "move-pictures", "merge", "delete"):
        data = {"picture": ids(ana)[0]}
        assert local.post(page(ana, f"person-{name}"), data).status_code == 403, name
    assert Person.objects.get().face_images.count() == 2


def test_forms_carry_their_csrf_token(ana, bia):
    browser = Client(enforce_csrf_checks=True, headers={"host": "localhost"})
    assert browser.post(page(ana, "person-delete")).status_code == 403
    assert Person.objects.count() == 2
