"""A picture without a face is enrolled by no entry point and gets no decision."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from PIL import Image

from enrollment.models import FaceImage, Person
from faceproject.management.commands.serve import Command as Serve
from recognition.alignment import whole_picture
from recognition.embedding import embed_uploads
from recognition.exceptions import NoFaceDetected
from recognition.imaging import read_image
from recognition.quality import has_structure
from tests.conftest import FACES_DIR
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import enroll, set_thresholds
from tests.pictures import draw_picture, packed, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

INSERT = "/api/milvus/insert"
SEARCH = "/api/milvus/search"
VERIFY = "/api/verify"
CROP = {"use_face_detection": "false"}


def png(pixels: np.ndarray) -> bytes:
    """Return H×W grey levels of any dtype as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def noise(deviation: float) -> np.ndarray:
    return 128 + np.random.default_rng(1).normal(0, deviation, (160, 160))


ACROSS = np.tile(np.linspace(0, 255, 160), (160, 1))
SHAPELESS = {
    "black": png(np.zeros((160, 160))),
    "grey": png(np.full((112, 112), 128)),
    "white": png(np.full((300, 200), 255)),
    "gradient": png(ACROSS),
    "slanting gradient": png((ACROSS + ACROSS.T) / 2),
    "round gradient": png(np.asarray(Image.radial_gradient("L"))),
    "faint noise": png(noise(4)),
    "noise": png(noise(12)),
}
shapeless = pytest.mark.parametrize("content", SHAPELESS.values(), ids=SHAPELESS)


def face(place: int = 0, shot: int = 0) -> bytes:
    return as_jpeg(draw_face(PEOPLE[place], shot))


def nothing_is_stored(settings) -> bool:
    files = [path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()]
    return not (Person.objects.exists() or FaceImage.objects.exists() or files)


# Enrolment


@pytest.mark.parametrize("path", [INSERT, "/api/persons/ana/images"])
def test_the_api_enrols_no_picture_without_a_face(api, settings, path):
    if path != INSERT:
        Person.objects.create(person_id="ana")
    response = api.post(path, {"images": [upload(), upload()], "person_id": "ana"})
    body = response.json()
    assert (response.status_code, body["success"], body["error"]) == (
        422,
        False,
        "all_images_failed",
    )
    assert [result["error"] for result in body["results"]] == ["no_face_detected"] * 2
    assert [result["stored"] for result in body["results"]] == [False] * 2
    assert "use_face_detection=false" in body["results"][0]["message"]
    assert not FaceImage.objects.exists()


def test_of_several_pictures_those_with_a_face_are_enrolled(api):
    body = api.post(INSERT, {"images": [upload(), upload(face())], "person_id": "ana"}).json()
    assert [result["success"] for result in body["results"]] == [False, True]
    assert (body["inserted_count"], body["results"][1]["face_detected"]) == (1, True)


def test_whoever_says_so_enrols_a_crop(api):
    body = api.post(INSERT, {"images": upload(), "person_id": "ana", **CROP}).json()
    assert (body["inserted_count"], body["results"][0]["face_detected"]) == (1, False)


@shapeless
def test_a_crop_without_structure_is_no_crop(api, settings, content):
    response = api.post(INSERT, {"images": upload(content), "person_id": "ana", **CROP})
    (result,) = response.json()["results"]
    assert (response.status_code, result["error"]) == (422, "no_face_detected")
    assert "no crop of a face" in result["message"]
    assert nothing_is_stored(settings)


def test_pages_and_admin_say_why_they_enrol_nothing(boss):
    person = Person.objects.create(person_id="ana")
    form = {"pictures": upload(name="wall.jpg"), "use_face_detection": "on"}
    page = boss.post(f"/people/{person.pk}/add", form, follow=True).content.decode()
    assert "“wall.jpg” was refused. No face was found in the picture." in page
    assert "use_face_detection=" not in page  # that is for programs
    crop = {"pictures": upload(SHAPELESS["grey"], "grey.png")}
    page = boss.post(f"/people/{person.pk}/add", crop, follow=True).content.decode()
    assert "“grey.png” was refused. The picture is no crop of a face" in page
    change = f"/admin/enrollment/person/{person.pk}/change/"
    inline = {"face_images-TOTAL_FORMS": "0", "face_images-INITIAL_FORMS": "0"}
    form = {"person_id": "ana", "name": "", "notes": "", **inline} | form
    form["pictures"] = upload(name="wall.jpg")
    page = boss.post(change, form, follow=True).content.decode()
    assert "“wall.jpg” was refused. No face was found in the picture." in page
    assert not FaceImage.objects.exists()


