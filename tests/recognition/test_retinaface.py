"""RetinaFace with a stand-in for its package, which is optional and downloads weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from django.utils import translation

from recognition.detection import FaceDetector, choice, detect_faces, retinaface
from recognition.detection.retinaface import RetinaFaceDetector
from recognition.exceptions import DetectorUnavailable
from tests.pictures import upload

PATH = "recognition.detection.retinaface.RetinaFaceDetector"


class StandIn:
    """A network that finds a face wherever there is pure red, and records its input."""

    def __init__(self, **options: object) -> None:
        self.options = options
        self.seen: list[np.ndarray] = []
        self.busy = False

    def detect(self, image: np.ndarray) -> list[SimpleNamespace]:
        assert not self.busy, "two threads at once"
        self.busy = True
        self.seen.append(image)
        time.sleep(0.002)  # lets another thread come between, if it can
        self.busy = False
        rows, columns = np.nonzero((image == (0, 0, 255)).all(2))  # blue, green, red
        if not len(rows):
            return []
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        points = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
        landmarks = np.array([(x1 + x * (x2 - x1), y1 + y * (y2 - y1)) for x, y in points])
        large = SimpleNamespace(
            bbox=np.array([x1, y1, x2, y2]), confidence=0.6, landmarks=landmarks
        )
        small = SimpleNamespace(
            bbox=np.array([x1, y1, x1 + 2, y1 + 2]), confidence=0.95, landmarks=landmarks
        )
        return [small, large]


@pytest.fixture(autouse=True)
def _own_detector() -> Iterator[None]:
    """Reset the detector, which remembers failures."""
    choice._chosen.cache_clear()
    yield
    choice._chosen.cache_clear()


@pytest.fixture
def package(monkeypatch) -> SimpleNamespace:
    """A stand-in for `uniface`; `fetches` counts downloads, and `fails` makes them fail."""
    state = SimpleNamespace(fetches=0, fails=None)

    def verify_model_weights(name: str, timeout: int, max_retries: int) -> str:
        state.fetches += 1
        if state.fails:
            raise state.fails
        return name

    modules = {
        "uniface": {},
        "uniface.constants": {"RetinaFaceWeights": SimpleNamespace(MNET_V2="mnet_v2")},
        "uniface.detection": {"RetinaFace": StandIn},
        "uniface.model_store": {"verify_model_weights": verify_model_weights},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return state


def red_square(height: int, width: int, at: tuple[int, int], side: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[at[1] : at[1] + side, at[0] : at[0] + side] = (255, 0, 0)
    return picture


@pytest.mark.usefixtures("package")
def test_detector_keeps_the_contract():
    detector = RetinaFaceDetector()

    assert isinstance(detector, FaceDetector)
    for shape in [(16, 16), (17, 40), (16, 3000), (3000, 16), (20, 20), (2000, 1500)]:
        assert detector.detect(np.zeros((*shape, 3), np.uint8), 0.5) == []
    assert all(side % 32 == 0 for image in detector._network.seen for side in image.shape[:2])


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("factor", [1, 10])
def test_faces_are_placed_in_the_picture_largest_first(factor):
    picture = red_square(300 * factor, 400 * factor, (50 * factor, 60 * factor), 100 * factor)

    large, small = RetinaFaceDetector().detect(picture, 0.5)

    assert np.abs(np.array(large.box) / factor - [50, 60, 100, 100]).max() < 1.5
    assert np.abs(large.landmarks[2] / factor - [100, 120]).max() < 1.5
    assert (large.score, small.score) == (0.6, 0.95)
    assert large.landmarks.dtype == np.float32


@pytest.mark.usefixtures("package")
def test_requests_set_the_bar(settings):
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": PATH}
    picture = red_square(300, 400, (50, 60), 100)

    assert [face.score for face in detect_faces(picture)] == [0.95]
    assert len(detect_faces(picture, min_score=0.5)) == 2
    assert [face.score for face in detect_faces(picture, min_score=0.5, min_face_size=50)] == [0.6]


def test_threads_take_turns_and_load_once(package):
    detector = RetinaFaceDetector()
    pictures = [red_square(128, 128, (n, n), 40) for n in range(20)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda picture: detector.detect(picture, 0.5), pictures))

    assert package.fetches == 1
    assert [round(faces[0].box[0]) for faces in found] == list(range(20))


def test_a_failed_download_is_not_repeated_by_every_request(package, monkeypatch):
    package.fails = ConnectionError("no route to github.com from /srv/private")
    detector = RetinaFaceDetector()
    blank = np.zeros((50, 50, 3), np.uint8)

    for _ in range(3):
        with pytest.raises(DetectorUnavailable, match="UNIFACE_CACHE_DIR") as caught:
            detector.detect(blank, 0.5)
        assert "private" not in str(caught.value)
    assert package.fetches == 1

    now = time.monotonic()
    monkeypatch.setattr(retinaface.time, "monotonic", lambda: now + 61)
    package.fails = None
    assert detector.detect(blank, 0.5) == []
    assert package.fetches == 2


def test_the_reason_is_told_in_the_language_of_whoever_asks(package, monkeypatch):
    monkeypatch.setattr(retinaface, "_NO_WEIGHTS", translation.gettext_lazy("Save"))
    package.fails = RuntimeError("damaged")
    detector = RetinaFaceDetector()

    for language, text in (("en", "Save"), ("pt-br", "Salvar")):
        with translation.override(language), pytest.raises(DetectorUnavailable) as caught:
            detector.detect(np.zeros((50, 50, 3), np.uint8), 0.5)
        with translation.override(language):
            assert str(caught.value) == text


@pytest.mark.django_db
def test_the_api_names_the_cure_when_the_package_is_missing(api, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "uniface.constants", None)
    settings.RECOGNITION = settings.RECOGNITION | {"DETECTOR": PATH}

    response = api.post("/api/detect", {"image": upload()})

    assert response.status_code == 503
    assert response.json()["error"] == "detector_unavailable"
    assert "requirements-retinaface.txt" in response.json()["message"]
    assert (
        api.post("/api/embedding", {"image": upload(), "use_face_detection": "false"}).status_code
        == 200
    )
