"""Moves, merges, deletions and imports are undone; the id of a merged person lives on."""

from __future__ import annotations

import io
import re
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client

from enrollment.corrections import (
    change_person,
    create_person,
    delete_person,
    delete_pictures,
    erase_person,
    merge_persons,
    move_pictures,
    move_to_new_person,
    set_cover,
    undo,
    undo_each,
)
from enrollment.exceptions import NotInTrash, NotUndoable, PersonExists
from enrollment.models import Doubt, FaceImage, MergedId, Person, SearchEntry, TrashItem
from tests.commands import run
from tests.enrollment.gallery import MODEL, add_vectors, enroll, stored
from tests.enrollment.test_trash import answers, rows
from tests.pictures import draw_picture, packed, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

PICTURES = [draw_picture(seed=seed) for seed in (1, 2, 3)]


@pytest.fixture
def ana() -> Person:
    person = enroll("ana", *PICTURES[:2]).person
    set_cover(person, person.face_images.last().pk)
    return Person.objects.get(pk=person.pk)


@pytest.fixture
def bia() -> Person:
    person = enroll("bia", PICTURES[2], name="Bia").person
    return change_person(person, notes="from the gate", legal_basis="consent")


def state() -> tuple[Any, ...]:
    """Return the rows of the gallery, and what searches answer."""
    return rows(), answers(*PICTURES)


def owner_of(picture: int) -> str:
    return FaceImage.objects.get(pk=picture).person.person_id


def test_the_accident_is_undone_in_two_clicks(boss, ana, bia, commits):
    """The wrong two were merged with all defaults, and the result was deleted: six clicks lost it."""
    before = state()
    with commits():
        page = boss.get(f"/people/{bia.pk}/merge?with={ana.pk}")
        kept = re.search(r'name="keep" value="(\d+)" required checked', page.text)[1]
        assert int(kept) == ana.pk  # who has more pictures
        boss.post(f"/people/{bia.pk}/merge", {"with": ana.pk, "keep": kept}, follow=True)
    with commits():
        gone = boss.post(f"/people/{ana.pk}/delete", follow=True)
    assert not Person.objects.exists()

    def undo_of(page: Any) -> str:
        return re.search(r'action="(/people/trash/\d+/undo)"', page.text)[1]

    with commits():
        page = boss.post(undo_of(gone), follow=True)
    assert page.status_code == 200 and Person.objects.get().pk == ana.pk
    with commits():
        page = boss.post(undo_of(boss.get("/people/trash")), follow=True)
    assert page.status_code == 200
    assert state() == before and not TrashItem.objects.exists()


def test_an_undone_merge_leaves_both_as_before(ana, bia, commits):
    SearchEntry.objects.create(channel="api", model=MODEL, person=ana, answers=1)
    before = state()
    with commits():
        done = merge_persons(bia, ana)
        bia.refresh_from_db()
        assert bia.notes == "from the gate\n+ ana" and bia.face_images.count() == 3
    with commits():
        undone = undo(done.undo)
    assert state() == before and len(undone.pictures) == 2
    assert not MergedId.objects.exists()
    with pytest.raises(NotInTrash):
        undo(done.undo)


def test_an_undone_merge_keeps_what_was_changed_since(ana, bia, commits):
    with commits():
        item = merge_persons(ana, bia).undo
        assert Person.objects.get().name == "Bia"
        change_person(ana, name="Ana")
        lost = delete_pictures(ana, [bia_picture := FaceImage.objects.last().pk]).undo
        undo(item)
    assert dict(Person.objects.values_list("person_id", "name")) == {"ana": "Ana", "bia": "Bia"}
    assert Person.objects.get(person_id="ana").notes == ""
    with commits():
        undo(lost)
    assert owner_of(bia_picture) == "ana"


def test_a_merge_into_somebody_who_is_gone_waits_for_them(ana, bia):
    item = merge_persons(ana, bia).undo
    deleted = delete_person(ana).undo
    with pytest.raises(NotUndoable, match="ana is in the trash"):
        undo(item)
    undo(deleted)
    undo(item)
    assert Person.objects.count() == 2


def test_erasing_whoever_took_over_erases_the_merged_too(ana, bia, commits):
    with commits():
        merge_persons(ana, bia)
        erase_person(ana)
    assert not TrashItem.objects.exists() and not MergedId.objects.exists() and stored() == []


