"""Find faces: a detector chosen by `settings.RECOGNITION["DETECTOR"]`, one a process."""

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

__all__ = ["Face", "FaceDetector", "detect_faces", "get_detector", "looks_for_faces"]


# Of faces that lie on their side the detectors find some, less surely and with landmarks that are off.
SURE_SCORE: Final = 0.95


def get_detector() -> FaceDetector:
    """The configured detector; `ImproperlyConfigured` if its dotted path leads nowhere."""
    return _detector(get_settings().detector)


def looks_for_faces() -> bool:
    """False where the settings say that every picture is a crop of a face already."""
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


def detect_faces(
    image: np.ndarray,
    *,
    min_score: float | None = None,
    min_face_size: float | None = None,
    scale: float = 1.0,
) -> list[Face]:
    """The faces of an H×W×3 uint8 RGB picture, largest first.

    Faces below `min_score` (0 to 1), or whose box has a side shorter than `min_face_size` (pixels of the
    picture), are left out; None takes `DETECTION_MIN_SCORE` and `DETECTION_MIN_SIZE`. `scale` says that
    the picture was read at so much of its size: the faces are in pixels of its full size all the same.

    When no face is surely upright the picture is also looked at turned by 90, 180 and 270 degrees; the
    turn that shows the surest faces counts, and they say by `rotation` which it was.
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
    """Whether it is a face at all, and nearer to upright than to lying on its side."""
    (left, right), mouth = face.landmarks[:2], face.landmarks[3:].mean(0)
    across, down = right - left, mouth - (left + right) / 2
    return face.score >= SURE_SCORE and across[0] > abs(across[1]) and down[1] > abs(down[0])


def _turned_faces(image: np.ndarray, min_score: float) -> list[Face]:
    """The faces of the picture at the turn that shows the surest; none where none is sure."""
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
    """A face found after `quarters` clockwise, in pixels of the picture of this size before."""
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
