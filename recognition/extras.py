"""Published files other than networks that `manage.py fetch_weights` can install, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from recognition.networks import PublishedWeights

_YUNET_GIVES: Final = _("a face detector with five landmarks, faster than the bundled one")
_LIVENESS: Final = (
    "https://github.com/minivision-ai/Silent-Face-Anti-Spoofing/raw/"
    "b6d5f04ad78778917853b25c778acef6d5626d15/resources/anti_spoof_models/"
)
_LIVENESS_GIVES: Final = _("half of the liveness check, which needs both files")
_LIVENESS_COSTS: Final = _("1.9 MB; about 2 ms a face on a processor")
_LIVENESS_LICENCE: Final = "Apache-2.0 (minivision-ai)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """The files of one purpose, by their names in the weights folder.

    A publisher's files are needed together. The first publisher is the default.
    """

    name: str
    description: str | Promise
    published: dict[str, PublishedWeights]


EXTRAS: Final[dict[str, Extra]] = {
    extra.name: extra
    for extra in (
        Extra(
            name="yunet",
            description=_("YuNet: finds faces"),
            published={
                "yunet_n_dynamic.onnx": PublishedWeights(
                    "libfacedetection",
                    "https://github.com/ShiqiYu/libfacedetection.train/raw/"
                    "dca340aa082c71081a68d17db8e58b33a58a914b/onnx/yunet_n_dynamic.onnx",
                    "Apache-2.0 (Shiqi Yu); trained on WIDER FACE",
                    _YUNET_GIVES,
                    _("323 kB; 24 ms for 640×480 pixels on one thread"),
                    "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
                ),
                "face_detection_yunet_2023mar.onnx": PublishedWeights(
                    "opencv",
                    "https://github.com/opencv/opencv_zoo/raw/"
                    "82b38c8f98e7b52aa171400f3e4c722352d0669f/models/face_detection_yunet/"
                    "face_detection_yunet_2023mar.onnx",
                    "MIT (OpenCV Zoo); trained on WIDER FACE",
                    _YUNET_GIVES,
                    _("233 kB; not measured here"),
                    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
                ),
            },
        ),
        Extra(
            name="liveness",
            description=_("MiniFASNet: tells faces from pictures of faces"),
            published={
                "2.7_80x80_MiniFASNetV2.pth": PublishedWeights(
                    "minivision-ai",
                    f"{_LIVENESS}2.7_80x80_MiniFASNetV2.pth",
                    _LIVENESS_LICENCE,
                    _LIVENESS_GIVES,
                    _LIVENESS_COSTS,
                    "a5eb02e1843f19b5386b953cc4c9f011c3f985d0ee2bb9819eea9a142099bec0",
                ),
                "4_0_0_80x80_MiniFASNetV1SE.pth": PublishedWeights(
                    "minivision-ai",
                    f"{_LIVENESS}4_0_0_80x80_MiniFASNetV1SE.pth",
                    _LIVENESS_LICENCE,
                    _LIVENESS_GIVES,
                    _LIVENESS_COSTS,
                    "84ee1d37d96894d5e82de5a57df044ef80a58be2b218b5ed7cdfd875ec2f5990",
                ),
            },
        ),
    )
}
