"""Face quality: how suitable a face is for recognition, and the reasons against it.

It is measured on the aligned crop and the five landmarks. A reason by itself rejects nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np
from django.utils.functional import Promise

from recognition.detection import Face, chosen_detector
from recognition.sentences import gettext_lazy as _

# The limits were chosen with 108 photos, degraded step by step and embedded by our MobileNetV3-Large.
# No original photo exceeds a limit. A degraded photo exceeds one when the cosine between its embedding
# and the original's falls to about 0.9 on average (two of three photos do at 0.85), or when the
# detector misses faces: a tenth at a roll of 20 degrees, 40 % at 35. Motion blur is not detected.
# The limit for the score belongs to the detector: `Scores.good`.
MIN_WIDTH: Final = 40  # pixels; cosine 0.976 at 40, 0.956 at 30, 0.850 at 20
MIN_SHARPNESS: Final = 10.0  # 2nd percentile of the originals: 42
MIN_BRIGHTNESS: Final = 50.0  # 2nd percentile of the originals: 87
MAX_BRIGHTNESS: Final = 210.0  # 98th percentile of the originals: 183
MIN_CONTRAST: Final = 15.0  # 2nd percentile of the originals: 24
MAX_YAW: Final = 40.0  # degrees; 98th percentile of the originals: 37
MAX_ROLL: Final = 30.0  # degrees; 98th percentile of the originals: 15
MIN_LIVENESS: Final = 0.5  # 92 % of 593 press photos of LFW have more; docs/liveness.md
MIN_SHARE: Final = 0.8  # not measured; a second face a quarter as large may be the intended one

# Of 917 LFW photos 80 have several faces. The named person was the largest face in all 52 photos whose
# second face had less than 0.8 of its side, and in 20 of the 28 others (first failure: 0.85). Half is a margin
# for photos that are less well centred; 63 of the 917 are then unclear.
UNCLEAR_FROM: Final = 0.5  # side (root of the area) of the second face, as a part of the largest's

# The lowest value of 36,000 aligned face crops is 12.1. Black, white and linear gradients have less than
# 0.5, a radial gradient 2.5, a gradient in a poor JPEG 5, noise of 15 grey levels standard deviation 8.
MIN_STRUCTURE: Final = 9.0
_CELLS: Final = 14  # cells a side; a cell has 8 pixels, about the size of an eye in a crop

# Rows and columns of a 112×112 crop that show skin in every pose, not hair or background.
_INNER: Final = (slice(24, 104), slice(20, 92))
# Distance of the nose tip from the plane of eyes and mouth, in eye distances.
_NOSE_DEPTH: Final = 0.48


@dataclass(frozen=True, slots=True)
class QualityReason:
    """One reason against a face: a stable code, the measured value, and the limit."""

    code: str
    given: float = 0.0
    expected: float = 0.0

    @property
    def message(self) -> str:
        """The reason in the active language: measured value, expected value, what to do."""
        return reason_message(self.code, self.as_record())

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceQuality:
    """The measured quality of a face and the reasons against it.

    `width` and `eye_distance` are pixels of the picture. `sharpness` is the variance of the
    Laplacian, `brightness` the mean and `contrast` the standard deviation of the crop's inner part,
    in grey levels of 0 to 255. `yaw` and `roll` are degrees, see `head_pose`. `faces` is the number
    of faces in the picture and `share` the face's part of their total area, both None when each
    face is judged alone. `liveness` is None unless it was asked for, see `recognition.liveness`.
    Values that need a face are None without one.
    """

    score: float | None = None
    width: float | None = None
    eye_distance: float | None = None
    sharpness: float
    brightness: float
    contrast: float
    yaw: float | None = None
    roll: float | None = None
    faces: int | None = None
    share: float | None = None
    liveness: float | None = None
    reasons: tuple[QualityReason, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.reasons

    @property
    def seems_live(self) -> bool:
        """Whether the liveness was asked for, and is no reason against the face."""
        return self.liveness is not None and self.liveness >= MIN_LIVENESS

    def as_record(self) -> dict[str, Any]:
        """Return the values and reason codes for storing as JSON; see `from_record`."""
        numbers = {item.name: getattr(self, item.name) for item in fields(self)[:-1]}
        return numbers | {"reasons": [reason.as_record() for reason in self.reasons]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FaceQuality:
        """Return the quality from what `as_record` returned; unknown fields are ignored."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        return cls(**values | {"reasons": tuple(QualityReason(**r) for r in record["reasons"])})


