"""Which faces of a picture are cropped, and what is returned and stored about them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from recognition.api.serializers import FaceDescriptionSerializer
from recognition.embedding import (
    crop_all_faces_of_upload,
    crop_upload,
    embed_crops,
    opened_upload,
)
from recognition.exceptions import NoFaceDetected
from tests.drawn_faces import PEOPLE, draw_face
from tests.pictures import draw_picture, encoded


@pytest.fixture(scope="module")
def group(faces) -> bytes:
    """A PNG of 700×320 pixels with two people; the right one is larger."""
    people = sorted(faces.iterdir())[:2]
    first, second = (Image.open(min(person.iterdir())).convert("RGB") for person in people)
    canvas = Image.new("RGB", (700, 320), (90, 100, 110))
    canvas.paste(first.resize((200, 200)), (40, 60))
    canvas.paste(second.resize((300, 300)), (360, 10))
    return encoded(canvas, "PNG")


def test_the_largest_face_is_cut_out(group):
    (crop,) = crop_upload(group)

    assert crop.pixels.shape == (112, 112, 3)
    assert crop.face.box[0] > 300
    assert crop.quality.faces == 2
    assert [reason.code for reason in crop.quality.reasons] == ["several_faces"]


def test_all_faces_are_cut_out_and_none_is_doubted_for_the_others(group):
    _picture, crops = crop_all_faces_of_upload(group)

    assert [crop.face.box[0] > 300 for crop in crops] == [True, False]
    assert [crop.quality.share for crop in crops] == [None, None]
    asked = crop_upload(group, all_faces=True)
    assert [crop.face.box for crop in asked] == [crop.face.box for crop in crops]


def test_faces_too_small_for_the_request_do_not_count(group):
    large, small = (min(crop.face.box[2:]) for crop in crop_upload(group, all_faces=True))

    assert len(crop_all_faces_of_upload(group, min_face_size=(large + small) / 2)[1]) == 1
    assert crop_all_faces_of_upload(group, min_face_size=large + 1)[1] == []
    with pytest.raises(NoFaceDetected):
        crop_upload(group, min_face_size=large + 1, require_face=True)


def test_a_picture_without_a_face_is_one_crop(picture):
    assert [crop.face for crop in crop_upload(picture, all_faces=True)] == [None]
    assert crop_all_faces_of_upload(picture)[1] == []


def test_quality_stands_within_the_face(group):
    (crop,) = crop_upload(group)

    described = json.loads(json.dumps(FaceDescriptionSerializer.answer({"crop": crop})))

    assert list(described) == ["face_detected", "face"]
    assert list(described["face"]) == ["box", "score", "landmarks", "rotation", "quality"]
    (reason,) = described["face"]["quality"]["reasons"]
    assert reason["code"] == "several_faces" and "several faces" in reason["message"]


def test_quality_stands_beside_a_face_that_is_not_there(picture):
    (crop,) = crop_upload(picture)

    described = FaceDescriptionSerializer.answer({"crop": crop})

    assert (described["face_detected"], described["face"]) == (False, None)
    assert described["quality"]["reasons"][0]["code"] == "no_face"


def test_a_crop_that_was_sent_as_such_is_not_doubted_for_want_of_a_face():
    (crop,) = crop_upload(draw_picture(), use_face_detection=False)

    codes = [
        reason["code"]
        for reason in FaceDescriptionSerializer.answer({"crop": crop})["quality"]["reasons"]
    ]

    assert "no_face" not in codes


def test_what_is_stored_is_in_no_language(group, picture):
    (crop,) = crop_upload(group)
    (without_face,) = crop_upload(picture)

    record = crop.face_record()

    assert record["quality"] == crop.quality.as_record()
    assert "message" not in json.dumps(record)
    assert without_face.face_record() is None


def test_flip_tta_takes_the_mean_with_the_mirror_image(group, weights, settings):
    crop = crop_upload(group)[0].pixels
    mirrored = np.ascontiguousarray(crop[:, ::-1])
    plain = embed_crops([crop, mirrored], weights)

    settings.RECOGNITION = settings.RECOGNITION | {"FLIP_TTA": True}
    both = embed_crops([crop, mirrored], weights)

    assert both.vectors.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(both.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(both.vectors[0], both.vectors[1], atol=1e-4)
    to_plain = plain.vectors @ both.vectors[0]
    assert (to_plain > plain.vectors[0] @ plain.vectors[1]).all()
    assert both.fingerprint != plain.fingerprint


@pytest.mark.parametrize("side", [360, 60])
def test_a_large_jpeg_is_cropped_as_at_its_full_size(side):
    """A face that is small in the reduced picture is cropped from the full picture."""
    scene = Image.new("RGB", (4000, 3000), (90, 100, 110))
    scene.paste(draw_face(PEOPLE[0], side=360).resize((side * 3, side * 3)), (900, 700))
    data = encoded(scene, "JPEG", quality=95)

    with opened_upload(data) as (image, (crop,)):
        assert image.scale == 0.5
        assert (image.width, image.height) == (4000, 3000)
    whole = encoded(Image.open(io.BytesIO(data)), "BMP")  # no decoder reduces it
    (expected,) = crop_upload(whole)

    assert np.abs(np.subtract(crop.face.box, expected.face.box)).max() < 0.1 * side
    assert abs(crop.quality.width - expected.quality.width) < 0.1 * side
    assert np.abs(crop.pixels.astype(int) - expected.pixels).mean() < 6
    assert crop.quality.sharpness > 0.5 * expected.quality.sharpness


def test_only_the_picture_at_hand_has_pixels(picture):
    with opened_upload(picture, use_face_detection=False) as (image, _crops):
        assert image.pixels.size > 0

    assert image.pixels.size == 0
    assert image.width > 0
