"""The last day of persons: set, shown and obeyed at every entry point."""

from __future__ import annotations

import html
from datetime import date, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse
from django.utils import timezone

from enrollment.corrections import corrections
from enrollment.exceptions import PersonNotFound
from enrollment.gallery.selectors import gallery_state
from enrollment.models import FaceImage, Person
from enrollment.upkeep import backlog, retention
from enrollment.upkeep.backlog import PAUSE, BacklogThread
from tests.enrollment.gallery import enroll, found, stored

pytestmark = pytest.mark.django_db

ADMIN = "/admin/enrollment/person/"


def days_from_now(days: int) -> date:
    return timezone.localdate() + timedelta(days=days)


@pytest.fixture
def four(weights) -> list[str]:
    """Persons whose last day was yesterday, is today, is within a month, or is not set."""
    for name, days in {"over": -1, "today": 0, "later": 29, "endless": None}.items():
        last_day = None if days is None else days_from_now(days)
        Person.objects.create(person_id=name, keep_until=last_day)
    return ["today", "later", "endless"]


def left() -> list[str]:
    return list(Person.objects.order_by("pk").values_list("person_id", flat=True))


def test_server_deletes_who_is_due_with_file_and_vectors(
    weights, draw_picture, commits, monkeypatch
):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    pictures = [draw_picture(seed=1), draw_picture(seed=2)]
    for name, picture in zip(("over", "today"), pictures, strict=True):
        enroll(name, picture)
    Person.objects.filter(person_id="over").update(keep_until=days_from_now(-1))
    Person.objects.filter(person_id="today").update(keep_until=days_from_now(0))
    file = FaceImage.objects.get(person__person_id="over").image
    with commits():
        assert BacklogThread()._pass(timezone.now()) == PAUSE
    assert left() == ["today"] and {row.person_id for row in stored()} == {"today"}
    assert found(pictures[0]) == ["today"]
    assert not file.storage.exists(file.name)


def test_only_who_is_due_is_deleted(four):
    assert retention.delete_due_persons() == 1
    assert left() == four
    assert retention.delete_due_persons() == 0


def test_deletion_stops_between_persons_and_passes_over_who_is_gone(four, monkeypatch):
    assert retention.delete_due_persons(lambda: True) == 0

    def already(person: Person) -> int:
        raise PersonNotFound

    monkeypatch.setattr(retention, "erase_person", already)
    assert retention.delete_due_persons() == 0


def test_one_who_cannot_be_deleted_keeps_no_other(four, monkeypatch):
    """Nobody who came after them was ever deleted."""
    Person.objects.filter(person_id="later").update(keep_until=days_from_now(-1))
    erase = retention.erase_person

    def fails_once(person: Person) -> int:
        if person.person_id == "over":
            raise ValueError("unforeseen")
        return erase(person)

    monkeypatch.setattr(retention, "erase_person", fails_once)
    with pytest.raises(ValueError, match="unforeseen"):
        retention.delete_due_persons()
    assert left() == ["over", "today", "endless"]


def test_first_page_and_list_of_the_admin_lead_to_them(four, boss):
    assert gallery_state().persons_due_soon == 3
    link = (
        f'<a href="{ADMIN}?retention=soon"><span class="sync-pending">3</span> people are deleted'
    )
    assert link in boss.get("/admin/").text

    def listed(choice: str) -> set[str]:
        page = boss.get(f"{ADMIN}?retention={choice}")
        return {person.person_id for person in page.context["cl"].queryset}

    Person.objects.filter(person_id="endless").update(legal_basis="a law")
    assert listed("soon") == {"over", "today", "later"}
    assert listed("endless") == {"endless"}
    assert listed("baseless") == {"over", "today", "later"}


def test_setting_gives_new_people_their_last_day(settings, weights, draw_picture):
    enroll("before", draw_picture(seed=1))
    settings.PERSON_KEEP_DAYS = 10
    enroll("after", draw_picture(seed=2))
    corrections.create_person("endless", keep_until=None)
    enroll("before", draw_picture(seed=3))
    last_days = dict(Person.objects.values_list("person_id", "keep_until"))
    assert last_days == {"before": None, "after": days_from_now(10), "endless": None}


