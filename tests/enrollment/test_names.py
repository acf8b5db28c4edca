"""Normal forms of ids, the search for persons, and warnings about similar ids and names."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from enrollment.corrections import change_person, create_person
from enrollment.enrolling import clean_person_id
from enrollment.gallery import easily_mistaken, find_persons, get_person
from enrollment.models import FaceEmbedding, Person, tidy_rows
from tests.enrollment.gallery import enroll
from tests.pictures import draw_picture

pytestmark = pytest.mark.django_db

JOAO = "Jo\u00e3o"
DECOMPOSED = "Joa\u0303o"


@pytest.mark.parametrize(
    "given",
    [
        DECOMPOSED,
        f" {JOAO}\u00a0",
        f"\u200b{JOAO}\ufeff",
        f"\u202e{JOAO}\u202c",
        "Jo\u200d\u00e3o\n",
    ],
)
def test_ids_have_one_spelling(given):
    assert clean_person_id(given) == JOAO


@pytest.mark.parametrize(
    "given", [".", "..", "a\tb", "a\nb", "a\x00b", "a\x7fb", "a\u2028b", "a\ud800b"]
)
def test_ids_that_no_address_or_line_can_hold_are_refused(given):
    with pytest.raises(ValidationError):
        clean_person_id(given)


@pytest.mark.parametrize("given", ["", "  ", "\u200b\u200e"])
def test_blank_ids_are_refused(given):
    with pytest.raises(ValidationError, match="blank"):
        clean_person_id(given)


def test_both_spellings_are_one_person(api, weights, boss):
    enroll(DECOMPOSED, draw_picture(seed=1))
    enroll(JOAO, draw_picture(seed=2))
    assert Person.objects.get().person_id == JOAO
    assert api.get(f"/api/persons/{DECOMPOSED}").json()["person_id"] == JOAO
    for path in ("/people/new", "/admin/enrollment/person/add/"):
        refused = boss.post(path, {"person_id": DECOMPOSED}, follow=True)
        assert "already a person with this id" in refused.content.decode()
    assert Person.objects.count() == 1


@pytest.mark.parametrize("path", ["/people/new", "/admin/enrollment/person/add/"])
def test_pages_refuse_what_the_api_refuses(boss, api, path):
    assert "stands for a folder" in boss.post(path, {"person_id": ".."}).content.decode()
    answer = api.post("/api/persons", {"person_id": ".."}, format="json")
    assert answer.status_code == 400 and "stands for a folder" in answer.json()["message"]
    assert not Person.objects.exists()


def test_notes_have_a_limit(api, boss):
    answer = api.post("/api/persons", {"person_id": "ana", "notes": "x" * 10_001}, format="json")
    assert answer.status_code == 400 and list(answer.json()["fields"]) == ["notes"]
    page = boss.post("/people/new", {"person_id": "ana", "notes": "x" * 10_001})
    assert page.status_code == 400
    assert not Person.objects.exists()


QUESTIONS = [
    ("conceicao", "Conceição Dias"),
    ("CONCEIÇÃO", "Conceição Dias"),
    ("conceic\u0327a\u0303o dias", "Conceição Dias"),
    ("12345678909", "Ana"),
    ("123.456.789-09", "Ana"),
    ("987.654-32", "Bia Melo"),
    ("6789", "Ana"),
    ("ÁCIDO", "acido"),
]


@pytest.mark.parametrize(("text", "name"), QUESTIONS)
def test_people_are_found_whatever_accents_case_and_punctuation(text, name, boss, api):
    Person(person_id="123.456.789-09", name="Ana").save()
    Person(person_id="98765432", name="Bia Melo").save()  # no token of a form has that by chance
    Person(person_id="3", name="Conceição Dias").save()
    Person(person_id="4", name="acido").save()
    assert [each.name for each in find_persons(text)] == [name]
    answer = api.get("/api/persons", {"q": text}).json()
    assert [each["name"] for each in answer["results"]] == [name]
    for path in ("/people/", "/admin/enrollment/person/"):
        page = boss.get(path, {"q": text}, follow=True).content.decode()
        assert name in page and ("Bia Melo" in page) is (name == "Bia Melo")


def test_words_are_not_found_across_id_and_name():
    Person(person_id="ana", name="lima").save()
    assert not find_persons("analima")
    assert find_persons("lima ana").count() == 1


def test_renamed_people_are_found_by_the_new_name():
    person = create_person("ana", name="Ana")
    change_person(person, name="Zoé")
    assert [each.name for each in find_persons("zoe")] == ["Zoé"]
    person.refresh_from_db()
    person.name = "Íris"
    person.save(update_fields=["name"])
    assert [each.name for each in find_persons("iris")] == ["Íris"]


def test_people_easily_mistaken_are_told():
    create_person("123.456.789-09", name="Ana Souza")
    almost = create_person("12345678909")
    namesake = create_person("7", name="ANA  SOUZA")
    other = create_person("8", name="Bia")
    assert ["only in punctuation" in text for text in easily_mistaken(almost)] == [True]
    assert ["same name" in text for text in easily_mistaken(namesake)] == [True]
    assert easily_mistaken(other) == []


@pytest.mark.parametrize("path", ["/people/new", "/admin/enrollment/person/add/"])
def test_forms_warn_of_people_easily_mistaken(boss, path):
    create_person("123.456.789-09", name="Ana Souza")
    page = boss.post(path, {"person_id": "12345678909"}, follow=True).content.decode()
    assert "only in punctuation" in page
    assert Person.objects.count() == 2


def test_rows_of_version_1_are_made_tidy_and_none_is_lost():
    for person_id in (DECOMPOSED, "\u200bana", "ana", ".."):
        Person(person_id=person_id, name="Zoé").save()
    Person.objects.update(search_text="", id_key="", name_key="")
    renamed = tidy_rows(Person.objects)
    assert len(renamed) == 1
    assert set(Person.objects.values_list("person_id", flat=True)) == {
        JOAO,
        "\u200bana",
        "ana",
        "..",
    }
    assert find_persons("zoe").count() == 4
    assert get_person(DECOMPOSED).person_id == JOAO
    assert get_person("\u200bana").person_id == "\u200bana" and get_person("ana").person_id == "ana"
    change_person(get_person(".."), name="still there")
    assert get_person("..").name == "still there"


@pytest.mark.django_db(transaction=True)
def test_update_from_version_1_has_milvus_told_new_ids(weights):
    enroll(JOAO, draw_picture())
    row = FaceEmbedding.objects.get()
    Person.objects.update(person_id=DECOMPOSED, search_text="")
    executor = MigrationExecutor(connection)
    executor.migrate([("enrollment", "0010_picture_chosen_face")])
    try:
        MigrationExecutor(connection).migrate([("enrollment", "0012_tidy_persons")])
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    row.refresh_from_db()
    assert Person.objects.get().person_id == JOAO and row.status == row.Status.PENDING
    assert find_persons("joao").count() == 1
