"""RetinaFace (Deng et al. 2019, arXiv:1905.00641) through `uniface`, which downloads its weights."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import Any, Final

import numpy as np
from django.utils.functional import Promise

from recognition.conf import get_settings
from recognition.detection.base import Face, clipped_box, largest_first
from recognition.detection.scaling import detection_scale, scaled
from recognition.exceptions import DetectorUnavailable
from recognition.sentences import gettext_lazy as _

logger = logging.getLogger(__name__)

_CONFIDENCE: Final = 0.3  # lowest score of a face, even if a request allows less
_STRIDE: Final = 32  # the network's largest stride; both sides are padded to a multiple of it
_CONNECT_SECONDS: Final = 10
_RETRY_SECONDS: Final = 60.0  # pause after a failed download

_NOT_INSTALLED: Final = _(
    "The detector RetinaFace is chosen and not installed. Have the administrator run "
    "'pip install -r requirements-retinaface.txt', or take DETECTOR out of the settings."
)
_NO_WEIGHTS: Final = _(
    "The weights of the detector RetinaFace cannot be fetched or loaded. Let the server reach "
    "github.com or huggingface.co once, or have the administrator copy retinaface_mnet_v2.onnx from "
    "another machine to the folder of UNIFACE_CACHE_DIR, or take DETECTOR out of the settings. The "
    "log names the cause."
)


class RetinaFaceDetector:
    """RetinaFace with MobileNetV2. Thread-safe: one picture at a time, on all cores.

    The weights are downloaded at the first use, verified by their hash and kept in
    `UNIFACE_CACHE_DIR`. Raise `DetectorUnavailable` when they or the package are missing.
    """

    def __init__(self) -> None:
        self._turn = Lock()
        self._network: Any = None
        self._problem: Promise | None = None  # why it could not be loaded, until `_retry_at`
        self._retry_at = 0.0

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """Return the faces; see `FaceDetector.detect`. It finds none below a score of 0.3."""
        height, width = image.shape[:2]
        scale = detection_scale(height, width, get_settings().detection_max_side)
        seen = _padded_bgr(scaled(image, scale))
        with self._turn:
            # Not thread-safe: the network stores the anchors of the current picture in an attribute.
            found = self._loaded().detect(seen)
        return largest_first(
            _face(item, scale, height, width) for item in found if item.confidence >= min_score
        )

    def _loaded(self) -> Any:
        # Without a pause, every request would wait for the failing download.
        if self._problem and time.monotonic() < self._retry_at:
            raise DetectorUnavailable(self._problem)
        if self._network is None:
            try:
                self._network = _load_network()
            except DetectorUnavailable as failure:
                self._problem, self._retry_at = failure.args[0], time.monotonic() + _RETRY_SECONDS
                raise
        return self._network


def _load_network() -> Any:
    try:
        from uniface.constants import RetinaFaceWeights
        from uniface.detection import RetinaFace
        from uniface.model_store import verify_model_weights
    except ImportError as error:
        logger.exception("RetinaFace is chosen and uniface cannot be imported")
        raise DetectorUnavailable(_NOT_INSTALLED) from error
    try:
        verify_model_weights(RetinaFaceWeights.MNET_V2, timeout=_CONNECT_SECONDS, max_retries=1)
        return RetinaFace(confidence_threshold=_CONFIDENCE, dynamic_size=True)
    except (OSError, RuntimeError) as error:
        logger.exception("The weights of RetinaFace cannot be fetched or loaded")
        raise DetectorUnavailable(_NO_WEIGHTS) from error


def _padded_bgr(image: np.ndarray) -> np.ndarray:
    """Return the picture as contiguous BGR, padded with black on the right and below."""
    height, width = image.shape[:2]
    margins = ((0, -height % _STRIDE), (0, -width % _STRIDE), (0, 0))
    return np.pad(np.ascontiguousarray(image[..., ::-1]), margins)


def _face(found: Any, scale: float, height: int, width: int) -> Face:
    box = clipped_box(np.asarray(found.bbox, np.float64) / scale, height, width)
    landmarks = (np.asarray(found.landmarks, np.float64) + 0.5) / scale - 0.5
    return Face(box, float(found.confidence), landmarks.astype(np.float32))