# The messages; `given` and `expected` are integers, percentages for score and liveness.
_SENTENCES: Final[dict[str, str | Promise]] = {
    "no_face": _(
        "No face was found in the picture, and one was expected. Send a picture in which a face is "
        "seen from the front, well lit and at least 40 pixels wide."
    ),
    "low_score": _(
        "It is only %(given)d %% sure that this is a face; at least %(expected)d %% are expected. Look "
        "at the picture, and send one in which the face is seen plainly and uncovered."
    ),
    "small_face": _(
        "The face is %(given)d pixels wide; at least %(expected)d are expected. Send a larger picture, "
        "or take one from nearer."
    ),
    "blurred": _(
        "The face is blurred: its sharpness is %(given)d, and at least %(expected)d is expected. Send a "
        "picture taken with a still camera and the face in focus."
    ),
    "too_dark": _(
        "The face is too dark: its brightness is %(given)d of 255, and at least %(expected)d is "
        "expected. Send a picture with light from the front."
    ),
    "too_bright": _(
        "The face is too bright: its brightness is %(given)d of 255, and at most %(expected)d is "
        "expected. Send a picture with softer light or a shorter exposure."
    ),
    "low_contrast": _(
        "The face has little contrast: %(given)d, where at least %(expected)d is expected. Send a "
        "picture without haze, glare or an over-exposed background."
    ),
    "turned_away": _(
        "The face is turned to the side by about %(given)d degrees; at most %(expected)d are expected. "
        "Send a picture in which the face looks into the camera."
    ),
    "tilted": _(
        "The head is tilted by %(given)d degrees; at most %(expected)d are expected. Turn the picture "
        "upright, or send one in which the head is held straight."
    ),
    "not_live": _(
        "It may be a picture of a picture, on paper or on a screen: %(given)d %% speak for a face before "
        "the camera; at least %(expected)d %% are expected. Look at the person, or take another picture."
    ),
    "several_faces": _(
        "There are several faces in the picture, and the one taken has only %(given)d %% of their area; "
        "at least %(expected)d %% are expected. Send a picture that shows this person alone."
    ),
}


def reason_message(code: str, numbers: Mapping[str, float]) -> str:
    """Return the sentence for a reason code in the active language.

    `numbers` has `given` and `expected`. Where both would read the same, as 94.7 and 95 do, `given` is
    rounded away from the limit.
    """
    given, expected = numbers["given"], round(numbers["expected"])
    shown = round(given)
    if shown == expected:
        shown = math.floor(given) if given < expected else math.ceil(given)
    return str(_SENTENCES[code]) % {"given": shown, "expected": expected}


def face_quality(crop: np.ndarray, face: Face, among: Sequence[Face] = ()) -> FaceQuality:
    """Judge an aligned face.

    `crop` is 112×112×3 uint8 RGB, `face` its place in the picture. `among` holds all faces of the
    picture; leave it out to judge the face alone.
    """
    yaw, roll = head_pose(face.landmarks)
    roll = (roll + face.rotation + 180) % 360 - 180
    return _with_reasons(
        score=round(float(face.score), 4),
        width=round(float(face.box[2]), 1),
        eye_distance=round(_eye_distance(face.landmarks), 1),
        yaw=round(yaw, 1),
        roll=round(roll, 1),
        faces=len(among) or None,
        share=round(float(face.area / sum(f.area for f in among)), 3) if among else None,
        **_light_figures(crop),
    )


def with_liveness(quality: FaceQuality, liveness: float) -> FaceQuality:
    """Return the quality of a face with its liveness (0 to 1), which may be a reason against it."""
    score = round(liveness, 4)
    doubt = QualityReason("not_live", 100 * score, 100 * MIN_LIVENESS)
    reasons = (doubt, *quality.reasons) if score < MIN_LIVENESS else quality.reasons
    return replace(quality, liveness=score, reasons=reasons)


def is_unclear_who_is_meant(faces: Sequence[Face]) -> bool:
    """Return whether it is unclear which of a picture's faces (largest first) is meant.

    It is when the second face has at least half the side of the largest; smaller ones are background.
    """
    return len(faces) > 1 and bool(faces[1].area >= UNCLEAR_FROM**2 * faces[0].area)


def crop_quality(crop: np.ndarray, *, looked_for_face: bool) -> FaceQuality:
    """Judge a 112×112×3 uint8 RGB crop without a detected face.

    `looked_for_face` says whether detection ran and found none, which is a reason against the crop.
    """
    quality = _with_reasons(**_light_figures(crop))
    if not looked_for_face:
        return quality
    return replace(quality, faces=0, reasons=(QualityReason("no_face"), *quality.reasons))