def test_folders_and_zips_refuse_what_shows_nobody(boss, data_folder, tmp_path):
    (tmp_path / "people" / "ana").mkdir(parents=True)
    (tmp_path / "people" / "ana" / "wall.jpg").write_bytes(draw_picture())
    output, errors = io.StringIO(), io.StringIO()
    call_command("enroll", str(tmp_path / "people"), stdout=output, stderr=errors)
    assert "0 pictures of 0 people enrolled" in output.getvalue()
    assert "ana/wall.jpg: refused. No face was found" in errors.getvalue()

    archive = packed({"ana/wall.jpg": draw_picture(), "ana/face.jpg": face()})
    form = {"archive": upload(archive, "a.zip"), "use_face_detection": "on"}
    preview = boss.post("/admin/enrollment/person/import-pictures/", form, follow=True)
    assert "1 picture will be added" in preview.content.decode()
    boss.post(preview.redirect_chain[-1][0])
    assert [picture.original_path for picture in FaceImage.objects.all()] == ["ana/face.jpg"]


def test_an_installation_for_crops_alone_takes_them(api, settings):
    none = "recognition.detection.none.NoDetector"
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": none}
    set_thresholds()
    assert api.post(INSERT, {"images": upload(), "person_id": "ana"}).status_code == 200
    assert FaceImage.objects.get().use_face_detection is False
    assert api.post(SEARCH, {"image": upload()}).json()["decision"] == "match"
    page = Client(headers={"host": "localhost"}).post("/", asked(draw_picture()))
    assert (page.status_code, page.context["pictures"][0].faces[0].decision) == (200, "match")
    refused = api.post(INSERT, {"images": upload(SHAPELESS["black"]), "person_id": "ana"})
    assert refused.json()["results"][0]["error"] == "no_face_detected"


# Searching


@pytest.mark.parametrize("options", [{}, {"all_faces": "true"}, {"group_by_person": "true"}])
def test_a_search_without_a_face_has_hits_and_no_verdict(api, options):
    set_thresholds()
    enroll("ana", draw_picture())
    body = api.post(SEARCH, {"image": upload(), **options}).json()
    (hit,) = body["results"]
    for told in (hit, body, *body.get("faces", [])):
        assert told["decision"] is None and told["decision_reason"] == "no_face_detected"
    assert body["face_detected"] is False and hit["similarity"] > 0.99


def test_an_empty_gallery_gives_no_verdict_either(api):
    set_thresholds()
    body = api.post(SEARCH, {"image": upload()}).json()
    assert (body["decision"], body["decision_reason"]) == (None, "no_face_detected")


def test_a_search_with_a_face_or_a_crop_has_a_verdict(api):
    set_thresholds()
    enroll("ana", draw_picture())
    enroll("bia", face(), use_face_detection=True)
    crop = api.post(SEARCH, {"image": upload(), **CROP}).json()
    found = api.post(SEARCH, {"image": upload(face())}).json()
    for body in (crop, found):
        assert body["decision"] == body["results"][0]["decision"] == "match"
        assert "decision_reason" not in body and "decision_reason" not in body["results"][0]


def test_weights_that_nobody_measured_are_the_other_reason(api, monkeypatch):
    for module in ("enrollment.gallery.selectors", "enrollment.api.probes"):
        monkeypatch.setattr(f"{module}.search_thresholds", lambda _model: None)
    enroll("ana", draw_picture())
    body = api.post(SEARCH, {"image": upload(), **CROP}).json()
    assert body["decision"] is None and body["decision_reason"] == "no_thresholds"
    assert body["results"][0]["decision_reason"] == "no_thresholds"


def test_verification_without_a_face_has_no_verdict(api):
    set_thresholds()
    enroll("ana", draw_picture())
    form = {"require_face": "false", "threshold": "0.1"}
    pair = api.post(VERIFY, {"source_image": upload(), "target_image": upload(), **form}).json()
    person = api.post(VERIFY, {"source_image": upload(), "person_id": "ana", **form}).json()
    for body in (pair, person):
        assert body["verified"] is None and body["decision"] is None
        assert body["decision_reason"] == "no_face_detected" and body["similarity"] > 0.99
        assert "No face was found" in body["message"]


