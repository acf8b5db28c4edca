"""Find faces: a detector chosen by `settings.RECOGNITION["DETECTOR"]`, one a process."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from recognition.conf import get_settings
from recognition.detection.base import Face, FaceDetector

__all__ = ["Face", "FaceDetector", "detect_faces", "get_detector"]


def get_detector() -> FaceDetector:
    """The configured detector; `ImproperlyConfigured` if its dotted path leads nowhere."""
    return _detector(get_settings().detector)


@lru_cache(maxsize=1)
def _detector(path: str) -> FaceDetector:
    try:
        detector = import_string(path)()
    except (ImportError, TypeError) as error:
        raise ImproperlyConfigured(
            f"RECOGNITION['DETECTOR'] is {path!r}, which cannot be used: {error}. Give the dotted "
            "path of a class without arguments, such as recognition.detection.mtcnn.MtcnnDetector."
        ) from error
    if not isinstance(detector, FaceDetector):
        raise ImproperlyConfigured(
            f"RECOGNITION['DETECTOR'] is {path!r}, which has no detect() method."
        )
    return detector


def detect_faces(
    image: np.ndarray, *, min_score: float | None = None, min_size: float | None = None
) -> list[Face]:
    """The faces of an H×W×3 uint8 RGB picture, largest first.

    Faces below `min_score` (0 to 1), or whose box has a side shorter than `min_size` (pixels of the
    picture), are left out; None takes `DETECTION_MIN_SCORE` and `DETECTION_MIN_SIZE`.
    """
    settings = get_settings()
    score = settings.detection_min_score if min_score is None else min_score
    size = settings.detection_min_size if min_size is None else min_size
    faces = get_detector().detect(image, score)
    return [face for face in faces if min(face.box[2:]) >= size]
