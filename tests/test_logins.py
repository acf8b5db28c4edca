"""Wrong passwords cause waits, sessions end, and users can change their own password."""

from __future__ import annotations

import logging
from datetime import timedelta
from types import SimpleNamespace

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import CommandError
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from faceproject.logins import (
    LONGEST_WAIT,
    SEEN,
    SessionRenewalMiddleware,
    client_address,
    wait_after,
)
from faceproject.management.commands.serve import Command

pytestmark = pytest.mark.django_db

PASSWORD = "a horse and a staple"


@pytest.fixture
def ana() -> User:
    return User.objects.create_user("ana", password=PASSWORD, is_staff=True)


def log_in(name: str, password: str, address: str = "10.0.0.7", path: str = "/login", **headers):
    browser = Client(headers={"host": "localhost"} | headers, REMOTE_ADDR=address)
    return browser.post(path, {"username": name, "password": password})


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> SimpleNamespace:
    """A stopped clock; set `clock.now` to move it."""
    clock = SimpleNamespace(now=timezone.now())
    for name in ("django.utils.timezone.now", "axes.handlers.proxy.now"):
        monkeypatch.setattr(name, lambda: clock.now)
    return clock


def test_each_wrong_password_is_waited_for_twice_as_long():
    waits = [wait_after(count, 3).total_seconds() for count in range(2, 14)]
    assert waits == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
def test_an_account_is_locked_for_everybody_and_opens_again(ana, clock, path):
    for number in range(3):
        assert log_in("ana", "wrong", f"10.0.0.{number}", path).status_code == 200
    refused = log_in("ana", PASSWORD, "10.9.9.9", path)
    assert (refused.status_code, refused["Retry-After"]) == (429, "2")
    assert "wrong passwords" in refused.content.decode()
    clock.now += timedelta(seconds=2)
    assert log_in("ana", "wrong", path=path).status_code == 200
    assert log_in("ana", PASSWORD, path=path)["Retry-After"] == "4"
    clock.now += LONGEST_WAIT
    assert log_in("ana", PASSWORD, path=path).status_code == 302
    assert not AccessAttempt.objects.exists()


def test_waiting_is_not_prolonged_by_who_tries_meanwhile(ana):
    for _ in range(9):
        log_in("ana", "wrong")
    assert AccessAttempt.objects.get().failures_since_start == 3


def test_an_address_that_tries_many_accounts_is_locked(ana):
    for number in range(12):
        assert log_in(f"user{number}", "wrong").status_code == 200
    assert log_in("ana", PASSWORD).status_code == 429
    assert log_in("ana", PASSWORD, "10.0.0.8").status_code == 302


def test_who_logs_in_unlocks_nobody_else(ana):
    User.objects.create_user("eve", password=PASSWORD)
    for _ in range(2):
        log_in("ana", "wrong")
    assert log_in("eve", PASSWORD).status_code == 302
    assert AccessAttempt.objects.get().username == "ana"


def test_a_proxy_on_this_machine_locks_nobody_out(ana):
    for number in range(20):
        log_in(f"user{number}", "wrong", "127.0.0.1")
    assert log_in("ana", PASSWORD, "127.0.0.1").status_code == 302


@pytest.mark.parametrize(
    ("proxies", "sent", "address"),
    [
        (0, "1.2.3.4", "127.0.0.1"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        (1, "nonsense", "127.0.0.1"),
    ],
)
def test_only_the_proxies_that_there_are_are_believed(rf, settings, proxies, sent, address):
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | {"NUM_PROXIES": proxies}
    assert client_address(rf.get("/", headers={"x-forwarded-for": sent})) == address


def test_each_wrong_password_is_logged_with_name_and_address(ana, caplog):
    with caplog.at_level(logging.WARNING, "faceproject.logins"):
        for _ in range(4):
            log_in("ana\n2026 INFO", "wrong")
            log_in("ana", "wrong")
    lines = [record.getMessage() for record in caplog.records if "account 'ana'" in record.message]
    assert lines[0] == "Wrong password: account 'ana', from 10.0.0.7"
    assert lines[3] == "Not read, too many before: account 'ana', from 10.0.0.7"
    assert not any("\n" in record.getMessage() for record in caplog.records)
    # Who types the password in the place of the name is told of, and the password is not.
    assert "Wrong password: no account, from 10.0.0.7" in caplog.messages
    assert "2026 INFO" not in caplog.text
    assert "wrong" not in "".join(AccessAttempt.objects.values_list("post_data", flat=True))


@pytest.fixture
def browser(ana) -> Client:
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    browser.force_login(ana)
    return browser


def test_everybody_changes_their_password(browser, ana):
    fields = {"old_password": PASSWORD, "new_password1": "", "new_password2": ""}
    assert "password" in browser.get("/").content.decode()
    short = browser.post("/password", fields | dict.fromkeys(list(fields)[1:], "elevenchars"))
    assert "12" in short.content.decode()
    new = "twelve monkeys"
    done = browser.post("/password", fields | dict.fromkeys(list(fields)[1:], new), follow=True)
    assert "Your password was changed." in done.content.decode()
    ana.refresh_from_db()
    assert ana.check_password(new)
    assert browser.get("/people/").status_code == 403  # still logged in


def test_a_password_is_nobodys_but_the_accounts():
    strange = Client(headers={"host": "localhost"}).get("/password")
    assert strange.status_code == 302 and strange["Location"].startswith("/login")


def test_a_session_ends_12_hours_after_the_last_request(browser):
    browser.get("/")
    row = Session.objects.get()
    left = row.expire_date - timezone.now()
    assert timedelta(hours=11.9) < left <= timedelta(hours=12)
    assert browser.cookies["sessionid"]["max-age"] == 12 * 60 * 60
    data = row.get_decoded() | {"seen": 0}
    row.session_data = Session.objects.encode(data)
    row.expire_date -= timedelta(hours=11)
    row.save()
    browser.get("/")
    assert Session.objects.get().expire_date - timezone.now() > timedelta(hours=11.9)


def test_a_session_is_not_written_at_every_request(browser):
    browser.get("/password")
    with CaptureQueriesContext(connection) as queries:
        browser.get("/password")
    assert not [query for query in queries if not query["sql"].startswith("SELECT")]


def test_a_picture_does_not_write_the_session_that_an_act_beside_it_changes(rf):
    request = rf.get("/pictures/1")
    request.session = SessionStore()
    request.session[SESSION_KEY] = "1"
    for kind, is_written in (("image/jpeg", False), ("text/html", True)):
        SessionRenewalMiddleware(lambda _: HttpResponse(content_type=kind))(request)  # noqa: B023
        assert (SEEN in request.session) == is_written


def test_the_first_accounts_password_is_no_short_one_either(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "boss")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "short")
    with pytest.raises(CommandError, match="DJANGO_SUPERUSER_PASSWORD.*12"):
        Command()._say_account()
    assert not User.objects.exists()
