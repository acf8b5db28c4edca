"""RetinaFace (Deng et al. 2019, arXiv:1905.00641) through `uniface`, which fetches its weights."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import Any, Final

import numpy as np
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from recognition.conf import get_settings
from recognition.detection.base import Face
from recognition.detection.scaling import detection_scale, scaled
from recognition.exceptions import DetectorUnavailable

logger = logging.getLogger(__name__)

_CONFIDENCE: Final = 0.3  # below it nothing is a face, whatever the request asks for
_STRIDE: Final = 32  # of the network's coarsest features: both sides are made a multiple of it
_CONNECT_SECONDS: Final = 10
_RETRY_SECONDS: Final = 60.0  # until a download that failed is tried again

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
    """Safe in threads: one picture at a time, which ONNX Runtime works on with every core.

    The weights (with MobileNetV2) are fetched at the first use, checked by their hash and kept in
    `UNIFACE_CACHE_DIR`. `DetectorUnavailable` when they or the package are not to be had.
    """

    def __init__(self) -> None:
        self._turn = Lock()
        self._network: Any = None
        self._problem: Promise | None = None  # why it could not be loaded, until `_retry_at`
        self._retry_at = 0.0

    def detect(self, image: np.ndarray, min_score: float) -> list[Face]:
        """See `FaceDetector.detect`; it finds none below 0.3."""
        height, width = image.shape[:2]
        scale = detection_scale(height, width, get_settings().detection_max_side)
        seen = _padded_bgr(scaled(image, scale))
        with self._turn:
            # Its anchors are an attribute of the network, made anew for each picture.
            found = self._loaded().detect(seen)
        faces = [
            _face(item, scale, height, width) for item in found if item.confidence >= min_score
        ]
        return sorted(
            (face for face in faces if face.area > 0), key=lambda face: face.area, reverse=True
        )

    def _loaded(self) -> Any:
        # Without a pause every request would wait for a download that does not come.
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
    """The picture as the package wants it, with black to the right and below."""
    height, width = image.shape[:2]
    margins = ((0, -height % _STRIDE), (0, -width % _STRIDE), (0, 0))
    return np.pad(np.ascontiguousarray(image[..., ::-1]), margins)


def _face(found: Any, scale: float, height: int, width: int) -> Face:
    left, right = np.clip(np.asarray(found.bbox, np.float64)[[0, 2]] / scale, 0, width)
    top, bottom = np.clip(np.asarray(found.bbox, np.float64)[[1, 3]] / scale, 0, height)
    box = (float(left), float(top), float(right - left), float(bottom - top))
    landmarks = (np.asarray(found.landmarks, np.float64) + 0.5) / scale - 0.5
    return Face(box, float(found.confidence), landmarks.astype(np.float32))
