"""The admin on a real gallery: people are enrolled, corrected and deleted there."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from enrollment.enrolling import services
from enrollment.gallery.selectors import search_gallery
from enrollment.models import FaceEmbedding, FaceImage, Person, Removal
from recognition.embedding import embed_uploads
from recognition.networks import find_weights
from recognition.vector_store import get_vector_store
from tests.pictures import upload

Status = FaceEmbedding.Status
ADD = "admin:enrollment_person_add"
PERSONS = "admin:enrollment_person_changelist"
PICTURES = "admin:enrollment_faceimage_changelist"


def person_form(person: Person | None = None, **values: object) -> dict[str, object]:
    """Return the form data of the person's page; pictures count as crops of faces."""
    form = {"person_id": "ana", "name": "", "notes": ""} | values
    if person:
        pictures = list(person.face_images.order_by("-pk"))
        form |= {
            "face_images-TOTAL_FORMS": len(pictures),
            "face_images-INITIAL_FORMS": len(pictures),
        }
        for index, picture in enumerate(pictures):
            form[f"face_images-{index}-id"] = picture.pk
            form[f"face_images-{index}-person"] = person.pk
    return form


def texts(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def hits(content: bytes) -> list[str]:
    """Return the persons that a search finds, best first."""
    _crops, probe = embed_uploads([content], "mobilenetv3_large")
    return [hit.person.person_id for hit in search_gallery(probe, 10)[0]]


@pytest.fixture
def enroll(weights, db) -> Callable[..., Person]:
    """Enrol pictures as the API does."""

    def enroll(person_id: str, *contents: bytes) -> Person:
        uploads = [
            services.Upload(person_id, f"{index}.jpg", content)
            for index, content in enumerate(contents)
        ]
        first, *_others = services.enroll_pictures(
            uploads, source=FaceImage.Source.API, use_face_detection=False
        )
        return first.face_image.person

    return enroll


@pytest.fixture
def broken_milvus(settings, tmp_path):
    """Make Milvus unavailable by a file in place of its folder."""
    (tmp_path / "taken").write_text("no database")
    working = settings.RECOGNITION

    def repair() -> None:
        settings.RECOGNITION = working

    settings.RECOGNITION = working | {"MILVUS_URI": str(tmp_path / "taken")}
    return repair


@pytest.fixture
def staff(db) -> Callable[..., Client]:
    """A client logged in with only these permissions."""

    def staff(*codenames: str) -> Client:
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return staff


# Enrolling


def test_add_page_enrols_person_and_pictures_in_one_step(
    admin_client, commits, weights, draw_picture
):
    one, two = draw_picture(seed=1), draw_picture(seed=2)
    with commits():
        response = admin_client.post(
            reverse(ADD), person_form(name="Ana", pictures=[upload(one), upload(two, "b.jpg")])
        )
    assert response.status_code == 302
    person = Person.objects.get(person_id="ana")
    assert person.name == "Ana"
    assert [p.original_path for p in person.face_images.all()] == ["face.jpg", "b.jpg"]
    assert {p.source for p in person.face_images.all()} == {FaceImage.Source.ADMIN}
    assert hits(one)[0] == "ana"


def test_change_page_adds_pictures_to_those_there(admin_client, commits, enroll, draw_picture):
    person = enroll("ana", draw_picture(seed=1))
    url = reverse("admin:enrollment_person_change", args=[person.pk])
    with commits():
        response = admin_client.post(
            url, person_form(person, pictures=[upload(draw_picture(seed=2), "new.jpg")])
        )
    assert response.status_code == 302
    assert person.face_images.count() == 2
    assert "1 picture was added." in texts(admin_client.get(url))


def test_refused_files_say_why_and_lose_nothing_else(admin_client, commits, weights, draw_picture):
    files = [
        upload(b"", "empty.jpg"),
        upload(draw_picture(seed=1), "good.jpg"),
        upload(b"<html>", "page.jpg"),
        upload(b"no picture", "note.txt"),
    ]
    with commits():
        admin_client.post(reverse(ADD), person_form(name="Ana", notes="tall", pictures=files))
    person = Person.objects.get()
    assert (person.name, person.notes, person.face_images.count()) == ("Ana", "tall", 1)
    said = texts(admin_client.get(reverse(PERSONS)))
    for name in ("empty.jpg", "page.jpg", "note.txt"):
        assert any(text.startswith(f"“{name}” was refused. ") for text in said), said
    assert any("HTML" in text for text in said)


def test_person_stays_when_every_picture_is_refused(admin_client, commits, weights):
    with commits():
        admin_client.post(reverse(ADD), person_form(pictures=[upload(b"no picture")]))
    assert Person.objects.get().face_images.count() == 0


def test_picture_without_a_face_is_refused(admin_client, commits, weights, picture):
    form = person_form(pictures=[upload(picture, "wall.jpg")], use_face_detection="on")
    with commits():
        admin_client.post(reverse(ADD), form)
    (said,) = [t for t in texts(admin_client.get(reverse(PERSONS))) if "No face" in t]
    assert said.startswith("“wall.jpg” was refused. No face was found in the picture.")
    assert not FaceImage.objects.exists()


def test_crops_are_for_those_who_want_no_detection(admin_client, commits, weights, picture):
    with commits():
        admin_client.post(reverse(ADD), person_form(pictures=[upload(picture)]))
    assert not FaceImage.objects.get().use_face_detection
    assert texts(admin_client.get(reverse(PERSONS)))[-1] == "1 picture was added."


def test_pictures_are_kept_and_mended_when_milvus_was_away(
    admin_client, commits, weights, picture, broken_milvus
):
    with commits():
        admin_client.post(reverse(ADD), person_form(pictures=[upload(picture)]))
    row = FaceEmbedding.objects.get()
    assert (row.status, row.face_image.image.storage.exists(row.face_image.image.name)) == (
        Status.FAILED,
        True,
    )
    page = admin_client.get(reverse(PERSONS))
    assert any(
        "Make searchable again" in text and row.error_message in text for text in texts(page)
    )
    assert "1 failed" in page.content.decode()

    broken_milvus()
    selected = {"action": "sync_selected", "_selected_action": [row.face_image.person_id]}
    page = admin_client.post(reverse(PERSONS), selected, follow=True)
    assert texts(page) == ["Searches find the chosen pictures."]
    assert "searchable</span>" in page.content.decode()
    assert hits(picture) == ["ana"]


def test_sync_again_on_pictures_reports_failures(admin_client, enroll, picture, broken_milvus):
    person = enroll("ana", picture)
    picture_row = person.face_images.get()
    selected = {"action": "sync_selected", "_selected_action": [picture_row.pk]}
    page = admin_client.post(reverse(PICTURES), selected, follow=True)
    assert texts(page) == ["Not all chosen pictures are searchable; the page of each says why."]
    page = admin_client.get(reverse("admin:enrollment_faceimage_change", args=[picture_row.pk]))
    assert "The vector database did not take the picture." in page.content.decode()


def test_full_storage_is_a_message_and_no_crash(admin_client, commits, weights, picture, settings):
    settings.MEDIA_ROOT.parent.joinpath("media").write_text("a file where the folder should be")
    with commits():
        response = admin_client.post(reverse(ADD), person_form(pictures=[upload(picture)]))
    assert response.status_code == 302
    (said,) = [t for t in texts(admin_client.get(reverse(PERSONS))) if "storage" in t]
    assert str(settings.MEDIA_ROOT) not in said
    assert FaceImage.objects.count() == 0


# Correcting


def test_renaming_is_told_to_milvus(admin_client, commits, enroll, picture):
    person = enroll("ana", picture)
    with commits():
        admin_client.post(
            reverse("admin:enrollment_person_change", args=[person.pk]),
            person_form(person, person_id="o'hara 100%"),
        )
    (stored,) = get_vector_store().iterate(get_vector_store().partitions()[0])
    assert stored.person_id == "o'hara 100%"


def test_moving_a_picture_is_told_to_milvus(admin_client, commits, enroll, draw_picture):
    ana, bia = enroll("ana", draw_picture(seed=1)), enroll("bia", draw_picture(seed=2))
    moved = ana.face_images.get()
    with commits():
        response = admin_client.post(
            reverse("admin:enrollment_faceimage_change", args=[moved.pk]),
            {"person": bia.pk, "embeddings-TOTAL_FORMS": 0, "embeddings-INITIAL_FORMS": 0},
        )
    assert response.status_code == 302
    stored = get_vector_store().iterate(get_vector_store().partitions()[0])
    assert {row.person_id for row in stored} == {"bia"}
    assert set(hits(draw_picture(seed=1))) == {"bia"}


def test_duplicate_person_id_is_refused_by_the_form(admin_client, enroll, picture):
    enroll("ana", picture)
    response = admin_client.post(reverse(ADD), person_form(pictures=[upload(picture)]))
    assert "There is already a person with this id" in response.content.decode()
    assert FaceImage.objects.count() == 1


# Deleting


def assert_nothing_is_left(settings) -> None:
    assert not FaceImage.objects.exists() and not FaceEmbedding.objects.exists()
    assert not Removal.objects.exists()
    assert get_vector_store().row_count() == 0
    assert not [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]


@pytest.mark.parametrize("url", [PERSONS, PICTURES])
def test_bulk_delete_takes_rows_files_and_vectors(
    url, admin_client, commits, enroll, draw_picture, settings
):
    settings.TRASH_DAYS = 0
    people = [enroll(f"p{n}", draw_picture(seed=n), draw_picture(seed=n + 10)) for n in range(3)]
    rows = people if url == PERSONS else FaceImage.objects.all()
    selected = {"action": "delete_selected", "_selected_action": [row.pk for row in rows]}
    page = admin_client.post(reverse(url), selected).content.decode()
    assert page.count("what was computed from") == len(rows)
    assert "Pictures: 6" in page and "Embeddings" not in page
    assert "mobilenetv3_large" not in page
    with commits():
        response = admin_client.post(reverse(url), selected | {"post": "yes"})
    assert response.status_code == 302
    assert_nothing_is_left(settings)
    assert Person.objects.count() == (0 if url == PERSONS else 3)


def test_deleting_one_person_takes_everything(admin_client, commits, enroll, picture, settings):
    settings.TRASH_DAYS = 0
    person = enroll("ana", picture)
    url = reverse("admin:enrollment_person_delete", args=[person.pk])
    assert (
        "ana with 1 picture, its file and what was computed from it"
        in admin_client.get(url).content.decode()
    )
    with commits():
        admin_client.post(url, {"post": "yes"})
    assert_nothing_is_left(settings)


def test_inline_delete_box_takes_one_picture(admin_client, commits, enroll, draw_picture, settings):
    settings.TRASH_DAYS = 0
    person = enroll("ana", draw_picture(seed=1), draw_picture(seed=2))
    form = person_form(person) | {"face_images-0-DELETE": "on"}
    with commits():
        admin_client.post(reverse("admin:enrollment_person_change", args=[person.pk]), form)
    assert person.face_images.get().original_path == "0.jpg"
    assert get_vector_store().row_count() == 1
    assert len([path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]) == 1


def test_deletion_without_milvus_is_noted_until_it_is_back(
    admin_client, commits, enroll, picture, settings, broken_milvus
):
    broken = settings.RECOGNITION
    broken_milvus()
    person = enroll("ana", picture)
    other = enroll("bia", picture)
    working, settings.RECOGNITION = settings.RECOGNITION, broken
    with commits():
        admin_client.post(
            reverse("admin:enrollment_person_delete", args=[person.pk]), {"post": "yes"}
        )
    page = admin_client.get(reverse(PERSONS))
    assert "1 trace of deleted pictures is still to be removed" in page.content.decode()

    settings.RECOGNITION = working
    assert get_vector_store().row_count() == 2
    selected = {"action": "sync_selected", "_selected_action": [other.pk]}
    page = admin_client.post(reverse(PERSONS), selected, follow=True)
    assert "is still to be removed" not in page.content.decode()
    assert get_vector_store().row_count() == 1


# Lists


@pytest.mark.parametrize("url", [PERSONS, PICTURES])
def test_lists_cost_the_same_queries_for_any_number_of_rows(
    url, admin_client, django_assert_num_queries
):
    add_rows("p0", ("0" * 16, Status.INDEXED))
    admin_client.get(reverse(url))
    with CaptureQueriesContext(connection) as one:
        admin_client.get(reverse(url))
    for n in range(1, 30):
        add_rows(f"p{n}", ("0" * 16, Status.INDEXED))
    with django_assert_num_queries(len(one)):
        page = admin_client.get(reverse(url))
    assert len(page.context["cl"].result_list) == 30


@pytest.fixture
def mixed(db) -> None:
    """One person in each state, as rows only: the lists need neither files nor vectors."""
    current = find_weights("mobilenetv3_large").fingerprint
    add_rows("good", (current, Status.INDEXED))
    add_rows("waits", (current, Status.PENDING), (current, Status.INDEXED))
    add_rows("broken", (current, Status.FAILED))
    add_rows("stale", ("0" * 16, Status.INDEXED))
    Person.objects.create(person_id="empty", name="Nobody")


def add_rows(person_id: str, *embeddings: tuple[str, str]) -> None:
    person = Person.objects.create(person_id=person_id)
    for number, (fingerprint, status) in enumerate(embeddings):
        picture = FaceImage(person=person, image="pictures/x.png", source=FaceImage.Source.API)
        picture.original_path = f"{number}.jpg"
        FaceImage.objects.bulk_create([picture])
        FaceEmbedding.objects.create(
            face_image=picture,
            model="mobilenetv3_large",
            fingerprint=fingerprint,
            status=status,
            face_detected=False,
            error="<b>disk</b>" if status == Status.FAILED else "",
        )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=indexed", {"good"}),
        ("state=pending", {"waits", "stale"}),
        ("state=failed", {"broken"}),
        ("pictures=no", {"empty"}),
        ("pictures=yes", {"good", "waits", "broken", "stale"}),
        ("q=nobod", {"empty"}),
        ("q=roke", {"broken"}),
        ("q=%27%25", set()),
    ],
)
def test_persons_are_filtered_and_searched(admin_client, mixed, query, expected):
    page = admin_client.get(f"{reverse(PERSONS)}?{query}")
    assert {person.person_id for person in page.context["cl"].result_list} == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=indexed", ["good", "waits"]),
        ("state=pending", ["waits", "stale"]),
        ("state=failed", ["broken"]),
        ("face=yes", []),
        ("face=no", ["good", "waits", "waits", "broken", "stale"]),
        ("model=cosface_resnet50", []),
        ("model=mobilenetv3_large", ["good", "waits", "stale"]),
        ("source__exact=admin", []),
        ("q=1.jpg", ["waits"]),
        ("q=broken", ["broken"]),
    ],
)
def test_pictures_are_filtered_and_searched(admin_client, mixed, query, expected):
    page = admin_client.get(f"{reverse(PICTURES)}?{query}")
    found = sorted(picture.person.person_id for picture in page.context["cl"].result_list)
    assert found == sorted(expected)