def has_structure(crop: np.ndarray) -> bool:
    """Return whether a 112×112×3 uint8 RGB crop has details of the size of an eye or a mouth.

    The grey levels are averaged in 14×14 cells, which suppresses noise. The Laplacian of the cells
    removes gradients. At least a quarter of the cells must differ clearly.
    """
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    curvature = cv2.Laplacian(cells, cv2.CV_32F)[1:-1, 1:-1]
    return _quantile(np.abs(curvature - _quantile(curvature, 0.5)), 0.75) >= MIN_STRUCTURE


def _quantile(values: np.ndarray, share: float) -> float:
    """Return what `np.quantile` returns, which takes ten times as long for so few values."""
    ordered: list[float] = sorted(values.ravel().tolist())
    place = share * (len(ordered) - 1)
    below = int(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low + (place - below) * (high - low)


def head_pose(landmarks: np.ndarray) -> tuple[float, float]:
    """Return approximate yaw and roll in degrees from 5×2 landmarks (x, y).

    Roll is the slope of the line between the eyes, positive clockwise in the picture. Yaw follows
    from the offset of the nose tip from the line between the middles of eyes and mouth, for a nose
    that stands out 0.48 eye distances (30 of 63 mm); positive when the face looks to the right of
    the picture. It is too small for landmarks of a detector that sees only one eye.
    """
    points = np.asarray(landmarks, np.float64)
    across = points[1] - points[0]
    distance = float(np.hypot(*across)) or 1.0
    down = (points[3] + points[4]) / 2 - (points[0] + points[1]) / 2
    nose = points[2] - (points[0] + points[1]) / 2
    height = float(down @ down) or 1.0
    offset = float((nose - down * (nose @ down) / height) @ across) / distance
    yaw = np.degrees(np.arctan2(offset, _NOSE_DEPTH * distance))
    return float(yaw), float(np.degrees(np.arctan2(across[1], across[0])))


def _eye_distance(landmarks: np.ndarray) -> float:
    return float(np.hypot(*(landmarks[1] - landmarks[0])))


def _light_figures(crop: np.ndarray) -> dict[str, float]:
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)
    brightness, contrast = (float(figure.item()) for figure in cv2.meanStdDev(grey[_INNER]))
    _mean, deviation = cv2.meanStdDev(laplacian[_INNER])
    return {
        "sharpness": round(float(deviation.item()) ** 2, 1),
        "brightness": round(brightness, 1),
        "contrast": round(contrast, 1),
    }


def _with_reasons(**numbers: Any) -> FaceQuality:
    quality = FaceQuality(**numbers)
    return replace(quality, reasons=(*_face_reasons(quality), *_light_reasons(quality)))


def _face_reasons(quality: FaceQuality) -> Iterator[QualityReason]:
    """Yield the reasons that need a detected face."""
    least = chosen_detector().scores.good
    if quality.score is not None and quality.score < least:
        yield QualityReason("low_score", 100 * quality.score, 100 * least)
    if quality.width is not None and quality.width < MIN_WIDTH:
        yield QualityReason("small_face", quality.width, MIN_WIDTH)
    if quality.yaw is not None and abs(quality.yaw) > MAX_YAW:
        yield QualityReason("turned_away", abs(quality.yaw), MAX_YAW)
    if quality.roll is not None and abs(quality.roll) > MAX_ROLL:
        yield QualityReason("tilted", abs(quality.roll), MAX_ROLL)
    if quality.share is not None and quality.share < MIN_SHARE:
        yield QualityReason("several_faces", 100 * quality.share, 100 * MIN_SHARE)


def _light_reasons(quality: FaceQuality) -> Iterator[QualityReason]:
    """Yield at most one reason about light or focus: dark and hazy crops also measure as blurred."""
    is_small = quality.width is not None and quality.width < MIN_WIDTH
    if quality.brightness < MIN_BRIGHTNESS:
        yield QualityReason("too_dark", quality.brightness, MIN_BRIGHTNESS)
    elif quality.brightness > MAX_BRIGHTNESS:
        yield QualityReason("too_bright", quality.brightness, MAX_BRIGHTNESS)
    elif quality.contrast < MIN_CONTRAST:
        yield QualityReason("low_contrast", quality.contrast, MIN_CONTRAST)
    elif not is_small and quality.sharpness < MIN_SHARPNESS:
        yield QualityReason("blurred", quality.sharpness, MIN_SHARPNESS)
