"""Enrolling somebody new on the page: an id that is taken, pictures that stay chosen, one after another."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from enrollment import corrections, enrolling
from enrollment.models import FaceImage, Person
from tests.enrollment.test_views import Markup
from tests.pictures import draw_picture, upload

pytestmark = pytest.mark.django_db
NEW = "/people/new"


def kept_in(response) -> str:
    (field,) = Markup(response).find("input", name="kept")
    return field["value"]


def files(seeds=(1, 2)):
    return [upload(draw_picture(seed=seed)) for seed in seeds]


def folders() -> list:
    return list((settings.DATA_DIR / "imports").glob("chosen-*"))


def test_a_taken_id_offers_its_page_and_keeps_the_pictures(local, weights):
    ana = Person.objects.create(person_id="ana", name="Ana")
    refused = local.post(NEW, {"person_id": "ana", "pictures": files()})
    assert refused.status_code == 400 and Person.objects.count() == 1
    assert "The id belongs to Ana (ana)." in refused.text
    links = {link["href"] for link in Markup(refused).find("a")}
    assert f"/people/{ana.pk}/" in links
    (button,) = Markup(refused).find("button", formaction=f"/people/{ana.pk}/add")
    assert not FaceImage.objects.exists() and len(folders()) == 1
    token = kept_in(refused)
    again = local.post(NEW, {"person_id": "", "kept": token, "pictures": files([3])})
    assert again.context["kept_names"] == ["face.jpg"] * 3 and kept_in(again) == token
    local.post(button["formaction"], {"person_id": "ana", "kept": token})
    assert ana.face_images.count() == 3 and folders() == []
    local.post(button["formaction"], {"kept": token})
    assert ana.face_images.count() == 3


def test_kept_pictures_go_to_whoever_is_saved_at_last(local, weights):
    corrections.merge_persons(*(Person.objects.create(person_id=each) for each in ("bia", "b")))
    refused = local.post(NEW, {"person_id": "b", "pictures": files([1])})
    assert "The id belongs to bia." in refused.text
    made = local.post(NEW, {"person_id": "caio", "kept": kept_in(refused)})
    assert made.url == f"/people/{Person.objects.get(person_id='caio').pk}/"
    assert Person.objects.get(person_id="caio").face_images.count() == 1


def test_pictures_are_kept_for_who_chose_them_a_day_and_not_without_end(
    local, django_user_model, settings
):
    refused = local.post(NEW, {"person_id": "", "pictures": files([1])})
    token = kept_in(refused)
    assert enrolling.chosen_names(0, token) == ["face.jpg"]
    assert enrolling.chosen_names(7, token) == [] == enrolling.chosen_names(0, "../0")
    settings.MAX_REQUEST_BYTES = 10
    assert enrolling.keep_files(0, files([2])) == ""
    settings.MAX_REQUEST_BYTES = 10**6
    day_ago = time.time() - 25 * 3600
    for folder in folders():
        os.utime(folder, (day_ago, day_ago))
    enrolling.keep_files(0, files([2]))
    assert enrolling.chosen_names(0, token) == [] and len(folders()) == 1


def test_whoever_adds_pictures_to_somebody_merged_meanwhile_is_told(local):
    bia, ana = (Person.objects.create(person_id=each) for each in ("bia", "ana"))
    address = f"/people/{ana.pk}/add"
    corrections.merge_persons(bia, ana)
    told = local.post(address, {"pictures": files([1])}, headers={"x-fragment": "1"})
    assert told.status_code == 400 and told["X-Fragment"] == "1"
    assert told.text.startswith("Nothing was changed: meanwhile ana was merged into bia.")
    page = local.post(address, {"pictures": files([1])}, follow=True)
    assert page.redirect_chain[0][0] == f"/people/{bia.pk}/" and told.text in page.text


def test_one_after_another_with_the_same_basis(local):
    day = (timezone.localdate() + timedelta(days=90)).isoformat()
    form = {"person_id": "ana", "legal_basis": "contract", "keep_until": day, "another": "1"}
    shown = local.post(NEW, form, follow=True)
    assert shown.redirect_chain[-1][0] == NEW
    page = f"/people/{Person.objects.get().pk}/"
    assert f'Enrolled: <a href="{page}">ana</a>' in shown.text
    initial = {name: shown.context["form"][name].value() for name in ("person_id", *form)[1:4]}
    assert initial == {"person_id": None, "legal_basis": "contract", "keep_until": day}
    assert local.get(NEW).context["form"]["legal_basis"].value() in (None, "")


def test_required_fields_are_marked(local):
    text = local.get(NEW).text
    assert text.count('<span class="required">') == 1


def test_a_picture_says_quietly_whether_searches_find_it(local):
    ana = Person.objects.create(person_id="ana")
    picture = FaceImage.objects.create(person=ana, image="none.jpg")
    text = local.get(f"/people/{ana.pk}/").text
    assert "not searchable yet" in text
    for status, told in (("indexed", "searchable"), ("failed", "not searchable: see the details")):
        picture.embeddings.all().delete()
        picture.embeddings.create(model="mobilenetv3_large", fingerprint="x", status=status)
        assert f'<p class="state {status}">{told}</p>' in local.get(f"/people/{ana.pk}/").text


def test_every_page_sends_a_form_once(boss):
    """A double click on “Erase for good” used to lose the receipt, which is shown once."""
    for address in ("/", NEW, "/admin/"):
        assert Markup(boss.get(address)).find("script", src="/static/faceproject/forms.js")