def test_person_list_shows_counts_states_and_thumbnails(admin_client, mixed):
    page = admin_client.get(reverse(PERSONS)).content.decode()
    for text in ("searchable", "1 not searchable yet", "1 failed", "no pictures"):
        assert f">{text}</span>" in page
    assert page.count("?size=face") == 4


@pytest.mark.parametrize(
    ("name", "count"), [("trashitem", "0 items of the trash"), ("journalentry", "journal entries")]
)
def test_lists_count_in_words_that_have_a_plural(admin_client, name, count):
    assert count in admin_client.get(f"/admin/enrollment/{name}/").text


def test_picture_page_shows_face_and_state_of_each_model(admin_client, mixed):
    row = FaceEmbedding.objects.get(status=Status.FAILED)
    face = {"box": [10.5, 20.0, 30.0, 40.0], "score": 0.9876, "landmarks": [[1.5, 2.0]] * 5}
    FaceEmbedding.objects.filter(pk=row.pk).update(face=face, face_detected=True)
    url = reverse("admin:enrollment_faceimage_change", args=[row.face_image_id])
    page = admin_client.get(url).content.decode()
    assert '<rect x="10.5" y="20.0" width="30.0" height="40.0"' in page
    assert "0.9876" in page
    assert "&lt;b&gt;disk&lt;/b&gt;" in page and "<b>disk" not in page
    assert f'src="{row.face_image.get_absolute_url()}"' in page


