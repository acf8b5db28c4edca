"""Every URL requires the permission of its action from each group, in the API and on the pages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern
from rest_framework.test import APIClient

import enrollment.api.urls
import enrollment.pages.urls
import recognition.api.urls
from enrollment.models import AccessToken, Doubt, FaceImage
from enrollment.web import Act
from tests.enrollment.gallery import add_vectors
from tests.pictures import draw_picture, packed, upload

pytestmark = pytest.mark.django_db

make_groups = import_module("enrollment.migrations.0004_groups").make_groups
ANY = None  # whoever was let in

# Method and name of the address: the permissions that the act needs.
API = {
    ("get", "api-health"): ANY,
    ("get", "api-models"): ANY,
    ("get", "api-schema"): ANY,
    ("get", "api-docs"): ANY,
    ("get", "api-milvus-stats"): ANY,
    ("post", "api-detect"): ANY,
    ("post", "api-embedding"): ANY,
    ("post", "api-embeddings-batch"): ANY,
    ("post", "api-milvus-search"): ANY,
    ("post", "api-verify"): ANY,
    ("post", "api-milvus-insert"): Act.ADD_PICTURES,
    ("get", "api-inbox"): Act.BROWSE,
    ("get", "api-inbox-card"): Act.BROWSE,
    ("post", "api-inbox-card"): Act.BROWSE,  # and what the act needs
    ("get", "api-inbox-face"): Act.BROWSE,
    ("post", "api-feedback"): Act.CHANGE_PICTURES,
    ("get", "api-journal"): Act.READ_JOURNAL,
    ("get", "api-jobs"): Act.ADD_PICTURES,
    ("post", "api-jobs"): Act.ADD_PICTURES,
    ("get", "api-job"): Act.ADD_PICTURES,
    ("get", "api-job-files"): Act.ADD_PICTURES,
    ("post", "api-job-act"): Act.ADD_PICTURES,
    ("get", "api-persons"): Act.BROWSE,
    ("post", "api-persons"): Act.ADD_PERSON,
    ("get", "api-person"): Act.BROWSE,
    ("patch", "api-person"): Act.CHANGE_PERSON,
    ("delete", "api-person"): Act.DELETE_PERSON,
    ("post", "api-person-merge"): Act.DELETE_PERSON,
    ("get", "api-person-export"): Act.EXPORT_PERSON,
    ("get", "api-person-consents"): Act.BROWSE,
    ("post", "api-person-consents"): Act.CHANGE_PERSON,
    ("get", "api-person-consent"): Act.CHANGE_PERSON,
    ("delete", "api-person-consent"): Act.CHANGE_PERSON,
    ("post", "api-person-restore"): Act.DELETE_PERSON,
    ("get", "api-trash"): Act.BROWSE,
    ("delete", "api-trash-item"): Act.BROWSE,  # and what the act needed
    ("post", "api-trash-undo"): Act.BROWSE,
    ("get", "api-person-images"): Act.BROWSE,
    ("post", "api-person-images"): Act.ADD_PICTURES,
    ("get", "api-person-image"): Act.BROWSE,
    ("patch", "api-person-image"): Act.CHANGE_PICTURES,
    ("delete", "api-person-image"): Act.DELETE_PICTURES,
}
PAGES = {
    ("get", "search"): ANY,
    ("post", "search"): ANY,
    ("get", "answers"): ANY,
    ("post", "answer-face"): ANY,  # says itself what each act lacks: test_answers.py
    ("get", "compare"): ANY,
    ("post", "compare"): ANY,
    ("get", "password"): ANY,
    ("get", "picture"): Act.BROWSE,
    ("get", "inbox"): Act.BROWSE,
    ("post", "inbox-undo"): Act.BROWSE,
    ("get", "people"): Act.BROWSE,
    ("get", "people-suggest"): Act.BROWSE,
    ("get", "people-many"): Act.BROWSE,  # and what the act needs
    ("get", "help"): ANY,
    ("get", "person"): Act.BROWSE,
    ("get", "doubts"): Act.BROWSE,
    ("post", "doubts"): Act.CHANGE_PICTURES,
    ("get", "audit"): Act.BROWSE,
    ("get", "import-upload"): Act.ADD_PICTURES,
    ("get", "import-run"): Act.ADD_PICTURES,
    ("get", "import-run-before"): Act.ADD_PICTURES,
    ("get", "imports"): Act.ADD_PICTURES,
    ("get", "import-file"): Act.ADD_PICTURES,
    ("get", "person-new"): Act.ADD_PERSON,
    ("get", "person-details"): Act.CHANGE_PERSON,
    ("post", "person-add-pictures"): Act.ADD_PICTURES,
    ("get", "person-face"): Act.CHANGE_PICTURES,
    ("get", "person-faces"): Act.ADD_PICTURES,
    ("post", "person-cover"): Act.CHANGE_PERSON,
    ("get", "person-move-pictures"): Act.CHANGE_PICTURES,
    ("get", "person-delete-pictures"): Act.DELETE_PICTURES,
    ("get", "person-merge"): Act.DELETE_PERSON,
    ("get", "person-delete"): Act.DELETE_PERSON,
    ("get", "trash"): Act.BROWSE,
    ("post", "trash-undo"): Act.BROWSE,
    ("get", "trash-erase"): Act.BROWSE,
    ("get", "person-access"): Act.EXPORT_PERSON,
    ("get", "person-export"): Act.EXPORT_PERSON,
    ("get", "person-correction"): Act.BROWSE,
    ("get", "person-erasure"): Act.DELETE_PERSON,
    ("get", "person-consents"): Act.CHANGE_PERSON,
    ("get", "person-document"): Act.CHANGE_PERSON,
}
WITHOUT_ACT = {"login", "logout"}


@pytest.fixture(autouse=True)
def _groups(db) -> None:
    make_groups(apps, None)


@pytest.fixture
def picture(weights) -> FaceImage:
    return add_vectors({"ana": 1})[0]


def member(group: str) -> User:
    user = User.objects.create_user(f"a {group}")
    user.groups.add(Group.objects.get(name=group))
    return user


def patterns(*modules) -> Iterator[URLPattern]:
    for module in modules:
        yield from (each for each in module.urlpatterns if each.name)


def path_of(pattern: URLPattern, picture: FaceImage) -> str:
    route = str(pattern.pattern)
    is_person = route.startswith("people/")
    values = {
        "<int:pk>": str(picture.person_id if is_person else picture.pk),
        "<int:number>": "1",
        "<int:item_id>": "1",
        "<int:image_id>": str(picture.pk),
        "<person_id:person_id>": "ana",
        "<slug:key>": "gone",
        "<slug:token>": "gone",
        "<str:numbers>": "gone",
        "<slug:number>": "gone",
        "<int:place>": "1",
        "<int:token>": "1",
        "<slug:act>": "pause",
        "<slug:name>": "gallery",
    }
    for placeholder, value in values.items():
        route = route.replace(placeholder, value)
    return f"/{route}"


def test_no_address_is_without_its_act():
    pages = {each.name for each in patterns(enrollment.pages.urls)}
    assert pages - WITHOUT_ACT == {name for _method, name in PAGES}
    calls = list(patterns(recognition.api.urls, enrollment.api.urls))
    assert {each.name for each in calls} == {name for _method, name in API}
    for each in calls:
        served = {
            name
            for name in ("get", "post", "put", "patch", "delete")
            if hasattr(each.callback.view_class, name)
        }
        assert served == {method for method, name in API if name == each.name}, each.name


@pytest.mark.parametrize("group", ["Viewer", "Operator", "Administrator"])
def test_the_api_asks_for_the_permission_of_the_act(group, picture):
    user = member(group)
    _token, secret = AccessToken.issue(user=user, name="x", scope="administer", expires_at=None)
    api = APIClient(
        headers={"host": "localhost", "authorization": f"Token {secret}"}, REMOTE_ADDR="10.0.0.7"
    )
    at = {
        each.name: f"/api{path_of(each, picture)}"
        for each in patterns(recognition.api.urls, enrollment.api.urls)
    }
    for (method, name), permission in API.items():
        if method == "delete" and group != "Viewer":
            continue  # they would; tests/enrollment/test_groups.py has them do it
        status = getattr(api, method)(at[name]).status_code
        assert (status == 403) is not _may(user, permission), (method, name, status)
        assert status != 401


@pytest.mark.parametrize("group", ["Viewer", "Operator", "Administrator"])
def test_the_pages_ask_for_the_permission_of_the_act(group, picture):
    user = member(group)
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    browser.force_login(user)
    at = {each.name: path_of(each, picture) for each in patterns(enrollment.pages.urls)}
    for (method, name), permission in PAGES.items():
        response = getattr(browser, method)(at[name])
        assert (response.status_code == 403) is not _may(user, permission), (method, name)
        assert not response.get("Location", "").startswith("/login"), name


def _may(user: User, permission: str | None) -> bool:
    return permission is None or user.has_perm(permission)


def test_an_operator_dismisses_doubts_and_has_the_gallery_examined_without_staff_status(picture):
    user = member("Operator")
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    browser.force_login(user)
    Doubt.objects.create(face_image=picture, code="blurred", given=3, expected=10)
    page = browser.get("/people/doubts").content.decode()
    assert "ana" in page and f'value="{picture.pk}"' in page
    nothing = browser.post("/people/doubts", follow=True).content.decode()
    assert "No picture was chosen" in nothing and Doubt.objects.exists()
    done = browser.post("/people/doubts", {"picture": [picture.pk]}, follow=True)
    assert "1 doubt was dismissed" in done.content.decode() and not Doubt.objects.exists()
    assert not user.is_staff
    report = browser.post("/people/audit", follow=True).content.decode()
    assert "The gallery was examined." in report and "/people/" in report
    assert "/admin/" not in report


def test_an_operator_imports_a_zip_on_the_pages(
    picture, tmp_path, django_capture_on_commit_callbacks, settings
):
    settings.DATA_DIR = tmp_path
    browser = Client(headers={"host": "localhost"}, REMOTE_ADDR="10.0.0.7")
    browser.force_login(member("Operator"))
    sent = {"archive": upload(packed({"bia/1.jpg": draw_picture(seed=4)}), "faces.zip")}
    preview = browser.post("/people/import", sent, follow=True)
    assert "1 picture will be added" in preview.content.decode()
    path = preview.redirect_chain[-1][0]
    stranger = Client(headers={"host": "localhost"})  # the server's own user, without an account
    assert "This import is gone" in stranger.get(path, follow=True).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        report = browser.post(path, follow=True).content.decode()
    assert "1 picture was added" in report and "/admin/" not in report
    assert "1 picture was added" in stranger.get(path).content.decode()  # no preview any more
    other = upload(packed({"caio/1.jpg": draw_picture(seed=5)}), "faces.zip")
    own = stranger.post("/people/import", {"archive": other})
    assert own.status_code == 302
