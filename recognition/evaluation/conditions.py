"""Degraded copies of crops, to measure recognition under poor conditions.

They are made from the aligned crops, so they measure the network and not the detector.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from recognition.alignment import TEMPLATE, TEMPLATE_SIZE
from recognition.evaluation.verification import verify_all, verify_between
from recognition.metrics import tar_at_fmr, threshold_at_fmr

BLUR_PIXELS: Final = 2.0  # standard deviation
DARK_SHARE: Final = 0.25  # factor of the pixel values
TURNED_DEGREES: Final = 10
JPEG_QUALITY: Final = 20
COVER: Final = 128  # grey level of the rectangle over eyes or mouth


def _grey(crop: np.ndarray) -> np.ndarray:
    import cv2

    return np.repeat(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _half_size(crop: np.ndarray) -> np.ndarray:
    import cv2

    half = cv2.resize(crop, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(half, crop.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _blur(crop: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(crop, (0, 0), BLUR_PIXELS)


def _dark(crop: np.ndarray) -> np.ndarray:
    return np.round(crop * DARK_SHARE).astype(np.uint8)


def _turned(crop: np.ndarray) -> np.ndarray:
    import cv2

    middle = (TEMPLATE_SIZE / 2, TEMPLATE_SIZE / 2)
    matrix = cv2.getRotationMatrix2D(middle, TURNED_DEGREES, 1)
    size = (TEMPLATE_SIZE, TEMPLATE_SIZE)
    return cv2.warpAffine(crop, matrix, size, borderMode=cv2.BORDER_REPLICATE)


def _covered(points: Sequence[int], margin: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that covers these template points, with `margin` (x, y) pixels around them."""
    left, top = (TEMPLATE[points].min(0) - margin).round().astype(int)
    right, bottom = (TEMPLATE[points].max(0) + margin).round().astype(int)

    def cover(crop: np.ndarray) -> np.ndarray:
        covered = crop.copy()
        covered[top:bottom, left:right] = COVER
        return covered

    return cover


def _jpeg(crop: np.ndarray) -> np.ndarray:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(file).convert("RGB"))


# Each function takes and returns 112×112×3 uint8 RGB.
CONDITIONS: Final[Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "grey": _grey,
    "half size": _half_size,
    "blur": _blur,
    "dark": _dark,
    f"turned {TURNED_DEGREES}°": _turned,
    "eyes covered": _covered([0, 1], (16, 9)),
    "mouth covered": _covered([3, 4], (12, 12)),
    f"JPEG {JPEG_QUALITY}": _jpeg,
}


@dataclass(frozen=True, slots=True)
class ConditionFigures:
    """How well people are told apart when pictures are in a condition; all values are shares.

    `tar_both`: both pictures are in the condition. `tar_one`: one is, and the other is unchanged.
    Both are at the threshold with the given false-match rate for such pairs. `tar_kept` and
    `fmr_kept`: one picture is in the condition, at the threshold of unchanged pictures, as a
    service uses it.
    """

    tar_both: float
    tar_one: float
    tar_kept: float
    fmr_kept: float


def measure_conditions(
    crops: np.ndarray,
    plain: np.ndarray,
    people: Sequence[str],
    embed: Callable[[Sequence[np.ndarray]], np.ndarray],
    fmr: float,
    track: Callable[[Any], Any] = lambda items: items,
) -> dict[str, ConditionFigures]:
    """Return the figures of each condition, and of the unchanged crops under "none".

    `crops` are N×112×112×3 uint8 RGB. `embed` returns N×D float32 of length 1 for crops, and
    `plain` is its result for these crops.
    """
    pairs = verify_all(plain, people)
    threshold = threshold_at_fmr(pairs.similarities, pairs.same, fmr)
    kept_fmr, kept_tar = pairs.at(threshold)
    figures = {"none": ConditionFigures(kept_tar, kept_tar, kept_tar, kept_fmr)}
    for name, change in track(CONDITIONS.items()):
        vectors = embed([change(crop) for crop in crops])
        both, one = verify_all(vectors, people), verify_between(vectors, plain, people)
        kept_fmr, kept_tar = one.at(threshold)
        figures[name] = ConditionFigures(
            tar_at_fmr(both.similarities, both.same, fmr),
            tar_at_fmr(one.similarities, one.same, fmr),
            kept_tar,
            kept_fmr,
        )
    return figures
