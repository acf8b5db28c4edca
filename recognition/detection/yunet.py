"""YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y) through OpenCV, from a file that is fetched."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np

from recognition.conf import get_settings
from recognition.detection.base import Face, Scores, clipped_box, largest_first
from recognition.detection.pool import NetworkPool
from recognition.detection.scaling import scaled
from recognition.exceptions import DetectorUnavailable
from recognition.extras import EXTRAS
from recognition.sentences import gettext_lazy as _

logger = logging.getLogger(__name__)

_FLOOR: Final = 0.5  # lowest score, whatever the request asks for
_MOST_SHARED: Final = 0.3  # intersection over union above which two boxes are one face
# YuNet finds faces from 16 pixels on; its landmarks are best in faces of 32 to 200 pixels. So the picture
# is searched twice: a small copy for the large faces, and a large one for the others.
_SMALLEST: Final = 16
_WELL_PLACED: Final = 32
_SMALL_SIDE: Final = 192  # shorter side of the small copy
_OTHER_SIDES: Final = (
    256,
    128,
)  # tried if nothing is found: a face that fills the frame may need one
# Small pictures are enlarged for the second search, by so much and up to this longer side.
_ENLARGED: Final = 1.5
_ENLARGED_SIDE: Final = 960

_MISSING: Final = _(
    "The weights of the detector YuNet are not there or cannot be loaded. Have the administrator run "
    "'manage.py fetch_weights yunet' and restart the server, or set DETECTOR=mtcnn. The log names the cause."
)


def yunet_file() -> Path | None:
    """Return the path of the weights in `WEIGHTS_DIR`, or None.

    libfacedetection's file wins over OpenCV's copy.
    """
    folder = get_settings().weights_dir
    paths = (folder / name for name in EXTRAS["yunet"].published)
    return next((path for path in paths if path.is_file()), None)


class YuNetDetector:
    """YuNet, for several threads. Raise `DetectorUnavailable` if its file is missing or unusable."""

    scores: Final = Scores(least=0.8, sure=0.91, good=0.85)

    def __init__(self) -> None:
        self._pool = NetworkPool(_load_network)

    def load(self) -> None:
        """Load a network, to learn whether the file is usable."""
        with self._pool.network():
            pass

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """Return the faces; see `FaceDetector.detect`. YuNet finds none below a score of 0.5."""
        longer = max(image.shape[:2])
        small = _limited_scale(image, _SMALL_SIDE / min(image.shape[:2]))
        enlarged = max(1.0, min(_ENLARGED, _ENLARGED_SIDE / longer))
        large = _limited_scale(image, enlarged)
        wide = [
            face
            for face in self._found(image, min_score, small)
            if face.box[2] * small >= _WELL_PLACED
        ]
        others = [
            face
            for face in self._found(image, min_score, large)
            if not any(_shared(face, other) > _MOST_SHARED for other in wide)
        ]
        if faces := largest_first(wide + others):
            return faces
        scales = (_limited_scale(image, side / min(image.shape[:2])) for side in _OTHER_SIDES)
        return next(filter(None, (self._found(image, min_score, scale) for scale in scales)), [])

    def glance(self, image: np.ndarray, min_score: float, least_face: float) -> list[Face]:
        """Return the large faces; see `GlancingDetector.glance`."""
        scale = max(_SMALL_SIDE / min(image.shape[:2]), _SMALLEST / least_face)
        return self._found(image, min_score, _limited_scale(image, scale))

    def _found(self, image: np.ndarray, min_score: float, scale: float) -> list[Face]:
        seen = np.ascontiguousarray(scaled(image, scale)[..., ::-1])
        with self._pool.network() as network:
            network.setInputSize((seen.shape[1], seen.shape[0]))
            _ok, rows = network.detect(seen)
        rows = [] if rows is None else [row for row in rows if row[14] >= min_score]
        height, width = image.shape[:2]
        return largest_first(_face(row, scale, height, width) for row in rows)


def _load_network() -> Any:
    import cv2

    path = yunet_file()
    if path is None:
        logger.error("YuNet is chosen and has no file in WEIGHTS_DIR")
        raise DetectorUnavailable(_MISSING)
    try:
        network = cv2.FaceDetectorYN.create(str(path), "", (64, 64), _FLOOR, _MOST_SHARED, 5_000)
        for size in ((64, 64), (96, 32)):  # a file of fixed size fails at another
            network.setInputSize(size)
            network.detect(np.zeros((size[1], size[0], 3), np.uint8))
    except cv2.error as error:
        logger.exception("The weights of YuNet cannot be loaded")
        raise DetectorUnavailable(_MISSING) from error
    return network


def _limited_scale(image: np.ndarray, scale: float) -> float:
    return float(min(scale, get_settings().detection_max_side / max(image.shape[:2])))


def _face(row: np.ndarray, scale: float, height: int, width: int) -> Face:
    """Convert a row: box, eyes, nose, mouth corners (left in the picture first), score."""
    x, y, w, h = row[:4].astype(np.float64) / scale
    box = clipped_box((x, y, x + w, y + h), height, width)
    landmarks = row[4:14].reshape(5, 2) / scale
    return Face(box, float(row[14]), landmarks.astype(np.float32))


def _shared(one: Face, other: Face) -> float:
    """Return the intersection over union of two boxes."""
    (x, y, w, h), (u, v, a, b) = one.box, other.box
    shared = max(0.0, min(x + w, u + a) - max(x, u)) * max(0.0, min(y + h, v + b) - max(y, v))
    return float(shared / (one.area + other.area - shared))
