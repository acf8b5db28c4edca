"""The groups that come with the database, and what their members may do."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.test import Client
from rest_framework.authtoken.models import Token

from enrollment.models import Person
from tests.pictures import upload

pytestmark = pytest.mark.django_db

make_groups = import_module("enrollment.migrations.0004_groups").make_groups


@pytest.fixture(autouse=True)
def _groups(db) -> None:
    """Restore the groups of the migration: tests that commit empty the tables afterwards."""
    make_groups(apps, None)


@pytest.fixture
def member(api):
    """An API client on another machine, with the token of a new account in this group."""

    def member(group: str):
        user = User.objects.create_user(f"a {group}")
        user.groups.add(Group.objects.get(name=group))
        token = Token.objects.create(user=user).key

        def call(method: str, path: str, data=None):
            headers = {"authorization": f"Token {token}"}
            return getattr(api, method)(path, data, REMOTE_ADDR="10.0.0.7", headers=headers)

        return call

    return member


def names(group: str) -> set[str]:
    rows = Group.objects.get(name=group).permissions.values_list(
        "content_type__app_label", "codename"
    )
    return {f"{app}.{codename}" for app, codename in rows}


def test_every_group_may_more_than_the_one_before():
    assert names("Viewer") == set()
    assert "enrollment.delete_person" in names("Operator")
    assert {name.partition(".")[0] for name in names("Operator")} == {"enrollment"}
    assert names("Operator") < names("Administrator")
    assert {"auth.add_user", "authtoken.add_tokenproxy"} <= names("Administrator")


def test_viewer_searches_and_no_more(member, weights):
    call = member("Viewer")
    assert call("post", "/api/embedding", {"image": upload()}).status_code == 200
    assert call("post", "/api/milvus/search", {"image": upload()}).status_code == 200
    insert = call("post", "/api/milvus/insert", {"images": [upload()], "person_id": "ana"})
    assert (insert.status_code, insert.json()["error"]) == (403, "permission_denied")
    assert "enrollment.add_faceimage" in insert.json()["message"]
    assert call("get", "/api/persons").status_code == 403
    assert not Person.objects.exists()


@pytest.mark.parametrize("group", ["Operator", "Administrator"])
def test_operator_enrols_and_corrects(member, weights, group):
    call = member(group)
    form = {"images": [upload()], "person_id": "ana", "use_face_detection": "false"}
    insert = call("post", "/api/milvus/insert", form)
    assert insert.status_code == 200
    assert call("get", "/api/persons").json()["count"] == 1
    assert call("patch", "/api/persons/ana", {"name": "Ana"}).status_code == 200
    assert call("delete", "/api/persons/ana").json()["deleted_pictures"] == 1


@pytest.mark.parametrize(
    ("group", "path", "status"),
    [
        ("Operator", "/admin/enrollment/person/", 200),
        ("Operator", "/admin/auth/user/", 403),
        ("Administrator", "/admin/auth/user/", 200),
        ("Administrator", "/admin/authtoken/tokenproxy/", 200),
        ("Viewer", "/admin/enrollment/person/", 403),
    ],
)
def test_the_admin_opens_as_far_as_the_group_goes(group, path, status):
    user = User.objects.create_user("staff", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    browser = Client(headers={"host": "localhost"})
    browser.force_login(user)
    assert browser.get(path).status_code == status


def test_groups_that_were_changed_stay_changed():
    operator = Group.objects.get(name="Operator")
    operator.permissions.clear()
    make_groups(apps, None)
    assert names("Operator") == set() and Group.objects.count() == 3
