"""Finding people: as one types, in the orders of lists, and by what needs a look."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from enrollment.corrections import change_person
from enrollment.enrolling import add_consent
from enrollment.exceptions import PersonNotFound
from enrollment.gallery import (
    GALLERY_ORDERS,
    filtered_persons,
    person_named,
    person_typed,
    sorted_persons,
)
from enrollment.models import Doubt, FaceImage, Person, fill_order

pytestmark = pytest.mark.django_db
CPF = "123.456.789-09"


def person(person_id: str, name: str = "", pictures: int = 0, doubts: int = 0, **more) -> Person:
    made = Person.objects.create(person_id=person_id, name=name, **more)
    for number in range(pictures):
        picture = FaceImage.objects.create(person=made, image="none.jpg")
        if number < doubts:
            Doubt.objects.create(face_image=picture, code="blurred")
    return made


def suggested(local: Client, text: str) -> list[str]:
    answer = local.get("/people/suggest", {"q": text})
    assert "no-store" in answer["Cache-Control"]
    return [each["person_id"] for each in answer.json()["persons"]]


def listed(order: str, *filters: str) -> list[str]:
    found = sorted_persons(filtered_persons("", filters), order)
    return list(found.values_list("person_id", flat=True))


@pytest.mark.parametrize("stored", [CPF, "12345678909"])
@pytest.mark.parametrize("typed", [CPF, "12345678909", "456789", "456.789"])
def test_digits_are_found_with_and_without_punctuation(local, stored, typed):
    person(stored)
    person("987")
    assert suggested(local, typed) == [stored]


def test_whom_one_means_comes_first(local):
    ana = person("a-1", "Ana", pictures=2)
    for number, name in enumerate(["Joana", "Maria Aná", "ÁNA Lima"]):
        person(f"b-{number}", name)
    person("ana", "Zoé")
    assert suggested(local, "  aNã ") == ["ana", "a-1", "b-2", "b-1", "b-0"]
    (found,) = local.get("/people/suggest?q=a-1").json()["persons"]
    assert found["page"] == f"/people/{ana.pk}/" and found["pictures"] == 2
    assert found["face"] == f"/pictures/{ana.face_images.first().pk}?size=face"
    assert suggested(local, "") == [] == suggested(local, "%") == suggested(local, "nobody")


def test_at_most_a_handful_is_suggested_with_two_queries(local, django_assert_max_num_queries):
    Person.objects.bulk_create(Person(person_id=f"p{n}", search_text=f"p{n}") for n in range(40))
    with django_assert_max_num_queries(2):
        assert len(suggested(local, "p")) == 8


def test_who_may_not_browse_gets_no_suggestions(local, django_user_model):
    person("ana")
    local.force_login(django_user_model.objects.create_user("maria"))
    assert local.get("/people/suggest?q=ana").status_code == 403


def test_lists_are_sorted_naturally(local):
    for person_id in ("emp-10", "emp-2", "Emp-007", "emp-2a", "9", "10"):
        person(person_id)
    assert listed("id") == ["9", "10", "emp-2", "emp-2a", "Emp-007", "emp-10"]
    Person.objects.update(id_order="")
    fill_order(Person.objects)
    assert listed("id") == ["9", "10", "emp-2", "emp-2a", "Emp-007", "emp-10"]


def test_lists_are_sorted_by_name_doubts_and_last_change(local):
    person("1")
    bia = person("2", "Bia", pictures=2, doubts=1)
    ana = person("3", "ána", pictures=2, doubts=2)
    dismissed = Doubt.objects.filter(face_image__person=ana).first()
    Doubt.objects.create(face_image=bia.face_images.last(), code="dark")
    Doubt.objects.filter(pk=dismissed.pk).update(dismissed_at=timezone.now())
    assert listed("name") == ["3", "2", "1"]
    assert listed("doubts") == ["2", "3", "1"]
    change_person(ana, name="Ana")
    assert listed("changed")[0] == "3"
    FaceImage.objects.create(person=bia, image="none.jpg")
    assert listed("changed") == ["2", "3", "1"]
    for order in GALLERY_ORDERS:
        page = local.get("/people/", {"order": order}).context["page"]
        assert [each.person_id for each in page] == listed(order), order


def test_lists_are_filtered(local):
    soon = timezone.localdate() + timedelta(days=3)
    person("doubtful", pictures=2, doubts=1, legal_basis="law", keep_until=None)
    person("single", pictures=1, legal_basis="law", keep_until=soon)
    add_consent(person("consented", pictures=2), day=date(2020, 1, 1))
    person("baseless", pictures=1, doubts=1)
    assert listed("id", "doubtful") == ["baseless", "doubtful"]
    assert listed("id", "single") == ["baseless", "single"]
    assert listed("id", "expiring") == ["single"]
    assert listed("id", "baseless") == ["baseless"]
    assert listed("id", "doubtful", "single") == ["baseless"]
    shown = local.get("/people/?doubtful=on&single=on&baseless=nonsense")
    assert [each.person_id for each in shown.context["page"]] == ["baseless"]
    assert "1 doubt" in shown.text
    assert "Nobody is as the filters say" in local.get("/people/?expiring=on&doubtful=on").text


@pytest.mark.django_db
def test_an_id_without_its_punctuation_names_nobody_by_chance():
    ana = Person.objects.create(person_id="12-3")
    assert person_typed("123") == ana
    with pytest.raises(PersonNotFound):
        person_typed("1-23")
    Person.objects.create(person_id="1-2-3")
    for among in (None, Person.objects.filter(pk=ana.pk)):
        with pytest.raises(PersonNotFound):
            person_typed("123", among=among)
    Person.objects.create(person_id="ana.lima", name="Ana Lima")
    Person.objects.create(person_id="1002", name="Ana Lima")
    with pytest.raises(PersonNotFound, match="Several people"):
        person_named("Ana Lima")