@pytest.mark.django_db(transaction=True)
def test_update_gives_nobody_a_last_day(settings):
    settings.PERSON_KEEP_DAYS = 10
    try:
        executor = MigrationExecutor(connection)
        executor.migrate([("enrollment", "0008_search_log")])
        old = executor.loader.project_state([("enrollment", "0008_search_log")]).apps
        old.get_model("enrollment", "Person").objects.create(person_id="ana")
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    assert Person.objects.get().keep_until is None


def test_past_day_is_refused(api):
    with pytest.raises(ValidationError):
        corrections.create_person("ana", keep_until=days_from_now(-1))
    body = {"person_id": "ana", "keep_until": "2020-01-31"}
    answer = api.post("/api/persons", body, format="json")
    assert answer.status_code == 400
    assert "Jan. 31, 2020 is past." in answer.json()["fields"]["keep_until"][0]
    answer = api.post("/api/persons", body, format="json", headers={"accept-language": "pt-BR"})
    assert "31 de janeiro de 2020 já passou." in answer.json()["fields"]["keep_until"][0]
    assert not Person.objects.exists()


def test_api_reads_and_changes_both(api):
    day = days_from_now(400).isoformat()
    body = {"person_id": "ana", "legal_basis": "consent", "keep_until": day}
    made = api.post("/api/persons", body, format="json").json()
    assert (made["legal_basis"], made["keep_until"]) == ("consent", day)
    changed = api.patch("/api/persons/ana", {"keep_until": None}, format="json").json()
    assert (changed["legal_basis"], changed["keep_until"]) == ("consent", None)
    wrong = api.patch("/api/persons/ana", {"keep_until": "31/12/2030"}, format="json")
    assert wrong.status_code == 400 and list(wrong.json()["fields"]) == ["keep_until"]


def test_pages_ask_for_both_and_show_them(boss):
    day = days_from_now(400)
    form = {"person_id": "ana", "legal_basis": "consent of May", "keep_until": day.isoformat()}
    page = html.unescape(boss.post("/people/new", form, follow=True).text)
    assert "Legal basis: consent of May" in page and "then deleted" in page
    person = Person.objects.get()
    assert (person.legal_basis, person.keep_until) == ("consent of May", day)
    shown = boss.get(reverse("person-details", args=[person.pk])).text
    assert f'value="{day.isoformat()}"' in shown
    refused = boss.post("/people/new", form | {"person_id": "bia", "keep_until": "2020-01-31"})
    assert "is past" in refused.text and left() == ["ana"]


def test_merging_takes_over_what_is_missing(weights):
    day = days_from_now(5)
    kept = Person.objects.create(person_id="a")
    merged = Person.objects.create(person_id="b", legal_basis="consent", keep_until=day)
    corrections.merge_persons(kept, merged)
    kept.refresh_from_db()
    assert (kept.legal_basis, kept.keep_until) == ("consent", day)
    other = Person.objects.create(person_id="c", legal_basis="law", keep_until=days_from_now(1))
    corrections.merge_persons(kept, other)
    kept.refresh_from_db()
    assert (kept.legal_basis, kept.keep_until) == ("consent", day)


@pytest.mark.parametrize(("day", "imported"), [("2090-06-05", True), ("05/06/2090", False)])
def test_lists_of_persons_hold_both(boss, day, imported):
    text = f"person_id,legal_basis,keep_until\nana,consent,{day}\n"
    form = {"import_file": SimpleUploadedFile("p.csv", text.encode()), "format": "0"}
    preview = boss.post(f"{ADMIN}import/", form | {"resource": ""})
    assert (preview.context.get("confirm_form") is not None) is imported
    if imported:
        boss.post(f"{ADMIN}process_import/", preview.context["confirm_form"].initial)
        assert Person.objects.get().keep_until == date(2090, 6, 5)
        exported = boss.post(f"{ADMIN}export/", {"format": "0", "resource": ""}).content.decode()
        assert "ana,,,consent,2090-06-05,0," in exported
