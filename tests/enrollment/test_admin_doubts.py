"""Doubts in the admin: reported after saving, shown, filtered, dismissed."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person
from tests.enrollment.gallery import add_vectors, enroll, set_thresholds
from tests.pictures import draw_picture, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

PERSONS = "admin:enrollment_person_changelist"
PICTURES = "admin:enrollment_faceimage_changelist"
REPORT = "admin:enrollment_audit"
CROP = {"use_face_detection": False}


@pytest.fixture
def doubtful(db) -> FaceImage:
    """Ana's picture under Bia, beside a good picture of each."""
    set_thresholds()
    enroll("ana", draw_picture(seed=1), name="Ana", **CROP)
    enroll("bia", draw_picture(seed=2), **CROP)
    return enroll("bia", draw_picture(seed=1, quality=60), **CROP).outcomes[0].face_image


def listed(client: Client, url: str, query: str) -> list[int]:
    page = client.get(f"{reverse(url)}?{query}")
    assert page.status_code == 200
    return [row.pk for row in page.context["cl"].result_list]


def test_saving_anas_picture_under_bia_warns(admin_client, django_capture_on_commit_callbacks):
    set_thresholds()
    enroll("ana", draw_picture(seed=1), name="Ana", **CROP)
    form = {
        "person_id": "bia",
        "name": "",
        "notes": "",
        "pictures": [upload(draw_picture(seed=1, quality=60), "holiday.jpg")],
    }
    with django_capture_on_commit_callbacks(execute=True):
        response = admin_client.post(reverse("admin:enrollment_person_add"), form, follow=True)
    texts = [str(message) for message in response.context["messages"]]
    (warning,) = [text for text in texts if text.startswith("“holiday.jpg”: ")]
    assert "looks like somebody else who is enrolled: Ana (ana)" in warning
    assert Person.objects.get(person_id="bia").face_images.count() == 1


def test_picture_page_shows_reasons_and_aligned_crop(admin_client, doubtful):
    url = reverse("admin:enrollment_faceimage_change", args=[doubtful.pk])
    page = admin_client.get(url).content.decode()
    assert "looks like somebody else who is enrolled: Ana (ana)" in page
    other = doubtful.doubts.get(code="looks_like_someone_else").other
    assert reverse("admin:enrollment_faceimage_change", args=[other.pk]) in page
    assert 'class="crop" src="data:image/jpeg;base64,' in page


def test_picture_page_tells_that_nobody_judged_it(admin_client, doubtful):
    FaceImage.objects.update(judged_at=None)
    url = reverse("admin:enrollment_faceimage_change", args=[doubtful.pk])
    assert "was not compared with the gallery yet" in admin_client.get(url).content.decode()


def test_picture_page_stands_without_the_file(admin_client, doubtful):
    doubtful.image.storage.delete(doubtful.image.name)
    url = reverse("admin:enrollment_faceimage_change", args=[doubtful.pk])
    page = admin_client.get(url)
    assert page.status_code == 200 and "cannot be read" in page.content.decode()


def test_lists_show_and_filter_doubtful_pictures(admin_client, doubtful):
    good = list(FaceImage.objects.exclude(pk=doubtful.pk).values_list("pk", flat=True))
    waiting = FaceImage.objects.filter(pk=good[0])
    waiting.update(judged_at=None)
    assert listed(admin_client, PICTURES, "doubt=any") == [doubtful.pk]
    assert listed(admin_client, PICTURES, "doubt=looks_like_someone_else") == [doubtful.pk]
    assert listed(admin_client, PICTURES, "doubt=blurred") == []
    assert listed(admin_client, PICTURES, "doubt=none") == good[1:]
    assert listed(admin_client, PICTURES, "doubt=unjudged") == good[:1]
    page = admin_client.get(reverse(PICTURES)).content.decode()
    assert page.count('class="sync-doubtful"') == 1 and ">not judged yet</span>" in page

    bia = doubtful.person_id
    assert listed(admin_client, PERSONS, "doubtful=yes") == [bia]
    assert bia not in listed(admin_client, PERSONS, "doubtful=no")
    assert "1 doubtful" in admin_client.get(reverse(PERSONS)).content.decode()


def test_doubts_are_dismissed_by_who_looked(admin_client, doubtful):
    chosen = {"action": "dismiss_doubts", "_selected_action": [doubtful.pk]}
    asked = admin_client.post(reverse(PICTURES), chosen).content.decode()
    assert "Did you look at this 1 picture?" in asked and 'value="Dismiss 2 doubts"' in asked
    assert Doubt.objects.count() == 2
    page = admin_client.post(reverse(PICTURES), chosen | {"confirmed": "1"}, follow=True)
    assert "2 doubts were dismissed." in page.content.decode()
    assert not Doubt.objects.exists()
    page = admin_client.post(reverse(PICTURES), chosen | {"confirmed": "1"}, follow=True)
    assert "a colleague had settled these doubts" in page.content.decode()
    page = admin_client.get(reverse("admin:enrollment_faceimage_change", args=[doubtful.pk]))
    assert page.content.decode().count("Dismissed by admin, ") == 2


def test_report_is_examined_and_shown_from_the_index(admin_client):
    set_thresholds(match=0.6, review=0.4)
    pictures = add_vectors(dict.fromkeys(("ana", "bia", "caio"), 3))
    FaceImage.objects.update(judged_at="2026-01-01T00:00Z")
    wrong = FaceImage.objects.filter(pk=pictures[0].pk)
    wrong.update(person=pictures[3].person_id)
    assert reverse(REPORT) in admin_client.get(reverse("admin:index")).content.decode()
    assert "not examined yet" in admin_client.get(reverse(REPORT)).content.decode()

    page = admin_client.post(reverse(REPORT), follow=True).content.decode()
    assert "Pictures nearer to another person than to their own: 1" in page
    assert reverse("admin:enrollment_faceimage_change", args=[pictures[0].pk]) in page
    assert "9 pictures compared." in page and "Compared by mobilenetv3_large in" in page

    wrong.delete()
    page = admin_client.get(reverse(REPORT))
    assert page.status_code == 200
    assert [section.cases for section in page.context["sections"]] == [[]]


def test_report_says_that_nothing_was_found(admin_client):
    add_vectors({"ana": 2})
    FaceImage.objects.update(judged_at="2026-01-01T00:00Z")
    assert "Nothing was found." in admin_client.post(reverse(REPORT), follow=True).content.decode()


def test_report_is_for_those_who_may_see_persons_and_pictures():
    user = User.objects.create_user("staff", is_staff=True)
    client = Client()
    assert client.get(reverse(REPORT)).status_code == 302
    client.force_login(user)
    assert client.get(reverse(REPORT)).status_code == 403
    assert reverse(REPORT) not in client.get(reverse("admin:index")).content.decode()
    allowed = Permission.objects.filter(codename__in=["view_person", "view_faceimage"])
    user.user_permissions.set(allowed)
    assert client.get(reverse(REPORT)).status_code == 200


def test_quality_of_a_photo_is_told_with_its_numbers(admin_client, faces):
    photo = next((faces / "Ann_Veneman").iterdir()).read_bytes()
    enroll("ann", photo, use_face_detection=True)
    picture = FaceImage.objects.get()
    assert FaceEmbedding.objects.get().face["quality"]["reasons"] == []
    Doubt.objects.create(face_image=picture, code="blurred", given=3.2, expected=10)
    page = admin_client.get(reverse("admin:enrollment_faceimage_change", args=[picture.pk]))
    assert "its sharpness is 3, and at least 10 is expected" in page.content.decode()