def test_person_page_shows_the_newest_of_many_pictures(admin_client, enroll, picture):
    person = enroll("ana", picture)
    FaceImage.objects.bulk_create(
        FaceImage(person=person, image="pictures/x.png") for _ in range(120)
    )
    page = admin_client.get(reverse("admin:enrollment_person_change", args=[person.pk]))
    assert page.content.decode().count("?size=face") == 100
    assert "121 pictures" in page.content.decode()
    newest = page.context["inline_admin_formsets"][0].formset.forms[0].instance
    assert newest == person.face_images.last()


def test_what_people_typed_is_escaped(admin_client, enroll, picture):
    evil = "<script>alert(1)</script>"
    person = enroll(evil, picture)
    FaceImage.objects.update(original_path=evil)
    FaceEmbedding.objects.update(status=Status.FAILED, error=evil)
    picture_pk = person.face_images.get().pk
    for url in (
        reverse(PERSONS),
        reverse(PICTURES),
        reverse("admin:enrollment_person_change", args=[person.pk]),
        reverse("admin:enrollment_faceimage_change", args=[picture_pk]),
        reverse("admin:enrollment_person_delete", args=[person.pk]),
        reverse("admin:enrollment_faceimage_delete", args=[picture_pk]),
    ):
        page = admin_client.get(url).content.decode()
        assert "alert(1)" in page and evil not in page, url


