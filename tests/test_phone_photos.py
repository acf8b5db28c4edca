"""Photos like those of phones: 12 megapixels, rotated by EXIF, several people, some far away."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command
from django.urls import reverse
from PIL import Image

from enrollment.models import FaceEmbedding, Person
from tests.pictures import upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

SIZE = (4000, 3000)
FACES = {"near": (900, (300, 500)), "lit": (420, (1900, 700)), "far": (52, (3300, 1500))}


@pytest.fixture(scope="module")
def people(faces) -> dict[str, list[Path]]:
    folders = sorted(faces.iterdir())[: len(FACES)]
    return {name: sorted(folder.iterdir()) for name, folder in zip(FACES, folders, strict=True)}


def side_lit(photo: Image.Image) -> Image.Image:
    """Return the photo with a quarter of the light on its right side."""
    light = np.linspace(1, 0.25, photo.width)[None, :, None]
    return Image.fromarray((np.asarray(photo) * light).astype(np.uint8))


@pytest.fixture(scope="module")
def group(people) -> bytes:
    """A JPEG stored sideways; `far` is a face 40 pixels wide."""
    chance = np.random.default_rng(2)
    noise = chance.integers(40, 200, (30, 40, 3), dtype=np.uint8)
    scene = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
    for name, (side, at) in FACES.items():
        photo = Image.open(people[name][0]).convert("RGB").resize((side, side))
        scene.paste(side_lit(photo) if name == "lit" else photo, at)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    buffer = io.BytesIO()
    scene.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=88, exif=exif)
    return buffer.getvalue()


def test_everybody_is_found_where_they_are(api, group):
    body = api.post("/api/detect", {"image": upload(group)}).json()

    assert (body["width"], body["height"]) == SIZE
    assert body["total"] == len(FACES)
    for face, (side, (x, y)) in zip(body["faces"], FACES.values(), strict=True):
        left, top, width, height = face["box"]
        assert x < left + width / 2 < x + side
        assert y < top + height / 2 < y + side
    far = body["faces"][-1]
    assert 30 < far["quality"]["width"] < 50


def test_everybody_is_recognised_and_the_stranger_too_is_answered(api, people, group):
    for name in ("near", "lit"):
        images = [upload(path.read_bytes(), path.name) for path in people[name]]
        assert api.post("/api/milvus/insert", {"images": images, "person_id": name}).json()[
            "success"
        ]

    found = api.post(
        "/api/milvus/search", {"image": upload(group), "all_faces": "true", "top_k": 1}
    ).json()

    near, lit, far = found["faces"]
    assert near["results"][0]["person_id"] == "near" and near["decision"] == "match"
    assert lit["results"][0]["person_id"] == "lit"
    assert far["results"][0]["similarity"] < near["results"][0]["similarity"]
    assert far["decision"] != "match"


def test_it_is_enrolled_upright_with_a_doubt_about_who_is_meant(api, group):
    body = api.post("/api/milvus/insert", {"images": upload(group), "person_id": "ana"}).json()

    (result,) = body["results"]
    assert result["searchable"] is True
    row = FaceEmbedding.objects.select_related("face_image").get()
    assert (row.face_image.width, row.face_image.height) == SIZE
    assert row.face["box"][2] > 500
    assert result["face"]["quality"]["faces"] == len(FACES)


def test_programs_may_send_it_to_every_call(api, people, group):
    near = upload(people["near"][1].read_bytes())

    face = api.post("/api/embedding", {"image": upload(group)}).json()
    batch = api.post("/api/embeddings/batch", {"images": [upload(group), tiny(people)]}).json()
    verdict = api.post("/api/verify", {"source_image": upload(group), "target_image": near}).json()

    assert face["face"]["box"][2] > 500
    assert batch["results"][0]["embedding"] == pytest.approx(face["embedding"], abs=1e-4)
    assert batch["results"][1]["face"]["box"][2] < 20
    assert verdict["verified"] is True, "two pictures of one photo session"


def test_the_pages_frame_every_face_and_take_tiny_pictures(client, people, group):
    form = {"images": [upload(group), tiny(people)], "model": "mobilenetv3_large", "top_k": 1}
    Person.objects.create(person_id="ana").face_images.create(image="none.jpg", width=1, height=1)
    asked = client.post("/", form, headers={"host": "localhost"})
    pair = {"source": upload(group), "target": tiny(people), "model": "mobilenetv3_large"}
    compared = client.post("/compare", pair, headers={"host": "localhost"})

    assert [len(picture.faces) for picture in asked.context["pictures"]] == [len(FACES), 1]
    assert len(compared.context["comparison"].rows) == len(FACES)


def test_the_admin_and_an_import_enrol_it(admin_client, people, group, tmp_path, transactional_db):
    form = {"person_id": "ana", "name": "", "notes": "", "use_face_detection": "on"}
    form["pictures"] = [upload(group, "group.jpg"), tiny(people)]
    asked = admin_client.post(reverse("admin:enrollment_person_add"), form, follow=True)
    assert "pixels wide; at least 40 are expected" in asked.text
    (picture,) = asked.context["waiting"]
    assert len(picture.faces) == len(FACES)
    page = asked.redirect_chain[-1][0]
    admin_client.post(page, {f"face-{picture.key}": "0"})

    folder = tmp_path / "people" / "bia"
    folder.mkdir(parents=True)
    (folder / "group.jpg").write_bytes(group + b"other")
    (folder / "tiny.png").write_bytes(tiny(people, resample=Image.Resampling.NEAREST).read())
    call_command("enroll", str(folder.parent), no_progress=True, stderr=io.StringIO())

    rows = FaceEmbedding.objects.order_by("pk")
    assert [row.face_image.person.person_id for row in rows] == ["ana", "ana", "bia", "bia"]
    assert [row.face["box"][2] > 500 for row in rows] == [False, True, True, False]


def test_it_can_be_evaluated(people, group, tmp_path, capsys):
    for name, content in {"ana": group, "bia": tiny(people).read()}.items():
        for copy in ("1", "2"):
            path = tmp_path / name / f"{copy}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    call_command("evaluate", tmp_path, no_progress=True)

    assert "4 pictures, 0 taken whole" in capsys.readouterr().out


def tiny(people: dict[str, list[Path]], resample=Image.Resampling.LANCZOS):
    """A picture of 20 pixels."""
    buffer = io.BytesIO()
    Image.open(people["near"][0]).convert("RGB").resize((20, 20), resample).save(buffer, "PNG")
    return upload(buffer.getvalue(), "tiny.png")
