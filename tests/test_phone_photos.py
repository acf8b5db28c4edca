"""Photos as a phone takes them: 12 megapixels, rotated by EXIF, several people, some far away."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enrollment.models import FaceEmbedding
from tests.pictures import upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

SIZE = (4000, 3000)
FACES = {"near": (900, (300, 500)), "lit": (420, (1900, 700)), "far": (52, (3300, 1500))}


@pytest.fixture(scope="module")
def people(faces) -> dict[str, list[Path]]:
    folders = sorted(faces.iterdir())[: len(FACES)]
    return {name: sorted(folder.iterdir()) for name, folder in zip(FACES, folders, strict=True)}


def side_lit(photo: Image.Image) -> Image.Image:
    """The photo with its right side at a quarter of its light."""
    light = np.linspace(1, 0.25, photo.width)[None, :, None]
    return Image.fromarray((np.asarray(photo) * light).astype(np.uint8))


@pytest.fixture(scope="module")
def group(people) -> bytes:
    """A JPEG whose pixels lie on their side; far: a face 40 pixels wide."""
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
