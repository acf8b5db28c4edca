"""The search log: no pictures, a limited time, and only for users with permission."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

from enrollment import journal
from enrollment.admin.dates import DatedQuerySet
from enrollment.corrections import corrections
from enrollment.models import BackupRecord, Person, SearchEntry
from enrollment.upkeep import backlog
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.enrollment.gallery import MODEL, enroll, set_thresholds
from tests.enrollment.test_groups import make_groups
from tests.pictures import draw_picture, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

SEARCH = "/api/milvus/search"
LOG = "/admin/enrollment/searchentry/"
WHOLE = {"use_face_detection": "false"}  # drawn pictures have no face


@pytest.fixture
def ana() -> Person:
    set_thresholds()
    return enroll("ana", draw_picture(seed=1), draw_picture(seed=2)).person


@pytest.fixture
def entry(ana) -> SearchEntry:
    return SearchEntry.objects.create(
        username="maria", channel="api", model=MODEL, person=ana, similarity=0.97, decision="match",
        answers=2, request_id="gate-7",
    )  # fmt: skip


@pytest.fixture
def minute(monkeypatch) -> Callable[[], None]:
    """Run what the server does every minute."""
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    return lambda: backlog.BacklogThread()._pass(timezone.now())


@pytest.fixture
def admin(admin_user) -> Client:
    browser = Client(headers={"host": "localhost"})
    browser.force_login(admin_user)
    return browser


def test_a_call_is_kept_with_the_account_and_the_best_answer(api, ana):
    maria = User.objects.create_user("maria")
    maria.user_permissions.add(Permission.objects.get(codename="view_person"))
    token = Token.objects.create(user=maria).key
    headers = {"authorization": f"Token {token}", "x-request-id": "gate-7"}
    picture = upload(draw_picture(seed=1))
    answer = api.post(SEARCH, {"image": picture, "top_k": 2, **WHOLE}, headers=headers).json()
    entry = SearchEntry.objects.get()
    assert (entry.username, entry.channel, entry.request_id) == ("maria", "api", "gate-7")
    assert (entry.person, entry.decision, entry.answers) == (ana, "match", 2)
    assert entry.similarity == pytest.approx(answer["results"][0]["similarity"])
    assert (timezone.now() - entry.created_at).total_seconds() < 60


def test_what_finds_nobody_is_kept_too(api, ana):
    api.post(SEARCH, {"image": upload(draw_picture(seed=9)), "threshold": 1, **WHOLE})
    entry = SearchEntry.objects.get()
    assert (entry.username, entry.person, entry.similarity) == ("", None, None)
    assert (entry.decision, entry.answers) == ("unknown", 0)


def test_the_page_keeps_an_entry_for_each_face(ana):
    enroll("bia", as_jpeg(draw_face(PEOPLE[0])), use_face_detection=True)
    browser = Client(headers={"host": "localhost"})
    form = {"model": MODEL, "top_k": 3, "group_by_person": "on"}
    pictures = [upload(as_jpeg(draw_group())), upload(b"<html>", "bad.jpg")]
    assert browser.post("/", {"images": pictures, **form}).status_code == 200
    entries = SearchEntry.objects.all()
    assert {entry.channel for entry in entries} == {"page"} and len(entries) == 3
    assert len({entry.request_id for entry in entries}) == 1
    assert "bia" in {entry.person.person_id for entry in entries}


def test_a_search_that_is_refused_leaves_no_entry(api, ana):
    assert api.post(SEARCH, {"image": upload(b"<html>")}).status_code == 400
    assert not SearchEntry.objects.exists()


def test_verifying_somebody_is_kept_and_comparing_two_pictures_is_not(api, ana):
    form = {"source_image": upload(draw_picture(seed=1)), **WHOLE}
    assert api.post("/api/verify", form | {"person_id": "ana"}).status_code == 200
    form = {"source_image": upload(draw_picture(seed=1)), **WHOLE}
    two = form | {"target_image": upload(draw_picture(seed=2))}
    assert api.post("/api/verify", two).status_code == 200
    entry = SearchEntry.objects.get()
    assert (entry.channel, entry.person, entry.decision) == ("verify", ana, "match")


def test_nothing_is_kept_when_the_administrator_says_so(api, ana, entry, settings, minute):
    settings.SEARCH_LOG_DAYS = 0
    api.post(SEARCH, {"image": upload(draw_picture(seed=1)), **WHOLE})
    assert SearchEntry.objects.get() == entry
    minute()
    assert not SearchEntry.objects.exists()


def test_old_entries_are_deleted_by_the_server(entry, settings, minute):
    settings.SEARCH_LOG_DAYS = 30
    old = SearchEntry.objects.create(
        channel="api", model=MODEL, answers=0, created_at=timezone.now() - timedelta(days=31)
    )
    minute()
    assert list(SearchEntry.objects.all()) == [entry] != [old]


def test_who_is_deleted_is_forgotten_and_who_is_merged_is_not(ana, entry):
    bia = enroll("bia", draw_picture(seed=3)).person
    corrections.merge_persons(bia, ana)
    entry.refresh_from_db()
    assert entry.person == bia
    corrections.delete_person(bia)
    entry.refresh_from_db()
    assert (entry.person, entry.decision, entry.username) == (None, "match", "maria")


@pytest.mark.django_db(transaction=True)
def test_a_locked_database_delays_no_search_and_the_log_says_what_is_missing(api, ana, caplog):
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite locks all of itself.")
    name = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING, "enrollment.gallery.search_log"):
            answer = api.post(SEARCH, {"image": upload(draw_picture(seed=1)), **WHOLE})
        other.execute("ROLLBACK")
    assert answer.status_code == 200 and answer.json()["results"][0]["person_id"] == "ana"
    assert not SearchEntry.objects.exists()
    assert f"person {ana.pk}" in caplog.text and "match" in caplog.text
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        waits = 1000 * connection.settings_dict["OPTIONS"].get("timeout", 5)
        assert cursor.fetchone() == (waits,)


@pytest.mark.django_db(transaction=True)
def test_threads_take_turns_to_write_to_the_log(ana):
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite locks all of itself.")
    has_turn = threading.Event()

    def write() -> None:
        with closing(connection), journal.short_wait():
            has_turn.set()

    other = threading.Thread(target=write, daemon=True)
    with journal.short_wait():
        other.start()
        assert not has_turn.wait(0.1)
    assert has_turn.wait(10)
    other.join(10)


# In the admin


def test_the_log_is_read_filtered_and_exported_and_never_changed(admin, ana, entry):
    shown = admin.get(f"{LOG}?decision__exact=match&q=gate-7").content.decode()
    assert "maria" in shown and "0.970" in shown and "1 search" in shown
    assert "0 searches" in admin.get(f"{LOG}?decision__exact=review").content.decode()
    assert admin.get(f"{LOG}add/").status_code == 403
    assert admin.post(f"{LOG}{entry.pk}/change/", {"username": "eve"}).status_code == 403
    exported = admin.post(f"{LOG}export/?q=gate-7", {"format": "0", "resource": ""})
    columns, row = exported.content.decode().splitlines()
    assert columns.startswith("created_at,username,channel,model,decision,person_id,")
    assert row.endswith(f",maria,api,{MODEL},match,ana,0.97,2,gate-7")


def test_first_page_shows_the_last_searches_and_what_is_doubtful(admin, ana, entry):
    page = admin.get("/admin/").content.decode()
    assert reverse("admin:enrollment_searchentry_change", args=[entry.pk]) in page
    assert "Kept for 90 days" in page and '<span class="sync-match">1</span>' in page
    assert f'<a href="{reverse("admin:enrollment_person_change", args=[ana.pk])}">ana</a>' in page


def test_first_page_says_when_nothing_is_kept(admin, ana, settings):
    settings.SEARCH_LOG_DAYS = 0
    assert "Searches are not recorded" in admin.get("/admin/").content.decode()


def test_a_persons_page_leads_to_the_searches_that_found_them(admin, ana, entry):
    page = admin.get(reverse("admin:enrollment_person_change", args=[ana.pk])).content.decode()
    link = f"{LOG}?person__id__exact={ana.pk}"
    assert f'<a href="{link}">1 search found this person first</a>' in page
    assert admin.get(link).status_code == 200


@pytest.mark.parametrize(("group", "status"), [("Operator", 403), ("Administrator", 200)])
def test_administrators_read_the_log_and_operators_do_not(group, status):
    from importlib import import_module

    from django.apps import apps

    make_groups(apps, None)
    import_module("enrollment.migrations.0008_search_log").let_administrators_read(apps, None)
    user = User.objects.create_user("staff", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    browser = Client(headers={"host": "localhost"})
    browser.force_login(user)
    assert browser.get(LOG).status_code == status
    assert ("Last searches" in browser.get("/admin/").content.decode()) is (status == 200)


@pytest.mark.parametrize("zone", ["UTC", "America/Sao_Paulo"])
def test_days_above_a_long_list_are_looked_up_and_not_collected_from_its_rows(settings, zone):
    settings.TIME_ZONE = zone
    days = ["2024-02-29 23:30", "2024-03-01 00:30", "2025-12-31 12:00", "2026-01-01 01:00"]
    times = [datetime.fromisoformat(f"{day}+00:00") for day in (*days, *days)]
    SearchEntry.objects.bulk_create(SearchEntry(created_at=at, answers=0) for at in times)
    rows = DatedQuerySet(SearchEntry)
    for kind in ("year", "month", "day"):
        expected = list(SearchEntry.objects.datetimes("created_at", kind))
        with CaptureQueriesContext(connection) as asked:
            assert rows.datetimes("created_at", kind) == expected
        assert len(asked) == len(expected) + 1
        assert not any("DISTINCT" in query["sql"] for query in asked)
    of_2024 = rows.filter(created_at__year=2024)
    assert of_2024.datetimes("created_at", "month", "DESC") == list(
        SearchEntry.objects.filter(created_at__year=2024).datetimes("created_at", "month", "DESC")
    )


@pytest.mark.parametrize("name", ["faceimage", "journalentry", "searchentry"])
def test_long_lists_take_their_days_from_an_index(admin, entry, name):
    with CaptureQueriesContext(connection) as asked:
        assert admin.get(reverse(f"admin:enrollment_{name}_changelist")).status_code == 200
    assert not any("_trunc(" in query["sql"] or "DATE_TRUNC" in query["sql"] for query in asked)


def test_rows_are_titled_by_the_readers_clock(admin_client, settings) -> None:
    settings.TIME_ZONE = "America/Sao_Paulo"
    at = datetime(2026, 11, 27, 1, 30, tzinfo=UTC)
    entry = SearchEntry.objects.create(
        created_at=at, username="ana", channel="page", model=MODEL, answers=0
    )
    assert "ana 11/26/2026 10:30 p.m." in admin_client.get(f"{LOG}{entry.pk}/change/").text
    backup = BackupRecord.objects.create(made_at=at, file="b.tar", size=1, persons=1, pictures=1)
    page = f"/admin/enrollment/backuprecord/{backup.pk}/change/"
    assert "11/26/2026 10:30 p.m." in admin_client.get(page).text
