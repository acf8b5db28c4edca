"""Administrators manage accounts, but give nobody more than they have themselves."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from axes.models import AccessAttempt
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

pytestmark = pytest.mark.django_db

make_groups = import_module("enrollment.migrations.0004_groups").make_groups
USERS = "/admin/auth/user/"
PASSWORD = "a horse and a staple"


@pytest.fixture
def chief() -> User:
    make_groups(apps, None)
    user = User.objects.create_user("chief", is_staff=True)
    user.groups.add(Group.objects.get(name="Administrator"))
    return user


@pytest.fixture
def browser(chief) -> Client:
    browser = Client(headers={"host": "localhost"})
    browser.force_login(chief)
    return browser


def form_of(user: User, **changes):
    fields = {"username": user.username, "is_active": "on", "is_staff": "on"}
    fields |= {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    return fields | {"groups": [group.pk for group in user.groups.all()]} | changes


def test_an_administrator_makes_themselves_no_superuser(browser, chief):
    flush = Permission.objects.get(codename="delete_session").pk
    path = f"{USERS}{chief.pk}/change/"
    assert 'name="is_superuser"' not in browser.get(path).content.decode()
    assert browser.post(path, form_of(chief, is_superuser="on")).status_code == 302
    refused = browser.post(path, form_of(chief, user_permissions=[flush]))
    assert refused.status_code == 200 and "errorlist" in refused.content.decode()
    chief.refresh_from_db()
    assert not chief.is_superuser and not chief.user_permissions.exists()


def test_an_administrator_gives_a_group_no_more_than_they_have(browser, chief):
    group = Group.objects.get(name="Administrator")
    flush = Permission.objects.get(codename="delete_session")
    path = f"/admin/auth/group/{group.pk}/change/"
    browser.post(path, {"name": group.name, "permissions": [flush.pk]})
    assert not group.permissions.filter(pk=flush.pk).exists()
    stronger = Group.objects.create(name="stronger")
    stronger.permissions.add(flush)
    refused = browser.post(f"{USERS}{chief.pk}/change/", form_of(chief, groups=[stronger.pk]))
    assert refused.status_code == 200 and not chief.groups.filter(name="stronger").exists()
    assert (
        browser.post(f"/admin/auth/group/{stronger.pk}/delete/", {"post": "yes"}).status_code == 403
    )


def test_permissions_are_ticked_under_what_the_admin_calls_each_thing(browser, chief):
    group = Group.objects.get(name="Operator")
    path = f"/admin/auth/group/{group.pk}/change/"
    page = browser.get(path, headers={"accept-language": "pt-br"}).text
    shown, folded = page.partition("Detalhes para o administrador")[::2]
    legends = re.findall("<legend>(.*?)</legend>", shown)
    assert legends[:2] == ["Pessoas", "Fotos"] and legends[-2:] == ["Grupos", "Usuários"]
    people = re.sub("<.*?>", " ", shown.partition("<legend>Pessoas")[2].partition("Fotos")[0])
    assert people.split()[:4] == ["Ver", "Adicionar", "Alterar", "Apagar"]
    assert "Embeddings" in folded
    before = set(group.permissions.all())
    ticked = re.findall('name="permissions" value="([0-9]+)"[^>]*checked', page)
    assert browser.post(path, {"name": "Operator", "permissions": ticked}).status_code == 302
    assert set(group.permissions.all()) == before


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("kind", ["superuser", "stronger"])
def test_stronger_accounts_are_left_alone(browser, active, kind):
    boss = User.objects.create_user("boss", is_superuser=kind == "superuser", is_active=active)
    boss.user_permissions.add(Permission.objects.get(codename="delete_session"))
    path = f"{USERS}{boss.pk}"
    assert browser.post(f"{path}/change/", form_of(boss, username="mine")).status_code == 403
    new = {"password1": PASSWORD, "password2": PASSWORD, "set-password": "1"}
    assert browser.post(f"{path}/password/", new | {"usable_password": "true"}).status_code == 403
    assert browser.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [boss.pk], "post": "yes"}
    browser.post(USERS, chosen)
    boss.refresh_from_db()
    assert boss.username == "boss" and not boss.has_usable_password()


def test_an_administrator_manages_the_others(browser):
    made = {"username": "ana", "password1": PASSWORD, "password2": PASSWORD}
    assert browser.post(f"{USERS}add/", made | {"usable_password": "true"}).status_code == 302
    ana = User.objects.get(username="ana")
    operators = [Group.objects.get(name="Operator").pk]
    assert (
        browser.post(f"{USERS}{ana.pk}/change/", form_of(ana, groups=operators)).status_code == 302
    )
    assert ana.groups.get().name == "Operator"


def test_an_administrator_unlocks_an_account(browser, chief):
    for number in range(3):
        AccessAttempt.objects.create(
            username="chief", ip_address=f"10.0.0.{number}", failures_since_start=9
        )
    browser.post(USERS, {"action": "unlock", "_selected_action": [chief.pk]})
    assert not AccessAttempt.objects.exists()


def test_a_superuser_makes_others(admin_client, chief):
    path = f"{USERS}{chief.pk}/change/"
    admin_client.post(path, form_of(chief, is_superuser="on"), headers={"host": "localhost"})
    chief.refresh_from_db()
    assert chief.is_superuser
