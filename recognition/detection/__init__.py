"""Face detection with the detector that is configured or available, one a process."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from recognition.conf import get_settings
from recognition.detection.base import (
    Face,
    FaceDetector,
    GlancingDetector,
    Scores,
)
from recognition.detection.choice import Choice, chosen_detector
from recognition.detection.none import NoDetector
from recognition.detection.scaling import scaled
from recognition.instrumentation import timed

__all__ = [
    "Choice",
    "Face",
    "FaceDetector",
    "GlancingDetector",
    "Scores",
    "chosen_detector",
    "detect_faces",
    "get_detector",
    "looks_for_faces",
]

# The first search is for faces from this part of the picture's shorter side.
_LARGE: Final = 1 / 6
# Faces narrower than this part of the largest one count as background: they have less than a quarter of
# its area.
_BACKGROUND: Final = 1 / 2
# Faces of at least this part of the largest one's side are of about the same size. In 28 of 917 LFW photos
# the second face was; the named person was the largest in 20 of them, and in all 52 where it was smaller.
_ALIKE: Final = 0.8
# Longer side of turned pictures for detectors without `glance`.
_TURNED_SIDE: Final = 640


def get_detector() -> FaceDetector:
    """Return the detector in use. Raise `ImproperlyConfigured` for an unusable dotted path."""
    return chosen_detector().detector


def looks_for_faces() -> bool:
    """Return False if the settings disable detection, because all pictures are crops."""
    return not isinstance(get_detector(), NoDetector)


@timed("detect")
def detect_faces(
    image: np.ndarray,
    *,
    min_score: float | None = None,
    min_face_size: float | None = None,
    scale: float = 1.0,
    all_faces: bool = True,
) -> list[Face]:
    """Return the faces of an H×W×3 uint8 RGB picture, largest first.

    Of faces that are about as large as the largest, the one nearest to the middle of the picture is the
    first: whoever takes or cuts a picture puts the person whom it shows there.

    Faces with a score below `min_score` (0 to 1) or a side below `min_face_size` (pixels of the
    full picture) are left out; None stands for `DETECTION_MIN_SCORE` and `DETECTION_MIN_SIZE`.
    `scale` is the size of `image` relative to the full picture; faces are returned in pixels of the
    full picture. Without `all_faces`, faces narrower than half of the largest may be missing,
    which is several times as fast if the largest is large.

    If no face is clearly upright, the picture is also searched turned by 90, 180 and 270 degrees.
    The turn with the highest score wins, and `rotation` of its faces says which one it was.
    """
    settings = get_settings()
    score = _least_score() if min_score is None else min_score
    size = settings.detection_min_size if min_face_size is None else min_face_size
    faces = _upright_faces(image, score, all_faces)
    if not any(_is_sure(face) for face in faces):
        bar = max((face.score for face in faces if face.is_upright), default=score)
        faces = _turned_faces(image, bar, all_faces) or faces
    faces = _middle_first(faces, *image.shape[:2])
    if scale != 1:
        faces = [face.scaled(1 / scale) for face in faces]
    return [face for face in faces if min(face.box[2:]) >= size]


def _middle_first(faces: list[Face], height: int, width: int) -> list[Face]:
    """Move the most central of the largest faces, which come first, to the beginning."""
    alike = [face for face in faces if face.area >= _ALIKE**2 * faces[0].area]
    if len(alike) < 2:
        return faces

    def distance(face: Face) -> float:
        left, top, wide, high = face.box
        return math.hypot(left + wide / 2 - width / 2, top + high / 2 - height / 2)

    first = min(alike, key=distance)
    return [first, *(face for face in faces if face is not first)]


def _least_score() -> float:
    given = get_settings().detection_min_score
    return chosen_detector().scores.least if given is None else given


def _is_sure(face: Face) -> bool:
    """Return whether this is surely a face, and upright.

    Detectors find some faces that lie on their side, with a lower score and inaccurate landmarks.
    """
    return face.score >= chosen_detector().scores.sure and face.is_upright


def _upright_faces(image: np.ndarray, score: float, all_faces: bool) -> list[Face]:
    detector = get_detector()
    if isinstance(detector, GlancingDetector) and not all_faces:
        known = _LARGE * min(image.shape[:2])  # no wider face is missing
        faces = detector.glance(image, score, known)
        if faces and _is_sure(faces[0]):
            wanted = _BACKGROUND * faces[0].box[2]
            return faces if wanted >= known else detector.glance(image, score, wanted)
    return detector.detect(image, score)


def _turned_faces(image: np.ndarray, min_score: float, all_faces: bool) -> list[Face]:
    """Return the faces of the turn with the highest score; empty if no face is sure."""
    score = max(min_score, chosen_detector().scores.sure)
    scale = min(1.0, get_settings().detection_max_side / max(image.shape[:2]))
    seen = scaled(image, scale)
    turns = {quarters: _sure_at_a_glance(_turned(seen, quarters), score) for quarters in (1, 2, 3)}
    best = max(turns, key=lambda quarters: turns[quarters])
    if not turns[best]:
        return []
    height, width = seen.shape[:2]
    faces = _upright_faces(_turned(seen, best), score, all_faces)
    return [
        _turned_back(face, best, width, height).scaled(1 / scale)
        for face in faces
        if _is_sure(face)
    ]


def _turned(image: np.ndarray, quarters: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, -quarters))  # clockwise


def _sure_at_a_glance(image: np.ndarray, score: float) -> float:
    """Return the score of the largest sure face, or 0."""
    detector = get_detector()
    if isinstance(detector, GlancingDetector):
        faces = detector.glance(image, score, _LARGE * min(image.shape[:2]))
    else:
        faces = detector.detect(scaled(image, min(1.0, _TURNED_SIDE / max(image.shape[:2]))), score)
    return next((face.score for face in faces if _is_sure(face)), 0.0)


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