def test_a_move_is_undone_with_the_cover(ana, bia, commits):
    cover, before = ana.cover_id, state()
    with commits():
        item = move_pictures([cover], bia).undo
    assert owner_of(cover) == "bia"
    with commits():
        undo(item)
    assert state() == before


def test_an_undone_move_takes_the_new_person_along(ana, commits):
    before = state()
    with commits():
        item = move_to_new_person([ana.cover_id], "caio").undo
        undo(item)
    assert state() == before


def test_a_move_of_pictures_that_went_on_is_not_undone(ana, bia):
    picture = ana.cover_id
    item = move_pictures([picture], bia).undo
    move_pictures([picture], ana)
    with pytest.raises(NotUndoable, match="none of these pictures"):
        undo(item)


def test_several_acts_are_undone_in_one_go_but_for_what_cannot_be(ana, bia, commits, monkeypatch):
    first, second, third = add_vectors({"caio": 3})
    picture = ana.cover_id
    with commits():
        moves = [move_pictures([pk], bia).undo for pk in (first.pk, picture, second.pk, third.pk)]
        move_pictures([second.pk], ana)
    runs = []
    monkeypatch.setattr("enrollment.index.indexing.index_rows", lambda ids: runs.append(len(ids)))
    with commits():
        done = undo_each(moves)
    assert runs == [3]
    assert isinstance(done[2], NotUndoable)
    assert [owner_of(pk) for pk in (first.pk, picture, second.pk, third.pk)] == [
        *("caio", "ana", "ana", "caio")
    ]


def test_moving_nothing_leaves_nothing_to_undo(ana):
    assert move_pictures([ana.cover_id], ana).undo is None


# Merged ids


@pytest.fixture
def merged(ana, bia, commits) -> Person:
    """Who took `bia` over: `ana`."""
    with commits():
        merge_persons(ana, bia)
    return ana


def at(person_id: str, rest: str = "") -> str:
    return f"/api/persons/{quote(person_id, safe='')}{rest}"


def test_reading_a_merged_id_leads_to_the_taker(api, merged):
    for rest in ("", "/images?page=1"):
        answer = api.get(at("bia", rest))
        assert (answer.status_code, answer.json()["error"]) == (308, "person_merged")
        assert answer["Location"] == f"http://localhost{at('ana', rest)}"
        assert api.get(answer["Location"]).status_code == 200
    picture = merged.face_images.last().pk
    answer = api.get(at("bia", f"/images/{picture}?size=icon"))
    assert answer["Location"] == f"http://localhost{at('ana', f'/images/{picture}?size=icon')}"


def test_the_page_of_a_merged_person_leads_to_the_taker(boss, merged):
    gone = MergedId.objects.get().former_pk
    assert boss.get(f"/people/{gone}/").url == f"/people/{merged.pk}/"
    assert boss.get("/people/999999/").status_code == 404


def test_changing_a_merged_id_changes_nobody(api, merged):
    answers = [
        api.patch(at("bia"), {"name": "X"}, format="json"),
        api.delete(at("bia")),
        api.delete(at("bia", "?erase=true")),
        api.post(at("ana", "/merge"), {"person_id": "bia"}, format="json"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) == (404, "person_merged")
    assert Person.objects.get().pk == merged.pk


@pytest.mark.parametrize("path", ["/api/milvus/insert", at("bia", "/images")])
def test_pictures_sent_under_a_merged_id_go_to_the_taker(api, merged, path):
    form = {"images": [upload(draw_picture(seed=9))], "use_face_detection": "false"}
    answer = api.post(path, form | ({"person_id": "bia"} if "insert" in path else {}))
    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["person_id"], body["merged_into"]) == ("bia", "ana")
    assert merged.face_images.count() == 4 and Person.objects.count() == 1
    undo(TrashItem.objects.get())
    assert Person.objects.get(person_id="bia").face_images.count() == 2


def test_a_merged_id_is_verified_as_the_taker(api, merged):
    form = {"source_image": upload(PICTURES[2]), "person_id": "bia", "use_face_detection": "false"}
    answer = api.post("/api/verify", form)
    assert answer.status_code == 200 and answer.json()["similarity"] > 0.99


def test_a_merged_id_is_given_to_nobody_else(api, boss, merged):
    answer = api.post("/api/persons", {"person_id": "bia"}, format="json")
    assert (answer.status_code, answer.json()["error"]) == (409, "person_exists")
    assert "was merged into Bia (ana)" in answer.json()["message"]
    page = boss.post("/people/new", {"person_id": "bia"})
    assert "was merged into Bia (ana)" in page.text
    change_person(merged, person_id="bia")
    assert Person.objects.get().person_id == "bia"


