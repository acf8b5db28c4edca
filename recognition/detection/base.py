"""What a detector finds, and what it must be able to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face, in pixels of the upright picture it was found in.

    `box` is (x, y, width, height), clipped to the picture. `landmarks` is 5×2 float32 (x, y):
    left eye, right eye, nose, left and right mouth corner, left and right as seen in the
    picture; they are not clipped, so they may lie outside. `rotation` is by how many degrees (0, 90,
    180, 270) the picture must be turned clockwise for the face to stand upright; then left and right
    are as seen in the picture so turned.
    """

    box: tuple[float, float, float, float]
    score: float  # 0 to 1
    landmarks: np.ndarray
    rotation: int = 0  # degrees

    def scaled(self, factor: float) -> Face:
        """The same face in a picture with `factor` times as many pixels a side."""
        left, top, width, height = self.box
        return replace(
            self,
            box=(factor * left, factor * top, factor * width, factor * height),
            landmarks=((self.landmarks + 0.5) * factor - 0.5).astype(np.float32),
        )

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]

    def as_dict(self) -> dict[str, Any]:
        """The face as JSON has it: box [x, y, w, h], score, five landmarks [x, y]; pixels; degrees."""
        return {
            "box": [round(float(value), 2) for value in self.box],
            "score": round(float(self.score), 4),
            "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.landmarks],
            "rotation": self.rotation,
        }


@runtime_checkable
class FaceDetector(Protocol):
    """Used by several threads at once; must never fail on a valid picture.

    What it needs and does not have is a `DetectorUnavailable`.
    """

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """Every face of at least `min_score` in an H×W×3 uint8 RGB picture, largest first."""
        ...
