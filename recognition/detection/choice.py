"""The choice of the detector by `settings.RECOGNITION["DETECTOR"]`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from recognition.conf import get_settings
from recognition.detection.base import FaceDetector, Scores
from recognition.detection.yunet import YuNetDetector, yunet_file
from recognition.exceptions import DetectorUnavailable

AUTO: Final = "auto"
DETECTORS: Final = {
    "mtcnn": "recognition.detection.mtcnn.MtcnnDetector",
    "yunet": "recognition.detection.yunet.YuNetDetector",
    "retinaface": "recognition.detection.retinaface.RetinaFaceDetector",
    "none": "recognition.detection.none.NoDetector",
}  # dotted path by short name

_IS_SET: Final = _("The settings name it (DETECTOR).")
_HAS_FILE: Final = _("Its file is in WEIGHTS_DIR.")
_NO_FILE: Final = _(
    "It comes along. YuNet, which is faster, is taken when its file is there: manage.py fetch_weights yunet."
)
_BAD_FILE: Final = _(
    "It comes along. The file of YuNet in WEIGHTS_DIR cannot be loaded: run manage.py verify_weights yunet."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The detector in use. `name` is a short name, or the dotted path of a third party's class."""

    name: str
    reason: str | Promise
    detector: FaceDetector

    @property
    def scores(self) -> Scores:
        return getattr(self.detector, "scores", Scores())


def chosen_detector() -> Choice:
    """Return the detector in use, and why it was chosen. Raise `ImproperlyConfigured` for an
    unusable dotted path.

    `auto` looks for YuNet's file once a process, when a detector is first needed.
    """
    settings = get_settings()
    return _chosen(settings.detector, settings.weights_dir)


@lru_cache(maxsize=1)
def _chosen(setting: str, weights_dir: Path) -> Choice:
    if setting != AUTO:
        path = DETECTORS.get(setting, setting)
        names = {path: name for name, path in DETECTORS.items()}
        return Choice(names.get(path, path), _IS_SET, _made(path))
    reason = _NO_FILE
    if yunet_file():
        yunet = YuNetDetector()
        try:
            yunet.load()
        except DetectorUnavailable:
            reason = _BAD_FILE
        else:
            return Choice("yunet", _HAS_FILE, yunet)
    return Choice("mtcnn", reason, _made(DETECTORS["mtcnn"]))


def _made(path: str) -> FaceDetector:
    try:
        detector = import_string(path)()
    except (ImportError, TypeError) as error:
        raise ImproperlyConfigured(
            f"DETECTOR is {path!r}, which cannot be used: {error}. Set it to auto, {', '.join(DETECTORS)}, "
            "or the dotted path of a class without arguments."
        ) from error
    if not isinstance(detector, FaceDetector):
        raise ImproperlyConfigured(f"DETECTOR is {path!r}, which has no detect() method.")
    return detector
