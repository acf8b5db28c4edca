"""Face detection with the detector that `settings.RECOGNITION["DETECTOR"]` names, one a process."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from recognition.conf import get_settings
from recognition.detection.base import Face, FaceDetector
from recognition.detection.none import NoDetector
from recognition.detection.scaling import scaled
from recognition.observing import timed

__all__ = ["Face", "FaceDetector", "detect_faces", "get_detector", "looks_for_faces"]


# Detectors find some faces that lie on their side, with a lower score and inaccurate landmarks.
SURE_SCORE: Final = 0.95


def get_detector() -> FaceDetector:
    """Return the configured detector. Raise `ImproperlyConfigured` for an unusable dotted path."""
    return _detector(get_settings().detector)


def looks_for_faces() -> bool:
    """Return False if the settings disable detection, because all pictures are crops."""
    return not isinstance(get_detector(), NoDetector)


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


@timed("detect")
def detect_faces(
    image: np.ndarray,
    *,
    min_score: float | None = None,
    min_face_size: float | None = None,
    scale: float = 1.0,
) -> list[Face]:
    """Return the faces of an H×W×3 uint8 RGB picture, largest first.

    Faces with a score below `min_score` (0 to 1) or a side below `min_face_size` (pixels of the
    full picture) are left out; None stands for `DETECTION_MIN_SCORE` and `DETECTION_MIN_SIZE`.
    `scale` is the size of `image` relative to the full picture; faces are returned in pixels of the
    full picture.

    If no face is clearly upright, the picture is also searched turned by 90, 180 and 270 degrees.
    The turn with the highest score wins, and `rotation` of its faces says which one it was.
    """
    settings = get_settings()
    score = settings.detection_min_score if min_score is None else min_score
    size = settings.detection_min_size if min_face_size is None else min_face_size
    faces = get_detector().detect(image, score)
    if not any(_is_sure(face) for face in faces):
        faces = _turned_faces(image, score) or faces
    if scale != 1:
        faces = [face.scaled(1 / scale) for face in faces]
    return [face for face in faces if min(face.box[2:]) >= size]


def _is_sure(face: Face) -> bool:
    """Return whether this is surely a face, and more upright than lying on its side."""
    (left, right), mouth = face.landmarks[:2], face.landmarks[3:].mean(0)
    across, down = right - left, mouth - (left + right) / 2
    return face.score >= SURE_SCORE and across[0] > abs(across[1]) and down[1] > abs(down[0])


def _turned_faces(image: np.ndarray, min_score: float) -> list[Face]:
    """Return the faces of the turn with the highest score; empty if no face is sure."""
    scale = min(1.0, get_settings().detection_max_side / max(image.shape[:2]))
    seen = scaled(image, scale)
    height, width = seen.shape[:2]
    best: list[Face] = []
    for quarters in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(seen, -quarters))  # clockwise
        faces = get_detector().detect(turned, max(min_score, SURE_SCORE))
        faces = [face for face in faces if _is_sure(face)]
        if faces and (not best or faces[0].score > best[0].score):
            best = [_turned_back(face, quarters, width, height) for face in faces]
    return [face.scaled(1 / scale) for face in best]


def _turned_back(face: Face, quarters: int, width: int, height: int) -> Face:
    """Map a face found after `quarters` clockwise quarter turns to the original width × height."""
    (x, y, w, h), points = face.box, face.landmarks
    if quarters == 1:
        box, points = (
            (y, height - x - w, h, w),
            np.column_stack([points[:, 1], height - 1 - points[:, 0]]),
        )
    elif quarters == 2:
        box = (width - x - w, height - y - h, w, h)
        points = np.array([width - 1, height - 1]) - points
    else:
        box, points = (
            (width - y - h, x, h, w),
            np.column_stack([width - 1 - points[:, 1], points[:, 0]]),
        )
    return replace(face, box=box, landmarks=points.astype(np.float32), rotation=90 * quarters)
