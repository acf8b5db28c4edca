"""What is done to many people at once: told beforehand, one line of the journal, one undo."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from enrollment import corrections, enrolling, journal
from enrollment.exceptions import TooManyPersons
from enrollment.models import (
    Consent,
    FaceImage,
    JournalEntry,
    MergedId,
    Person,
    Purpose,
    TrashedPart,
    TrashItem,
)
from tests.enrollment.test_views import Markup

pytestmark = pytest.mark.django_db
MANY = "/people/many"


@pytest.fixture
def people() -> list[Person]:
    """Four persons, of whom each has as many pictures as their number."""
    made = [Person.objects.create(person_id=f"p{n}", name=f"N{n}") for n in range(4)]
    for number, person in enumerate(made):
        for _ in range(number):
            FaceImage.objects.create(person=person, image="none.jpg")
    return made


def keys(persons) -> list[int]:
    return [person.pk for person in persons]


def confirm(local: Client, response, **values):
    """Post the form of the page with its hidden fields."""
    hidden = Markup(response).find("input", type="hidden")
    data: dict[str, list[str]] = {}
    for field in hidden:
        if field["name"] not in ("csrfmiddlewaretoken", "next"):
            data.setdefault(field["name"], []).append(field["value"])
    return local.post(MANY, data | values, follow=True)


def undo(local: Client):
    return local.post(f"/people/trash/{TrashItem.objects.get().pk}/undo", follow=True)


def lines() -> list[JournalEntry]:
    return list(JournalEntry.objects.filter(chain="changes").order_by("number"))


def test_legal_basis_of_the_ticked_is_changed_and_given_back(local, people):
    Person.objects.filter(pk=people[0].pk).update(legal_basis="contract")
    ticked = {"act": "legal_basis", "person": keys(people[:3]), "q": "p", "order": "name"}
    asked = local.get(MANY, ticked)
    assert "3 people" in asked.text and "3 pictures" in asked.text
    assert "1 of them has a legal basis, which is replaced." in asked.text
    assert set(Person.objects.values_list("legal_basis", flat=True)) == {"", "contract"}
    done = confirm(local, asked, legal_basis="consent of 2026")
    back = urlsplit(done.redirect_chain[0][0])
    assert back.path == "/people/" and parse_qs(back.query) == {"q": ["p"], "order": ["name"]}
    assert "3 people were changed." in done.text
    assert list(Person.objects.values_list("legal_basis", flat=True)) == ["consent of 2026"] * 3 + [
        ""
    ]
    (line,) = lines()
    told = line.subjects.get(person_pk=people[0].pk).personal
    assert told["before"] == {"legal_basis": "contract"}
    assert told["after"] == {"legal_basis": "consent of 2026"}
    (seen,) = journal.history_of(people[2], with_looks=False)
    assert "N0 (p0), N1 (p1), N2 (p2): legal basis → “consent of 2026”" in journal.in_words(seen)
    Person.objects.filter(pk=people[1].pk).update(legal_basis="changed since")
    assert "Undone: all is as before." in undo(local).text
    bases = Person.objects.values_list("legal_basis", flat=True)
    assert list(bases) == ["contract", "changed since", "", ""]
    assert [line.action for line in lines()] == ["changed", "undone"]
    assert not TrashItem.objects.exists()


def test_all_that_match_are_changed_after_their_number_was_confirmed(local, people):
    asked = local.get(MANY, {"act": "keep_until", "whom": "all", "single": "on"})
    assert "1 person" in asked.text
    FaceImage.objects.filter(person=people[2]).first().delete()
    day = timezone.localdate() + timedelta(days=9)
    again = confirm(local, asked, keep_until=day.isoformat())
    assert "By now it is 2 people." in again.text
    assert set(Person.objects.values_list("keep_until", flat=True)) == {None}
    confirm(local, again, keep_until=day.isoformat())
    assert Person.objects.filter(keep_until=day).count() == 2
    past = confirm(local, again, keep_until="2020-01-01")
    assert past.status_code == 400 and "is past" in past.text


def test_a_page_of_the_list_is_taken_as_it_was_shown(local, people, monkeypatch):
    for module in ("gallery", "bulk_changes"):
        monkeypatch.setattr(f"enrollment.pages.{module}.PERSONS_A_PAGE", 3)
    shown = local.get(MANY, {"act": "delete", "whom": "page", "page": "2", "order": "name"})
    assert [each.person_id for each in shown.context["persons"]] == ["p3"]
    shown = local.get(MANY, {"act": "delete", "whom": "page", "page": "1", "order": "name"})
    assert shown.context["count"] == 3
    beyond = {"act": "delete", "whom": "page", "page": "9" * 18}
    assert "Nobody was chosen" in local.get(MANY, beyond, follow=True).text


def test_purposes_are_given_where_there_is_a_consent(local, people):
    door, gate = (Purpose.objects.create(name=name) for name in ("door", "gate"))
    consents = [enrolling.add_consent(each, day=timezone.localdate()) for each in people[:2]]
    consents[1].purposes.set([gate])
    JournalEntry.objects.all().delete()
    asked = local.get(MANY, {"act": "purposes", "person": keys(people)})
    assert "2 of them have no consent in force" in asked.text
    given = {"purposes": [door.pk, gate.pk], "given": "1"}
    assert "2 people were changed." in confirm(local, asked, **given).text
    assert all(set(each.purposes.all()) == {door, gate} for each in consents)
    assert len(lines()) == 1
    undo(local)
    assert [set(each.purposes.all()) for each in consents] == [set(), {gate}]
    confirm(local, asked, purposes=[gate.pk], given="0")
    assert not Consent.purposes.through.objects.exists()
    undo(local)
    assert [set(each.purposes.all()) for each in consents] == [set(), {gate}]


def test_many_are_deleted_as_one_and_come_back(local, people, commits):
    asked = local.get(MANY, {"act": "delete", "whom": "all"})
    assert "Delete 4 people" in asked.text and "6 pictures" in asked.text
    with commits():
        done = confirm(local, asked)
    assert "4 people were deleted, pictures: 6." in done.text and not Person.objects.exists()
    assert [line.action for line in lines()] == ["deleted"]
    trash = local.get("/people/trash").text
    assert "4 people" in trash and "p0, p1, p2, p3" in trash
    assert "4 pessoas" in local.get("/people/trash", headers={"accept-language": "pt-BR"}).text
    with commits():
        undo(local)
    assert Person.objects.count() == 4 and FaceImage.objects.count() == 6


def test_several_become_one_and_each_is_themselves_again(local, people, commits):
    asked = local.get(MANY, {"act": "merge", "person": keys(people)})
    assert asked.context["suggested"] == people[3]
    asked_again = confirm(local, asked)
    assert Person.objects.count() == 4, "nobody was chosen to keep"
    done = confirm(local, asked_again, keep=people[0].pk)
    assert "3 people are now part of N0 (p0); pictures moved: 6." in done.text
    assert people[0].face_images.count() == 6 and MergedId.objects.count() == 3
    (line,) = lines()
    assert line.subjects.filter(role="merged").count() == 3
    with commits():
        undo(local)
    counts = {each.person_id: each.face_images.count() for each in Person.objects.all()}
    assert counts == {"p0": 0, "p1": 1, "p2": 2, "p3": 3} and not MergedId.objects.exists()
    assert Person.objects.get(person_id="p0").notes == ""


def test_an_older_merge_in_the_trash_is_undone(people):
    consent = enrolling.add_consent(people[1], day=timezone.localdate())
    item = corrections.merge_persons(people[0], people[1]).undo
    item.facts |= item.facts.pop("of")[people[1].pk]  # as version 2.0 kept it
    item.save()
    corrections.undo(item)
    consent.refresh_from_db()
    assert consent.person == people[1]


def test_who_was_erased_leaves_what_undoes_a_change(people):
    item = corrections.change_persons(keys(people[:2]), legal_basis="law").undo
    corrections.erase_person(people[0])
    assert list(TrashedPart.objects.values_list("person_pk", flat=True)) == [people[1].pk]
    corrections.undo(item)
    assert Person.objects.get(pk=people[1].pk).legal_basis == ""


def test_too_many_nobody_and_who_may_not_are_refused(local, people, monkeypatch, django_user_model):
    assert "Nobody was chosen." in local.get(MANY, {"act": "delete"}, follow=True).text
    assert "Nobody was chosen." in local.get(MANY, {"person": keys(people)}, follow=True).text
    one = {"act": "merge", "person": people[0].pk}
    assert "two people or more" in local.get(MANY, one, follow=True).text
    monkeypatch.setattr("enrollment.corrections.bulk_changes.MOST_DELETED", 3)
    with pytest.raises(TooManyPersons, match="These are 4 people, and at most 3"):
        corrections.delete_persons(keys(people))
    user = django_user_model.objects.create_user("maria")
    user.user_permissions.add(Permission.objects.get(codename="view_person"))
    local.force_login(user)
    assert not Markup(local.get("/people/")).find("form", id="many")
    for act in ("legal_basis", "merge", "delete"):
        data = {"act": act, "person": keys(people), "count": 4, "legal_basis": "x"}
        assert local.get(MANY, data).status_code == 403 == local.post(MANY, data).status_code, act


def test_without_a_trash_it_says_that_it_cannot_be_undone(local, people, settings):
    settings.TRASH_DAYS = 0
    asked = local.get(MANY, {"act": "delete", "person": keys(people)})
    assert "This cannot be undone." in asked.text
    assert "4 people were deleted" in confirm(local, asked).text
    assert not TrashItem.objects.exists() and not Person.objects.exists()