# Who may do what


def test_upload_needs_the_right_to_add_pictures(staff, commits, picture, weights):
    client = staff("add_person", "view_person")
    assert 'name="pictures"' not in client.get(reverse(ADD)).content.decode()
    with commits():
        client.post(reverse(ADD), person_form(pictures=[upload(picture)]))
    assert Person.objects.get().face_images.count() == 0


def test_viewers_see_everything_and_change_nothing(staff, enroll, picture):
    person = enroll("ana", picture)
    client = staff("view_person", "view_faceimage")
    url = reverse("admin:enrollment_person_change", args=[person.pk])
    page = client.get(url).content.decode()
    assert "?size=face" in page and 'name="pictures"' not in page
    assert client.post(url, person_form(person, person_id="x")).status_code == 403
    assert "sync_selected" not in client.get(reverse(PERSONS)).content.decode()
    picture_url = reverse("admin:enrollment_faceimage_change", args=[person.face_images.get().pk])
    assert "mobilenetv3_large" in client.get(picture_url).content.decode()


def test_pictures_cannot_be_added_outside_a_person(admin_client):
    assert admin_client.get(reverse("admin:enrollment_faceimage_add")).status_code == 403


def test_every_page_leads_to_the_search_and_the_api(admin_client):
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "Face recognition" in page
    for name in ("search", "api-docs"):
        assert re.search(rf'href="{reverse(name)}"', page)