@shapeless
def test_a_shapeless_crop_is_not_asked_about(api, content):
    enroll("ana", draw_picture())
    calls = {
        SEARCH: {"image": upload(content)},
        VERIFY: {"source_image": upload(content), "person_id": "ana"},
        "/api/embedding": {"image": upload(content)},
        "/api/embeddings/batch": {"images": upload(content)},
    }
    for path, form in calls.items():
        response = api.post(path, form | CROP)
        body = response.json()
        code = body["results"][0]["error"] if "results" in body else body["error"]
        assert (response.status_code, code) == (422, "no_face_detected"), path


def test_old_clients_still_get_embeddings_of_whole_pictures(api, settings):
    single = api.post("/api/embedding", {"image": upload()}).json()
    batch = api.post("/api/embeddings/batch", {"images": [upload()]}).json()
    assert single["face_detected"] is batch["results"][0]["face_detected"] is False
    assert api.post("/api/embedding", {"image": upload(SHAPELESS["grey"])}).status_code == 200
    strict = {"require_face": "true"}
    assert api.post("/api/embedding", {"image": upload(), **strict}).status_code == 422
    settings.RECOGNITION = settings.RECOGNITION | {"NO_FACE_POLICY": "error"}
    assert api.post("/api/embedding", {"image": upload()}).status_code == 422
    assert api.post("/api/embeddings/batch", {"images": [upload()]}).status_code == 422


def asked(*contents: bytes) -> dict[str, object]:
    files = [upload(content, f"{number}.jpg") for number, content in enumerate(contents)]
    return {"model": "mobilenetv3_large", "top_k": 5, "images": files}


def test_the_page_says_no_face_and_shows_no_match():
    set_thresholds()
    enroll("ana", draw_picture(), name="Ana Lima")
    browser = Client(headers={"host": "localhost"})
    page = browser.post("/", asked(draw_picture()))
    assert page.status_code == 422
    assert "No face was found" in page.content.decode()
    assert "Ana Lima" not in page.content.decode()
    enroll("bia", face(), name="Bia", use_face_detection=True)
    page = browser.post("/", asked(draw_picture(), face())).content.decode()
    assert "No face was found" in page and "Bia" in page and "Ana Lima" in page


# What earlier versions enrolled


@pytest.fixture
def faceless() -> FaceImage:
    """A picture without a face, enrolled as version 1.0 did."""
    picture = enroll("ana", draw_picture()).outcomes[0].face_image
    FaceImage.objects.update(use_face_detection=True, original_path="gate/wall.jpg")
    return picture


def test_the_audit_names_them(faceless):
    output = io.StringIO()
    with pytest.raises(CommandError, match="fault"):
        call_command("audit_gallery", stdout=output, stderr=io.StringIO())
    assert "Pictures in which no face was found: 1." in output.getvalue()
    assert f"ana; pictures {faceless.pk}" in output.getvalue()


def test_the_start_names_them(faceless):
    errors = io.StringIO()
    Serve(stdout=io.StringIO(), stderr=errors)._say_faceless()
    assert f"In 1 enrolled picture no face was found (#{faceless.pk})" in errors.getvalue()
    assert "ana:" not in errors.getvalue() and "wall" not in errors.getvalue()
    assert "manage.py audit_gallery" in errors.getvalue()


def test_crops_are_not_named_at_the_start():
    enroll("ana", draw_picture())
    errors = io.StringIO()
    Serve(stdout=io.StringIO(), stderr=errors)._say_faceless()
    assert errors.getvalue() == ""


# What has structure


def test_no_real_crop_is_refused():
    archive = FACES_DIR / "aligned.zip"
    if not archive.is_file():
        pytest.skip(f"Real crops are not at {archive}: set FACES_DIR to their folder.")
    with zipfile.ZipFile(archive) as crops:
        names = [name for name in crops.namelist() if name.endswith((".jpg", ".png", ".webp"))]
        for name in names[::10]:
            assert has_structure(whole_picture(read_image(crops.read(name)).pixels)), name


@shapeless
def test_nothing_shapeless_has_structure(content):
    assert not has_structure(whole_picture(read_image(content).pixels))
    (refused,), _none = embed_uploads([content], "mobilenetv3_large", use_face_detection=False)
    assert isinstance(refused, NoFaceDetected)
