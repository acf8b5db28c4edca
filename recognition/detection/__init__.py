"""Find faces: a detector chosen by `settings.RECOGNITION["DETECTOR"]`, one a process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from recognition.conf import get_settings
from recognition.detection.base import Face, FaceDetector

__all__ = ["Face", "FaceDetector", "detect_many", "get_detector"]


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


def detect_many(images: Sequence[np.ndarray]) -> list[list[Face]]:
    """The faces of each picture, in the order of `images` (each H×W×3 uint8 RGB)."""
    return [get_detector().detect(image) for image in images]
