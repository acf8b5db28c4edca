"""Detectors find faces in pictures of any shape, from many threads, and never fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from django.core.exceptions import ImproperlyConfigured
from PIL import Image

from recognition.alignment import TEMPLATE, align_face
from recognition.detection import Face, FaceDetector, cascade, detect_faces, get_detector
from recognition.detection.mtcnn import OFFSET, MtcnnDetector, placed
from recognition.detection.none import NoDetector
from recognition.quality import face_quality
from tests.drawn_faces import PEOPLE, draw_face, draw_group
from tests.pictures import draw_picture

NONE = "recognition.detection.none.NoDetector"


@pytest.fixture
def photo(faces) -> np.ndarray:
    """A 350×350 picture filled by one face."""
    return np.asarray(Image.open(min(faces.glob("*/*.jpg"))).convert("RGB"))


def on_canvas(photo: np.ndarray, side: int, at: tuple[int, int], size: tuple[int, int]):
    canvas = Image.new("RGB", size, (90, 100, 110))
    canvas.paste(Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS), at)
    return np.asarray(canvas)


def awkward_pictures() -> list[np.ndarray]:
    chance = np.random.default_rng(5)
    shapes = [(16, 16), (17, 40), (16, 3000), (3000, 16), (48, 48), (200, 130)]
    noise = [chance.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    flat = [np.full((*shape, 3), value, np.uint8) for shape in shapes[:5] for value in (0, 255)]
    return noise + flat


@pytest.mark.parametrize("kind", [MtcnnDetector, NoDetector])
def test_detectors_keep_the_contract(kind):
    found = kind()

    assert isinstance(found, FaceDetector)
    for picture in awkward_pictures():
        assert found.detect(picture, 0.0) == []


def test_read_only_pictures_are_fine():
    from recognition.imaging import read_image

    assert detect_faces(read_image(draw_picture()).pixels) == []


def test_landmarks_are_in_template_order(photo):
    (face,) = detect_faces(photo)

    left_eye, right_eye, nose, mouth_left, mouth_right = face.landmarks
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == np.float32
    assert left_eye[0] < nose[0] < right_eye[0]
    assert mouth_left[0] < mouth_right[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    assert 0.9 <= face.score <= 1


def test_largest_face_comes_first(photo):
    canvas = np.array(on_canvas(photo, 90, (20, 20), (600, 400)))
    canvas[60:310, 250:500] = on_canvas(photo, 250, (0, 0), (250, 250))

    large, small = detect_faces(canvas)

    assert large.area > small.area
    assert large.box[0] > 200 > small.box[0]


@pytest.mark.parametrize("all_faces", [True, False])
@pytest.mark.parametrize(("edge", "first"), [(230, "middle"), (320, "edge")])
def test_of_faces_of_about_the_same_size_the_one_in_the_middle_comes_first(edge, first, all_faces):
    """In 8 of 28 LFW photos with such faces the largest was not the one whose name it bears."""
    middle, other = (draw_face(PEOPLE[0], side=side) for side in (200, edge))
    canvas = Image.new("RGB", (900, 420), (90, 100, 110))
    canvas.paste(middle, (350, 110))
    canvas.paste(other, (0, 50))

    found = detect_faces(np.asarray(canvas), all_faces=all_faces)

    assert len(found) == 2
    assert ("middle" if found[0].box[0] > 340 else "edge") == first
    assert (found[0].area > found[1].area) == (first == "edge")


@pytest.mark.parametrize("factor", [3, 6])
def test_coordinates_are_of_the_full_picture(photo, factor):
    """A picture above `detection_max_side` gives the coordinates of its small copy, times the
    factor."""
    small = on_canvas(photo, 300, (60, 30), (400, 400))
    large = np.asarray(Image.fromarray(small).resize((400 * factor,) * 2, Image.Resampling.BICUBIC))

    expected, found = detect_faces(small)[0], detect_faces(large)[0]

    assert np.abs(found.landmarks / factor - expected.landmarks).max() < 6
    assert np.abs(np.array(found.box) / factor - expected.box).max() < 25


def test_boxes_are_clipped_to_the_picture(photo):
    for cut in (photo[:, 70:], photo[40:], photo[:, :290], photo[:310]):
        height, width = cut.shape[:2]
        for face in detect_faces(np.ascontiguousarray(cut)):
            x, y, w, h = face.box
            assert min(x, y) >= 0
            assert x + w <= width
            assert y + h <= height


@pytest.mark.parametrize("side", [24, 32, 48, 112])
def test_faces_in_small_crops_are_found(photo, side):
    small = np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.BOX))

    (face,) = detect_faces(small)

    (whole,) = detect_faces(photo)
    assert np.abs(face.landmarks * (350 / side) - whole.landmarks).max() < 25


def test_faces_that_fill_the_frame_are_found(faces):
    photos = [
        np.asarray(Image.open(path).convert("RGB")) for path in sorted(faces.glob("*/*.jpg"))[::11]
    ]

    assert [len(found) for found in map(detect_faces, photos)] == [1] * len(photos)


def test_minimum_score_is_obeyed(photo, settings):
    score = detect_faces(photo)[0].score
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTION_MIN_SCORE": 1.01}

    assert score <= 1
    assert detect_faces(photo) == []


def agree_in_threads(paths: Iterable[Path]) -> None:
    """Find the faces of these photos in eight threads at once, and the same ones as in a row."""
    photos = [
        np.asarray(Image.open(path).convert("RGB").resize((100 + 7 * n, 120)))
        for n, path in enumerate(paths)
    ]
    expected = [[face.box for face in detect_faces(photo)] for photo in photos]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(detect_faces, photos * 4))

    assert [[face.box for face in faces_] for faces_ in found] == expected * 4


def test_eight_threads_agree_with_one(faces):
    agree_in_threads(sorted(faces.glob("*/*.jpg"))[:12])


def test_a_request_may_ask_for_more_or_less_certain_faces(photo, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTION_MIN_SCORE": 1.01}

    assert len(detect_faces(photo, min_score=0.5)) == 1
    assert detect_faces(photo, min_score=1.01) == []


def test_small_faces_are_left_out_on_demand(photo, settings):
    canvas = np.array(on_canvas(photo, 90, (20, 20), (600, 400)))
    canvas[60:310, 250:500] = on_canvas(photo, 250, (0, 0), (250, 250))
    large, small = detect_faces(canvas)
    between = (min(large.box[2:]) + min(small.box[2:])) / 2

    assert [face.box for face in detect_faces(canvas, min_face_size=between)] == [large.box]

    settings.RECOGNITION = settings.RECOGNITION | {"DETECTION_MIN_SIZE": round(between)}
    assert len(detect_faces(canvas)) == 1
    assert len(detect_faces(canvas, min_face_size=0)) == 2


def test_detector_is_one_a_process_until_the_setting_changes(settings):
    first = get_detector()
    assert isinstance(first, MtcnnDetector)
    assert get_detector() is first

    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": NONE}

    assert isinstance(get_detector(), NoDetector)


@pytest.mark.parametrize(
    "path", ["nowhere.Detector", "recognition.detection.none.Missing", "nodots", "builtins.dict"]
)
def test_bad_detector_path_names_the_setting(path, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": path}

    with pytest.raises(ImproperlyConfigured, match="DETECTOR") as caught:
        get_detector()

    assert path in str(caught.value)


def test_face_as_json_holds_plain_numbers():
    face = Face((1.234, 2, 3, 4.5), np.float32(0.98765), np.full((5, 2), 1.005, np.float32))

    plain = face.as_dict()

    assert plain["box"] == [1.23, 2.0, 3.0, 4.5]
    assert {type(plain["score"]), *(type(v) for row in plain["landmarks"] for v in row)} == {float}


def test_import_does_not_load_opencv():
    code = "import sys, recognition.detection.mtcnn as m; m.MtcnnDetector(); print('cv2' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("quarters", range(4))
def test_a_face_that_lies_on_its_side_or_head_is_found_and_says_so(quarters):
    upright = np.asarray(draw_face(PEOPLE[0]).convert("RGB"))
    (expected,) = detect_faces(upright)
    crop = align_face(upright, expected.landmarks)
    height, width = upright.shape[:2]

    # Turned counter-clockwise, so that clockwise turns bring it back.
    (face,) = detect_faces(np.ascontiguousarray(np.rot90(upright, quarters)))

    assert (expected.rotation, face.rotation) == (0, 90 * quarters)
    turned = np.rot90(upright, quarters)
    assert np.abs(align_face(turned, face.landmarks).astype(int) - crop).mean() < 6
    assert abs(face_quality(crop, face).roll - face_quality(crop, expected).roll) < 5
    x, y, w, h = face.box
    assert 0 <= x <= x + w <= turned.shape[1] and 0 <= y <= y + h <= turned.shape[0]
    assert face.as_dict()["rotation"] == 90 * quarters


def test_faces_of_a_picture_read_at_a_reduced_scale_are_in_its_own_pixels():
    picture = np.asarray(draw_face(PEOPLE[0]).convert("RGB"))
    (whole,) = detect_faces(picture)

    (reduced,) = detect_faces(
        cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), scale=0.5
    )

    side = whole.box[2]
    assert np.abs(np.subtract(reduced.box, whole.box)).max() < 0.15 * side
    assert np.abs(reduced.landmarks - whole.landmarks).max() < 0.08 * side
    assert detect_faces(picture, min_face_size=side * 3) == []


@pytest.mark.parametrize("seed", PEOPLE)
@pytest.mark.parametrize("side", [250, 360, 480])
def test_large_faces_are_the_same_at_a_glance(seed, side):
    """Only the network that proposes faces sees a smaller picture; the landmarks come from the whole."""
    picture = np.asarray(draw_face(seed, side=side).convert("RGB"))

    (whole,) = detect_faces(picture)
    (glanced,) = detect_faces(picture, all_faces=False)

    assert np.abs(glanced.landmarks - whole.landmarks).max() < 0.03 * whole.box[2]
    assert np.abs(np.subtract(glanced.box, whole.box)).max() < 0.05 * whole.box[2]
    difference = align_face(picture, glanced.landmarks).astype(int) - align_face(
        picture, whole.landmarks
    )
    assert np.abs(difference).mean() < 6


def test_large_faces_are_found_without_a_search_of_the_whole_picture(photo, monkeypatch):
    picture = on_canvas(photo, 400, (100, 40), (640, 480))
    monkeypatch.setattr(MtcnnDetector, "detect", lambda *args: pytest.fail("searched it all"))

    (face,) = detect_faces(picture, all_faces=False)

    assert face.box[2] > 150


def test_small_faces_beside_a_large_one_are_found_when_all_are_asked_for(photo):
    canvas = np.array(on_canvas(photo, 700, (0, 0), (1600, 1200)))
    for left in (900, 1100, 1300):
        canvas[900:960, left : left + 60] = on_canvas(photo, 60, (0, 0), (60, 60))

    assert len(detect_faces(canvas)) == 4
    assert detect_faces(canvas, all_faces=False)[0].box[2] > 300


def test_a_small_face_alone_is_found_when_the_largest_is_asked_for(photo):
    picture = on_canvas(photo, 60, (1200, 700), (1600, 1200))

    (face,) = detect_faces(picture, all_faces=False)

    assert 20 < face.box[2] < 70


def test_a_face_half_as_wide_as_the_largest_counts_beside_it(photo):
    """It may be the one that is meant, so the quality of the picture depends on it."""
    canvas = np.array(on_canvas(photo, 500, (0, 0), (1024, 768)))
    canvas[100:380, 600:880] = on_canvas(photo, 280, (0, 0), (280, 280))

    assert len(detect_faces(canvas, all_faces=False)) == 2


def test_pictures_without_faces_are_searched_turned_at_a_glance_only(monkeypatch):
    searched = []
    whole = MtcnnDetector.detect
    monkeypatch.setattr(
        MtcnnDetector,
        "detect",
        lambda self, image, score: searched.append(image.shape) or whole(self, image, score),
    )

    assert detect_faces(np.full((300, 400, 3), 90, np.uint8)) == []
    assert searched == [(300, 400, 3)]


class Watched:
    """A network that notes how large its inputs are."""

    def __init__(self, network) -> None:
        self._network, self.largest = network, 0
        self.forward = network.forward

    def setInput(self, blob: np.ndarray) -> None:  # noqa: N802 (OpenCV's name)
        self.largest = max(self.largest, blob.nbytes)
        self._network.setInput(blob)


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_picture_searched_in_bands_and_batches_has_the_same_faces(monkeypatch, left_out):
    """OpenCV keeps buffers at their largest: one photo used to leave 120 MiB in each network."""
    picture = np.asarray(draw_group().convert("RGB"))
    picture = np.ascontiguousarray(picture[left_out:, left_out:])
    whole = cascade.Cascade()
    expected = whole.faces(picture, 20)
    assert len(expected[1]) == len(PEOPLE)

    monkeypatch.setattr(cascade, "_BAND_PIXELS", 2**13)
    monkeypatch.setattr(cascade, "_BATCHES", (16, 4))
    divided = cascade.Cascade()
    networks = [Watched(getattr(divided, name)) for name in ("_propose", "_refine", "_decide")]
    divided._propose, divided._refine, divided._decide = networks
    found = divided.faces(picture, 20)

    for each, other in zip(found, expected, strict=True):
        assert np.allclose(each, other, atol=0.01)
    limits = [2**13, 16 * 24**2, 4 * 48**2]  # pixels
    assert all(
        network.largest <= pixels * 3 * 4 for network, pixels in zip(networks, limits, strict=True)
    )


@pytest.mark.parametrize("shot", [0, 1])
def test_a_mirror_image_has_the_mirrored_landmarks(shot):
    picture = np.asarray(draw_face(PEOPLE[0], shot))
    (face,), (mirrored,) = (
        detect_faces(np.ascontiguousarray(each)) for each in (picture, picture[:, ::-1])
    )

    back = (mirrored.landmarks * (-1, 1) + (picture.shape[1] - 1, 0))[[1, 0, 2, 4, 3]]
    assert np.abs(back - face.landmarks).max() < 0.04 * face.box[2]


@pytest.mark.parametrize(("turn", "scale"), [(0.0, 1.0), (0.3, 2.5), (-1.2, 0.4)])
def test_where_mtcnn_sees_the_points_of_an_aligned_face_the_template_has_them(turn, scale):
    to_picture = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    seen, wanted = ((points @ to_picture.T) + (70, 40) for points in (TEMPLATE + OFFSET, TEMPLATE))

    assert np.allclose(placed(seen), wanted, atol=0.01)


def test_points_that_nobody_can_align_stay():
    assert (placed(np.full((5, 2), 7.0)) == 7).all()
