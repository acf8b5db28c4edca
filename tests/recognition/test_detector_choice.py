"""Which detector is chosen, what health says of it, and YuNet from end to end where its file is at hand."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recognition.alignment import align_face
from recognition.detection import chosen_detector, detect_faces, get_detector
from recognition.detection.mtcnn import MtcnnDetector
from recognition.detection.none import NoDetector
from recognition.detection.retinaface import RetinaFaceDetector
from recognition.detection.yunet import YuNetDetector
from recognition.exceptions import DetectorUnavailable
from tests.conftest import MODELS_DIR, ROOT
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face, draw_group
from tests.pictures import draw_picture
from tests.recognition.test_detection import agree_in_threads, awkward_pictures

YUNET = "yunet_n_dynamic.onnx"


@pytest.fixture
def folder(settings, tmp_path: Path) -> Path:
    """An own WEIGHTS_DIR with the bundled weights, and DETECTOR=auto."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in (*(ROOT / "weights").glob("*.safetensors"), ROOT / "weights" / "converted"):
        (folder / file.name).symlink_to(file)
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": folder, "DETECTOR": "auto"}
    return folder


@pytest.fixture
def yunet(folder: Path) -> Iterator[Path]:
    """A WEIGHTS_DIR in which YuNet's file lies."""
    file = MODELS_DIR / YUNET
    if not file.is_file():
        pytest.skip(f"YuNet is not at {file}: set MODELS_DIR to the folder that holds it.")
    (folder / YUNET).symlink_to(file)
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mtcnn", MtcnnDetector), ("yunet", YuNetDetector), ("retinaface", RetinaFaceDetector), ("none", NoDetector)],
)  # fmt: skip
def test_detectors_have_short_names_and_keep_their_paths(settings, name, kind):
    for value in (name, f"{kind.__module__}.{kind.__name__}"):
        settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": value}
        choice = chosen_detector()
        assert type(choice.detector) is kind
        assert choice.name == name


@pytest.mark.django_db
def test_auto_takes_mtcnn_without_the_file_and_says_how_to_get_it(folder, api):
    health = api.get("/api/health").json()

    assert isinstance(get_detector(), MtcnnDetector)
    assert health["detector"] == "mtcnn"
    assert "fetch_weights yunet" in health["detector_reason"]


@pytest.mark.django_db
def test_auto_takes_mtcnn_when_the_file_is_damaged_and_says_so(folder, api):
    (folder / YUNET).write_bytes(b"not a network")

    health = api.get("/api/health").json()

    assert isinstance(get_detector(), MtcnnDetector)
    assert health["detector"] == "mtcnn"
    assert "verify_weights yunet" in health["detector_reason"]


def test_yunet_that_is_insisted_on_answers_503_without_its_file(settings, folder, api):
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": "yunet"}
    with pytest.raises(DetectorUnavailable, match="fetch_weights yunet"):
        detect_faces(np.zeros((100, 100, 3), np.uint8))


@pytest.mark.django_db
def test_auto_takes_yunet_when_its_file_is_there(yunet, api):
    health = api.get("/api/health").json()

    assert isinstance(get_detector(), YuNetDetector)
    assert health["detector"] == "yunet"
    assert "WEIGHTS_DIR" in health["detector_reason"]


def test_yunet_keeps_the_contract(yunet):
    for picture in awkward_pictures():
        assert detect_faces(picture) == []
        assert detect_faces(picture, all_faces=False) == []


def test_yunet_finds_no_face_where_there_is_none(yunet):
    for seed in range(20):
        picture = np.asarray(Image.open(io.BytesIO(draw_picture(seed=seed))).convert("RGB"))
        assert detect_faces(picture) == []


@pytest.mark.parametrize("mirrored", [False, True])
def test_yunet_gives_landmarks_in_the_order_of_the_picture(yunet, mirrored):
    """A mirror image exchanges left and right of the person, not those of the picture."""
    picture = draw_face(PEOPLE[0])
    pixels = np.asarray(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture)

    (face,) = detect_faces(pixels)

    left_eye, right_eye, nose, mouth_left, mouth_right = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert mouth_left[0] < mouth_right[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


def test_both_detectors_cut_nearly_the_same_crop(yunet, settings):
    crops = []
    for name in ("mtcnn", "yunet"):
        settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": name}
        pixels = np.asarray(draw_face(PEOPLE[0]))
        (face,) = detect_faces(pixels)
        crops.append(align_face(pixels, face.landmarks).astype(int))

    assert np.abs(crops[0] - crops[1]).mean() < 20


def test_yunet_finds_every_person_of_a_group_and_small_faces(yunet, faces):
    group = np.asarray(draw_group())
    assert len(detect_faces(group)) == len(PEOPLE)

    canvas = Image.new("RGB", (1600, 1200), (90, 100, 110))
    photos = sorted(faces.glob("*/*.jpg"))[::14][:24]
    for place, photo in enumerate(photos):
        small = Image.open(photo).convert("RGB").resize((60, 60), Image.Resampling.LANCZOS)
        canvas.paste(small, (40 + place % 6 * 250, 40 + place // 6 * 280))
    assert len(detect_faces(np.asarray(canvas))) == len(photos)


def test_yunet_serves_eight_threads_at_once(yunet, faces):
    agree_in_threads(sorted(faces.glob("*/*.jpg"))[:8])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_yunet_finds_a_turned_face_and_says_so(yunet, faces, quarters):
    photo = np.asarray(Image.open(min(faces.glob("*/*.jpg"))).convert("RGB"))

    (face,) = detect_faces(np.ascontiguousarray(np.rot90(photo, quarters)), all_faces=False)

    assert face.rotation == 90 * quarters


@pytest.mark.django_db
def test_a_face_is_found_again_through_the_api_with_yunet(yunet, api, weights):
    upload = lambda: io.BytesIO(as_jpeg(draw_face(PEOPLE[0])))  # noqa: E731
    answer = api.post("/api/embedding", {"image": upload(), "require_face": "true"}).json()

    assert answer["face_detected"] is True
    assert answer["face"]["score"] > 0.8
    assert not [r for r in answer["face"]["quality"].get("reasons", []) if r["code"] == "low_score"]
