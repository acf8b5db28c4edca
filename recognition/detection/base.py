"""The interface of face detectors, and the faces that they return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A detected face, in pixels of the upright picture.

    `box` is (x, y, width, height), clipped to the picture. `landmarks` is 5×2 float32 (x, y): left
    eye, right eye, nose, left and right mouth corner, left and right as seen in the picture; they
    are not clipped. `rotation` (0, 90, 180 or 270 degrees) is how far the picture must be turned
    clockwise for the face to be upright; left and right then refer to the turned picture.
    """

    box: tuple[float, float, float, float]
    score: float  # 0 to 1
    landmarks: np.ndarray
    rotation: int = 0  # degrees

    def scaled(self, factor: float) -> Face:
        """Return the same face in a picture scaled by `factor`."""
        left, top, width, height = self.box
        return replace(
            self,
            box=(factor * left, factor * top, factor * width, factor * height),
            landmarks=((self.landmarks + 0.5) * factor - 0.5).astype(np.float32),
        )

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Face:
        """Return the face from what `as_dict` returned; further fields are ignored."""
        landmarks = np.array(record["landmarks"], np.float32)
        return cls(tuple(record["box"]), record["score"], landmarks, record.get("rotation", 0))

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]

    @property
    def is_upright(self) -> bool:
        """Whether the landmarks are more upright than lying on their side or head."""
        (left, right), mouth = self.landmarks[:2], self.landmarks[3:].mean(0)
        across, down = right - left, mouth - (left + right) / 2
        return bool(across[0] > abs(across[1]) and down[1] > abs(down[0]))

    def as_dict(self) -> dict[str, Any]:
        """Return the face for JSON: box [x, y, w, h] and five landmarks [x, y] in pixels, score,
        degrees."""
        return {
            "box": [round(float(value), 2) for value in self.box],
            "score": round(float(self.score), 4),
            "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.landmarks],
            "rotation": self.rotation,
        }


def clipped_box(
    corners: Sequence[float] | np.ndarray, height: int, width: int
) -> tuple[float, float, float, float]:
    """Return (x, y, width, height) of the part of a box (left, top, right, bottom) inside the picture."""
    left, right = np.clip([corners[0], corners[2]], 0, width)
    top, bottom = np.clip([corners[1], corners[3]], 0, height)
    return float(left), float(top), float(right - left), float(bottom - top)


def largest_first(faces: Iterable[Face]) -> list[Face]:
    """Return the faces that lie in the picture at all, largest first."""
    return sorted((f for f in faces if f.area > 0), key=lambda face: face.area, reverse=True)


@dataclass(frozen=True, slots=True)
class Scores:
    """Limits for the scores (0 to 1) of one detector. Scores of different detectors do not compare."""

    least: float = 0.9  # default of DETECTION_MIN_SCORE: below, it is no face
    sure: float = 0.95  # from here on, the picture need not be turned to find another face
    good: float = 0.95  # below, the quality check doubts the face


@runtime_checkable
class FaceDetector(Protocol):
    """A face detector. Several threads use it at once, and it must not fail on a valid picture.

    If something it needs is missing, it raises `DetectorUnavailable`. A detector with other scores
    than MTCNN has an attribute `scores`.
    """

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """Return every face of at least `min_score` in an H×W×3 uint8 RGB picture, largest first."""
        ...


@runtime_checkable
class GlancingDetector(FaceDetector, Protocol):
    """A detector that finds large faces faster than all faces."""

    def glance(self, image: np.ndarray, min_score: float, least_face: float) -> list[Face]:
        """Return the faces as `detect` does; some narrower than `least_face` pixels may be missing."""
        ...
