"""Tokens: hashed, named, with scope, end and last use; and tokens of version 1.0."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

import enrollment
from enrollment.models import AccessToken, Person
from faceproject.management.commands.serve import Command
from tests.pictures import upload

pytestmark = pytest.mark.django_db

Scope = AccessToken.Scope
ADMIN = "/admin/enrollment/accesstoken/"


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser("boss")


@pytest.fixture
def issue(boss):
    def issue(scope: str = Scope.SEARCH, days: float = 1, user: User = boss) -> str:
        end = timezone.now() + timedelta(days=days)
        return AccessToken.issue(user=user, name="gate", scope=scope, expires_at=end)[1]

    return issue


@pytest.fixture
def call(api):
    def call(token: str, method: str, path: str, data=None):
        headers = {"authorization": f"Token {token}"}
        return getattr(api, method)(path, data, REMOTE_ADDR="10.0.0.7", headers=headers)

    return call


def test_a_token_is_kept_as_a_hash_alone(issue, call):
    secret = issue()
    row = AccessToken.objects.values().get()
    assert secret not in map(str, row.values()) and len(secret) >= 40
    assert call(secret, "get", "/api/models").status_code == 200
    assert call(row["digest"], "get", "/api/models").status_code == 401


@pytest.mark.parametrize(
    ("scope", "path", "status"),
    [
        (Scope.SEARCH, "/api/models", 200),
        (Scope.SEARCH, "/api/persons", 403),
        (Scope.SEARCH, "/pictures/1", 403),
        (Scope.ENROL, "/api/persons", 200),
        (Scope.ENROL, "/pictures/1", 404),
        (Scope.ADMINISTER, "/api/persons", 200),
    ],
)
def test_a_scope_bounds_what_the_account_may(issue, call, scope, path, status):
    response = call(issue(scope), "get", path)
    assert response.status_code == status
    if (path, status) == ("/api/persons", 403):  # was said to be the account's fault, which may all
        assert "scope of this token" in response.json()["message"]


def test_a_scope_gives_nothing_that_the_account_has_not(issue, call):
    weak = User.objects.create_user("weak")
    assert call(issue(Scope.ADMINISTER, user=weak), "get", "/api/persons").status_code == 403


def test_a_search_asks_for_no_permission_that_the_scope_withholds_anyway(issue, call):
    token = issue(user=User.objects.create_user("weak"))
    sent = {"embedding": json.dumps(np.eye(512)[0].tolist())}
    with CaptureQueriesContext(connection) as asked:
        assert call(token, "post", "/api/milvus/search", sent).status_code == 200
    of_tables = [query["sql"] for query in asked]
    assert not any("auth_permission" in sql for sql in of_tables)
    assert sum("enrollment_purpose" in sql for sql in of_tables) == 1  # is anybody limited?


def test_enrolment_ends_at_the_gallery():
    token = AccessToken(scope=Scope.ENROL)
    assert token.allows("enrollment.add_faceimage") and token.allows("enrollment.delete_person")
    assert not token.allows("enrollment.view_searchentry") and not token.allows("auth.change_user")
    assert not token.allows("enrollment.add_accesstoken")


def test_a_search_token_enrols_nobody(issue, call):
    sent = {"images": [upload()], "person_id": "ana"}
    assert call(issue(), "post", "/api/milvus/insert", sent).status_code == 403
    assert not Person.objects.exists()


@pytest.mark.parametrize("scheme", ["Token", "token", "Bearer", "bearer"])
def test_a_token_may_be_sent_as_other_services_want_it(api, issue, scheme):
    headers = {"authorization": f"{scheme} {issue()}"}
    answer = api.get("/api/models", REMOTE_ADDR="10.0.0.7", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("nope", "No account has this token"),
        ("two words", "'Token', one space and the token are expected"),
        ("", "'Token', one space and the token are expected"),
    ],
)
def test_a_token_that_is_nobodys_is_refused_with_what_to_do(call, token, sentence):
    refused = call(token, "get", "/api/models")
    assert refused.status_code == 401 and sentence in refused.json()["message"]


def test_a_token_ends(issue, call):
    refused = call(issue(days=-1), "get", "/api/models")
    assert (refused.status_code, refused.json()["error"]) == (401, "authentication_failed")
    assert "ended on" in refused.json()["message"]


def test_a_token_ends_with_its_account(issue, call, boss):
    User.objects.update(is_active=False)
    assert call(issue(), "get", "/api/models").status_code == 401


def test_the_last_use_is_noted_but_not_at_every_request(issue, call):
    secret = issue()
    call(secret, "get", "/api/models")
    first = AccessToken.objects.get().last_used_at
    assert timezone.now() - first < timedelta(minutes=1)
    call(secret, "get", "/api/models")
    assert AccessToken.objects.get().last_used_at == first


def test_tokens_of_version_1_go_on_and_are_named(call, boss, capsys):
    old = Token.objects.create(user=boss).key
    assert call(old, "get", "/api/persons").status_code == 200
    Command()._say_old_tokens()
    said = capsys.readouterr().out
    assert "version 1.0" in said and "boss" in said and old not in said
    Token.objects.all().delete()
    Command()._say_old_tokens()
    assert not capsys.readouterr().out
    assert call(old, "get", "/api/persons").status_code == 401


@pytest.fixture
def browser(boss) -> Client:
    browser = Client(headers={"host": "localhost"})
    browser.force_login(boss)
    return browser


def test_the_admin_lists_tokens_of_version_1_only_where_there_are_some(browser, boss):
    address = reverse("admin:authtoken_tokenproxy_changelist")
    assert address not in browser.get(reverse("admin:index")).text
    Token.objects.create(user=boss)
    assert address in browser.get(reverse("admin:index")).text


def test_the_admin_shows_a_token_once(browser, boss, call):
    old = Token.objects.create(user=boss).key
    sent = {"user": boss.pk, "name": "gate", "scope": "search"}
    sent |= {"expires_at_0": "2999-01-01", "expires_at_1": "00:00:00"}
    page = browser.post(f"{ADMIN}add/", sent, follow=True)
    (secret,) = [
        message.message.rpartition(" ")[2]
        for message in page.context["messages"]
        if "shown this once" in message.message
    ]
    assert call(secret, "get", "/api/models").status_code == 200
    page = browser.get(ADMIN).content.decode()
    assert secret not in page and secret[:8] in page and "boss" in page and "version 1.0" in page
    row = AccessToken.objects.get()
    assert secret not in browser.get(f"{ADMIN}{row.pk}/change/").content.decode()
    for path in ("", f"{boss.pk}/change/", f"{boss.pk}/delete/"):
        page = browser.get(f"/admin/authtoken/tokenproxy/{path}", follow=True)
        assert old not in page.content.decode()
    names = [
        model["name"]
        for app in browser.get("/admin/").context["app_list"]
        for model in app["models"]
    ]
    assert names.count("Tokens") == names.count("Tokens of version 1.0") == 1


def test_an_administrator_gets_no_superusers_token(boss):
    chief = User.objects.create_user("chief", is_staff=True)
    wanted = ["add_accesstoken", "view_accesstoken", "delete_accesstoken"]
    chief.user_permissions.add(*Permission.objects.filter(codename__in=wanted))
    browser = Client(headers={"host": "localhost"})
    browser.force_login(chief)
    sent = {"user": boss.pk, "name": "mine", "scope": "administer"}
    assert browser.post(f"{ADMIN}add/", sent).status_code == 200
    assert not AccessToken.objects.exists()
    browser.post(f"{ADMIN}add/", sent | {"user": chief.pk})
    assert AccessToken.objects.get().user == chief


def test_who_managed_tokens_manages_them():
    group = Group.objects.create(name="token keepers")
    group.permissions.add(Permission.objects.get(codename="view_tokenproxy"))
    (path,) = (Path(enrollment.__file__).parent / "migrations").glob("*_access_tokens.py")
    import_module(f"enrollment.migrations.{path.stem}").allow_managers(apps, None)
    assert group.permissions.filter(codename="view_accesstoken").exists()
    assert not group.permissions.filter(codename="add_accesstoken").exists()


def test_a_token_is_made_on_the_command_line(boss, call):
    out = io.StringIO()
    call_command("create_token", "boss", name="gate", scope="enrol", stdout=out)
    assert call(out.getvalue().strip(), "get", "/api/persons").status_code == 200
    token = AccessToken.objects.get()
    assert token.name == "gate" and token.expires_at > timezone.now() + timedelta(days=364)
    with pytest.raises(CommandError, match="nobody"):
        call_command("create_token", "nobody", name="gate")
    for days in (-1, 10**9):  # the last would end after the year 9999
        with pytest.raises(CommandError, match="0 to 36500 were expected"):
            call_command("create_token", "boss", name="gate", days=days)
    for name in (" ", "x" * 101):
        with pytest.raises(CommandError, match="--name: "):
            call_command("create_token", "boss", name=name)