def test_a_merge_of_merges_leads_to_the_last(api, ana, bia, commits):
    caio = create_person("caio")
    with commits():
        merge_persons(ana, bia)
        second = merge_persons(caio, ana).undo
    assert api.get(at("bia"))["Location"].endswith("/caio")
    with commits():
        undo(second)
    assert api.get(at("bia"))["Location"].endswith("/ana")


def test_a_freed_id_can_be_given_again(boss, merged):
    pk = MergedId.objects.get().pk
    boss.post(f"/admin/enrollment/mergedid/{pk}/delete/", {"post": "yes"})
    assert create_person("bia")


def test_an_undone_merge_whose_id_was_given_again_asks_for_another(merged):
    MergedId.objects.all().delete()
    create_person("bia")
    item = TrashItem.objects.get()
    with pytest.raises(PersonExists):
        undo(item)
    undo(item, person_id="bia-2")
    assert Person.objects.get(person_id="bia-2").face_images.count() == 1


# Imports


def archive(**folders: list[int]) -> SimpleUploadedFile:
    files = {
        f"{person}/{seed}.jpg": draw_picture(seed=seed)
        for person, seeds in folders.items()
        for seed in seeds
    }
    return upload(packed(files), "people.zip")


def test_an_import_is_undone_whole_and_can_be_redone(boss, ana, bia, commits):
    before = state()
    form = {"archive": archive(ana=[11], caio=[12, 13])}
    run = boss.post("/people/import", form).url
    with commits():
        report = boss.post(run, follow=True)
    assert Person.objects.count() == 3 and FaceImage.objects.count() == 6
    imported = state()
    (address,) = re.findall(r'action="(/people/trash/\d+/undo)"', report.text)
    with commits():
        boss.post(address)
    assert state() == before
    with commits():
        undo(TrashItem.objects.get())
    assert state() == imported


@pytest.mark.parametrize("again", ["enrolled anew", "taken out of the merge"])
def test_a_merged_id_that_somebody_has_again_stays_theirs(ana, bia, again):
    """Whoever had it could not be changed any more, as the id stood for the restored person."""
    first = merge_persons(bia, ana).undo
    bia.refresh_from_db()
    if again == "enrolled anew":
        gone = delete_person(bia).undo
        create_person("ana")
    else:
        gone = merge_persons(create_person("caio"), bia).undo
        undo(first)
    undo(gone)
    former = Person.objects.get(person_id="bia").merged_ids.values_list("former_pk", flat=True)
    assert list(former) == ([ana.pk] if again == "enrolled anew" else [])
    assert change_person(Person.objects.get(person_id="ana"), name="Ana").name == "Ana"


def test_a_folder_under_a_merged_id_goes_to_the_taker(merged, tmp_path):
    (tmp_path / "bia").mkdir()
    (tmp_path / "bia" / "a.jpg").write_bytes(draw_picture(seed=9))
    (tmp_path / "bia" / "b.jpg").write_bytes(PICTURES[0])  # ana's own
    errors = io.StringIO()
    call_command(
        "enroll", tmp_path, "--no-face-detection", "--no-progress", stderr=errors, stdout=errors
    )
    assert merged.face_images.count() == 4 and Person.objects.count() == 1
    assert "'bia' was merged into 'ana'" in errors.getvalue()
    assert "1 skipped" in errors.getvalue()


# Entrances


def test_the_trash_by_the_api(api, ana, bia, commits):
    with commits():
        deleted = api.delete(at("ana")).json()
        move = api.delete(at("bia", f"/images/{bia.face_images.get().pk}")).json()
    listed = api.get("/api/trash").json()
    assert [item["id"] for item in listed["results"]] == [move["undo"], deleted["undo"]]
    person = listed["results"][1]
    assert (person["kind"], person["person_ids"], person["pictures"]) == ("person", ["ana"], 2)
    with commits():
        assert api.post(f"/api/trash/{move['undo']}/undo", {}, format="json").json() == {
            "success": True,
            "person_ids": ["bia"],
            "pictures": 1,
        }
        create_person("ana")
        taken = api.post(at("ana", "/restore"), {}, format="json")
        assert (taken.status_code, taken.json()["error"]) == (409, "person_exists")
        restored = api.post(at("ana", "/restore"), {"person_id": "ana 2"}, format="json")
    assert restored.json()["picture_count"] == 2
    again = api.post(at("ana", "/restore"), {}, format="json")
    assert (again.status_code, again.json()["error"]) == (404, "not_in_trash")
    item = f"/api/trash/{move['undo']}"  # was said to be no call of the API
    for gone in (api.post(f"{item}/undo", {}, format="json"), api.delete(item)):
        assert (gone.status_code, gone.json()["error"]) == (404, "not_in_trash")


