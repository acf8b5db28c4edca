"""The quality measures of a face, and the text of each reason."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from django.utils import translation
from PIL import Image

from recognition import quality
from recognition.alignment import TEMPLATE
from recognition.api.serializers import QualitySerializer
from recognition.detection import Face
from recognition.embedding import crop_upload
from recognition.quality import FaceQuality, QualityReason, crop_quality, face_quality, head_pose
from tests.pictures import encoded


def crop(mean: float = 130, spread: float = 40, sigma: float = 0) -> np.ndarray:
    """Return a blurred 112×112×3 uint8 RGB crop of noise with this mean and standard deviation."""
    noise = np.random.default_rng(3).normal(0, 1, (112, 112)).astype(np.float32)
    if sigma:
        noise = cv2.GaussianBlur(noise, (0, 0), sigma)
    grey = noise / noise.std() * spread + mean
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def face(
    *, score: float = 0.99, width: float = 100, roll: float = 0, nose: float = 0, x: float = 0
) -> Face:
    """Return a face with the template's landmarks; `nose` moves the nose tip, in eye distances."""
    points = TEMPLATE - TEMPLATE.mean(0)
    points[0, 1] = points[1, 1] = points[:2, 1].mean()
    points[2, 0] = (points[0, 0] + points[1, 0] + points[3, 0] + points[4, 0]) / 4
    points[2, 0] += nose * (points[1, 0] - points[0, 0])
    angle = np.radians(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (points @ turn.T) * (width / 80) + [x + 100, 100]
    return Face((x, 0.0, width, 1.2 * width), score, landmarks.astype(np.float32))


def codes(judged: FaceQuality) -> list[str]:
    return [reason.code for reason in judged.reasons]


def as_png(image: np.ndarray) -> bytes:
    return encoded(Image.fromarray(image), "PNG")


@pytest.fixture
def photo(faces) -> np.ndarray:
    """A 350×350 picture filled by one face."""
    return np.asarray(Image.open(min(faces.glob("*/*.jpg"))).convert("RGB"))


def test_a_plain_face_has_no_reasons():
    judged = face_quality(crop(), face())

    assert judged.is_good
    assert (judged.score, judged.width) == (0.99, 100)
    assert judged.eye_distance == pytest.approx(44, abs=0.2)
    assert judged.brightness == pytest.approx(130, abs=2)
    assert judged.contrast == pytest.approx(40, abs=2)


@pytest.mark.parametrize(
    ("pixels", "found", "code"),
    [
        (crop(), face(score=0.91), "low_score"),
        (crop(), face(width=30), "small_face"),
        (crop(), face(nose=0.5), "turned_away"),
        (crop(), face(nose=-0.5), "turned_away"),
        (crop(), face(roll=40), "tilted"),
        (crop(), face(roll=-40), "tilted"),
        (crop(sigma=8), face(), "blurred"),
        (crop(mean=30, spread=20), face(), "too_dark"),
        (crop(mean=230, spread=20), face(), "too_bright"),
        (crop(spread=8), face(), "low_contrast"),
    ],
)
def test_each_fault_has_its_reason(pixels, found, code):
    judged = face_quality(pixels, found)

    assert codes(judged) == [code]
    assert not judged.is_good


@pytest.mark.parametrize("roll", [-25, 0, 20])
def test_pose_is_read_from_the_landmarks(roll):
    for nose in (-0.3, 0, 0.48):
        yaw, tilt = head_pose(face(roll=roll, nose=nose).landmarks)

        assert tilt == pytest.approx(roll, abs=0.5)
        assert yaw == pytest.approx(np.degrees(np.arctan2(nose, 0.48)), abs=1)


def test_a_mirrored_face_looks_the_other_way(photo):
    (seen,) = crop_upload(as_png(photo))
    (mirrored,) = crop_upload(as_png(photo[:, ::-1]))

    assert mirrored.quality.yaw == pytest.approx(-seen.quality.yaw, abs=5)
    assert mirrored.quality.roll == pytest.approx(-seen.quality.roll, abs=5)


def test_points_that_lie_in_one_have_a_pose_all_the_same():
    assert head_pose(np.zeros((5, 2))) == (0, 0)


def test_a_second_face_is_a_doubt_only_when_it_may_be_the_one_meant():
    large, near, far = face(width=100), face(width=80, x=200), face(width=20, x=300)

    assert codes(face_quality(crop(), large, [large, near])) == ["several_faces"]
    beside_far = face_quality(crop(), large, [large, far])
    assert beside_far.is_good
    assert (beside_far.faces, beside_far.share) == (2, pytest.approx(10_000 / 10_400, abs=1e-3))
    alone = face_quality(crop(), large)
    assert (alone.faces, alone.share) == (None, None)


def test_the_message_never_says_that_what_misses_a_limit_reaches_it():
    assert "only 94 % sure" in QualityReason("low_score", 94.7, 95).message
    assert (
        "turned to the side by about 41 degrees" in QualityReason("turned_away", 40.2, 40).message
    )


def test_what_is_dark_or_small_is_not_also_called_blurred():
    assert codes(face_quality(crop(mean=20, spread=3, sigma=8), face())) == ["too_dark"]
    assert codes(face_quality(crop(sigma=8), face(width=30))) == ["small_face"]


def test_a_crop_is_doubted_only_when_a_face_was_looked_for():
    assert crop_quality(crop(), looked_for_face=False).is_good
    looked_for = crop_quality(crop(mean=30), looked_for_face=True)
    assert codes(looked_for) == ["no_face", "too_dark"]
    assert (looked_for.faces, looked_for.score, looked_for.yaw) == (0, None, None)


def test_numbers_stand_in_the_sentence():
    (reason,) = face_quality(crop(), face(width=31.6)).reasons

    assert "32 pixels wide; at least 40" in reason.message


def test_what_is_stored_holds_no_sentence_and_is_read_back():
    judged = face_quality(crop(mean=20), face(width=30))

    record = judged.as_record()

    assert FaceQuality.from_record(record) == judged
    assert FaceQuality.from_record(record | {"measured_later": 1}) == judged
    assert record["reasons"][0] == {"code": "small_face", "given": 30.0, "expected": 40}


def test_answers_speak_the_clients_language(monkeypatch):
    judged = face_quality(crop(), face(width=30))
    monkeypatch.setitem(quality._SENTENCES, "small_face", translation.gettext_lazy("Save"))

    with translation.override("pt-br"):
        (reason,) = QualitySerializer(judged).data["reasons"]

    assert reason == {"code": "small_face", "message": "Salvar"}


def test_nine_in_ten_real_photos_are_beyond_doubt(faces):
    photos = [path.read_bytes() for path in sorted(faces.glob("*/*.jpg"))[::16]]

    judged = [crop_upload(photo)[0].quality for photo in photos]

    assert sum(item.is_good for item in judged) >= 0.9 * len(judged)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda image: cv2.GaussianBlur(image, (0, 0), 12), "blurred"),
        (lambda image: (image * 0.22).astype(np.uint8), "too_dark"),
        (lambda image: np.clip(image + 130.0, 0, 255).astype(np.uint8), "too_bright"),
        (lambda image: (image * 0.2 + 100).astype(np.uint8), "low_contrast"),
        (lambda image: cv2.resize(image, (35, 35), interpolation=cv2.INTER_AREA), "small_face"),
    ],
)
def test_spoiled_photos_are_doubted(photo, spoil, code):
    (crop,) = crop_upload(as_png(spoil(photo)))

    assert code in codes(crop.quality)


def test_the_quantiles_of_structure_are_those_of_numpy():
    for number in range(20):
        values = np.random.default_rng(number).normal(0, 9, (12, 12)).astype(np.float32)
        for share in (0.5, 0.75):
            assert quality._quantile(values, share) == pytest.approx(np.quantile(values, share))