def test_erasing_by_the_api(api, ana, bia, commits):
    with commits():
        api.delete(at("ana"))
        assert api.delete(at("ana")).status_code == 404
        erased = api.delete(at("ana", "?erase=true")).json()
        assert (erased["deleted_pictures"], erased["undo"], erased["undo_until"]) == (2, None, None)
        at_once = api.delete(at("bia", "?erase=true")).json()
        assert (at_once["deleted_pictures"], at_once["undo"]) == (1, None)
        assert api.delete(at("bia", "?erase=perhaps")).status_code == 400
    assert not TrashItem.objects.exists() and stored() == []


def test_who_may_not_delete_may_not_restore(ana):
    client = Client(headers={"host": "localhost"})
    clerk = User.objects.create_user("clerk")
    clerk.user_permissions.add(Permission.objects.get(codename="view_person"))
    client.force_login(clerk)
    item = delete_person(ana).undo
    assert not re.search(r"\bAna\b", client.get("/people/trash").text)
    for act in ("undo", "erase"):
        assert client.post(f"/people/trash/{item.pk}/{act}").status_code == 403
    assert TrashItem.objects.exists()


def test_the_page_of_the_trash_restores_and_erases(boss, ana, bia, commits):
    with commits():
        item, other = delete_person(ana).undo, delete_person(bia).undo
        create_person("ana")
    page = boss.get("/people/trash")
    assert "Bia (bia)" in page.text and f'id="id-{item.pk}"' in page.text  # asks for another id
    boss.post(f"/people/trash/{item.pk}/undo", {"person_id": "ana-2"})
    assert Person.objects.filter(person_id="ana-2").exists()
    boss.post(f"/people/trash/{other.pk}/erase")
    assert "The trash is empty" in boss.get("/people/trash").text


def test_what_the_admin_deletes_can_be_undone_there(boss, ana, bia, commits):
    people = "/admin/enrollment/person/"
    chosen = {"action": "delete_selected", "_selected_action": [ana.pk, bia.pk], "post": "yes"}
    with commits():
        page = boss.post(people, chosen, follow=True)
    addresses = re.findall(r'action="(/admin/enrollment/trashitem/\d+/undo/)"', page.text)
    assert len(addresses) == 2 and not Person.objects.exists()
    with commits():
        assert boss.post(addresses[0], follow=True).status_code == 200
    assert Person.objects.count() == 1
    trash = "/admin/enrollment/trashitem/"
    left = TrashItem.objects.get()
    assert left.label in boss.get(trash).text
    with commits():
        boss.post(trash, {"action": "undo_selected", "_selected_action": [left.pk]})
    assert Person.objects.count() == 2
    item = delete_person(Person.objects.first()).undo
    with commits():
        boss.post(trash, {"action": "erase_selected", "_selected_action": [item.pk]})
    assert not TrashItem.objects.exists() and Person.objects.count() == 1


def test_the_command_lists_restores_and_erases(ana, bia, commits):
    with commits():
        item, other = delete_person(ana).undo, delete_person(bia).undo
    assert "ana" in run("trash", "list") and str(item.pk) in run("trash", "list")
    with commits():
        assert "2 pictures" in run("trash", "undo", item.pk)
        run("trash", "erase", other.pk)
    assert Person.objects.get().person_id == "ana" and not TrashItem.objects.exists()
    with pytest.raises(CommandError, match="cannot be undone any more"):
        run("trash", "undo", item.pk)


def test_an_undone_merge_brings_back_whom_the_pictures_resembled(commits):
    picture, other = add_vectors({"ana": 1, "bia": 1})
    code = Doubt.Resemblance.LOOKS_LIKE_SOMEONE_ELSE
    doubt = Doubt.objects.create(face_image=picture, other=other, code=code, given=0.9)
    with commits():
        done = merge_persons(picture.person, other.person)
    assert not Doubt.with_dismissed.filter(code=code).exists()  # of one person now
    with commits():
        undo(done.undo)
    assert list(Doubt.objects.all()) == [doubt]
