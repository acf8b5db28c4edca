"""How fit a face is to be recognised, with the reasons against it.

Measured on the aligned crop and the five landmarks; a reason is a doubt and refuses nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from recognition.detection import Face

# Of 108 photos, degraded step by step and embedded by our MobileNetV3-Large, none passes a limit
# untouched. One passes it when degraded so far that its embedding's cosine to that of the untouched
# photo falls to about 0.9 on average (which 2 in 3 do at 0.85), or that faces are overlooked: a tenth
# at a roll of 20 degrees, two in five at 35. Blur by motion costs as much and is not seen.
MIN_SCORE: Final = 0.95  # 1st percentile untouched: 0.973
MIN_WIDTH: Final = 40  # pixels; cosine 0.976 at 40, 0.956 at 30, 0.850 at 20
MIN_SHARPNESS: Final = 10.0  # 2nd percentile untouched: 42
MIN_BRIGHTNESS: Final = 50.0  # 2nd percentile untouched: 87
MAX_BRIGHTNESS: Final = 210.0  # 98th percentile untouched: 183
MIN_CONTRAST: Final = 15.0  # 2nd percentile untouched: 24
MAX_YAW: Final = 40.0  # degrees; 98th percentile untouched: 37
MAX_ROLL: Final = 30.0  # degrees; 98th percentile untouched: 15
MIN_SHARE: Final = 0.8  # not measured: another face of a quarter of the area may be the one meant

# Of 36,000 aligned crops of faces the least has 12.1; black, white and even gradients have less than 0.5,
# a round gradient 2.5, a gradient stored as a poor JPEG 5, noise with a standard deviation of 15 grey levels 8.
MIN_STRUCTURE: Final = 9.0
_CELLS: Final = 14  # a side, of 8 pixels: about as large as an eye in a crop

# Rows and columns of a 112×112 crop that show skin in every pose, not hair or background.
_INNER: Final = (slice(24, 104), slice(20, 92))
# How far the tip of the nose stands out from the plane of eyes and mouth, in distances of the eyes.
_NOSE_DEPTH: Final = 0.48


@dataclass(frozen=True, slots=True)
class QualityReason:
    """One doubt: a stable code, the number that was measured, and the limit it passed."""

    code: str
    given: float = 0.0
    expected: float = 0.0

    @property
    def message(self) -> str:
        """What was given, what was expected, what to do; in the language in force."""
        return reason_message(self.code, self.as_record())

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceQuality:
    """What was measured of a face, and the reasons to doubt it; None where there was no face.

    `width` and `eye_distance` are pixels of the picture. `sharpness` is the variance of the Laplacian,
    `brightness` the mean and `contrast` the standard deviation of the crop's inner part, in grey
    levels of 0 to 255. `yaw` and `roll` are degrees, see `head_pose`. `faces` is how many there are in
    the picture and `share` the face's part of their area; None where each face counts for itself.
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
    reasons: tuple[QualityReason, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.reasons

    def as_record(self) -> dict[str, Any]:
        """What is stored: numbers and codes, no sentences; `from_record` reads it."""
        numbers = {item.name: getattr(self, item.name) for item in fields(self)[:-1]}
        return numbers | {"reasons": [reason.as_record() for reason in self.reasons]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FaceQuality:
        """The quality that `as_record` described; fields it does not know are passed over."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        return cls(**values | {"reasons": tuple(QualityReason(**r) for r in record["reasons"])})


# What a reason says; `given` and `expected` are whole numbers, the score's in percent.
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
    "several_faces": _(
        "There are several faces in the picture, and the largest has only %(given)d %% of their area; "
        "at least %(expected)d %% are expected. Send a picture that shows this person alone."
    ),
}


def reason_message(code: str, numbers: Mapping[str, float]) -> str:
    """The sentence of a stored reason, in the language in force; `numbers`: `given`, `expected`."""
    return str(_SENTENCES[code]) % {name: round(numbers[name]) for name in ("given", "expected")}


def face_quality(crop: np.ndarray, face: Face, among: Sequence[Face] = ()) -> FaceQuality:
    """Judges an aligned face: `crop` is 112×112×3 uint8 RGB, `face` where it was cut from.

    `among` is every face of the picture; leave it out where each face counts for itself.
    """
    yaw, roll = head_pose(face.landmarks)
    roll = (roll + face.rotation + 180) % 360 - 180
    return _judged(
        score=round(float(face.score), 4),
        width=round(float(face.box[2]), 1),
        eye_distance=round(_eye_distance(face.landmarks), 1),
        yaw=round(yaw, 1),
        roll=round(roll, 1),
        faces=len(among) or None,
        share=round(float(face.area / sum(f.area for f in among)), 3) if among else None,
        **_light(crop),
    )


def crop_quality(crop: np.ndarray, *, looked_for_face: bool) -> FaceQuality:
    """Judges a 112×112×3 uint8 RGB crop in which no face was found, or none looked for."""
    quality = _judged(**_light(crop))
    if not looked_for_face:
        return quality
    return replace(quality, faces=0, reasons=(QualityReason("no_face"), *quality.reasons))


def has_structure(crop: np.ndarray) -> bool:
    """Whether a 112×112×3 uint8 RGB crop shows anything of the size of an eye or a mouth.

    The grey levels are averaged in 14×14 cells, which leaves little of noise, and the Laplacian of
    these is taken, which leaves nothing of a gradient. A quarter of the cells must stand out.
    """
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    curvature = cv2.Laplacian(cells, cv2.CV_32F)[1:-1, 1:-1]
    return float(np.percentile(np.abs(curvature - np.median(curvature)), 75)) >= MIN_STRUCTURE


def head_pose(landmarks: np.ndarray) -> tuple[float, float]:
    """Yaw and roll in degrees, from 5×2 landmarks (x, y): an approximation.

    Roll is the slope of the line between the eyes, positive clockwise as seen in the picture. Yaw is
    what moves the tip of a nose that stands out 0.48 eye distances (30 of 63 mm) so far from the line
    between the middles of eyes and mouth; positive when the face looks to the right of the picture.
    Landmarks of a detector that sees only one eye give too small a yaw.
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


def _light(crop: np.ndarray) -> dict[str, float]:
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    inner = grey[_INNER]
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)[_INNER]
    return {
        "sharpness": round(float(laplacian.var()), 1),
        "brightness": round(float(inner.mean()), 1),
        "contrast": round(float(inner.std()), 1),
    }


def _judged(**numbers: Any) -> FaceQuality:
    quality = FaceQuality(**numbers)
    return replace(quality, reasons=(*_face_reasons(quality), *_light_reasons(quality)))


def _face_reasons(quality: FaceQuality) -> Iterator[QualityReason]:
    """Of a face that was found; a crop has nothing but its light."""
    if quality.score is not None and quality.score < MIN_SCORE:
        yield QualityReason("low_score", 100 * quality.score, 100 * MIN_SCORE)
    if quality.width is not None and quality.width < MIN_WIDTH:
        yield QualityReason("small_face", quality.width, MIN_WIDTH)
    if quality.yaw is not None and abs(quality.yaw) > MAX_YAW:
        yield QualityReason("turned_away", abs(quality.yaw), MAX_YAW)
    if quality.roll is not None and abs(quality.roll) > MAX_ROLL:
        yield QualityReason("tilted", abs(quality.roll), MAX_ROLL)
    if quality.share is not None and quality.share < MIN_SHARE:
        yield QualityReason("several_faces", 100 * quality.share, 100 * MIN_SHARE)


def _light_reasons(quality: FaceQuality) -> Iterator[QualityReason]:
    """One reason at most: what is dark or hazy is also smooth, and focusing would not mend it."""
    is_small = quality.width is not None and quality.width < MIN_WIDTH
    if quality.brightness < MIN_BRIGHTNESS:
        yield QualityReason("too_dark", quality.brightness, MIN_BRIGHTNESS)
    elif quality.brightness > MAX_BRIGHTNESS:
        yield QualityReason("too_bright", quality.brightness, MAX_BRIGHTNESS)
    elif quality.contrast < MIN_CONTRAST:
        yield QualityReason("low_contrast", quality.contrast, MIN_CONTRAST)
    elif not is_small and quality.sharpness < MIN_SHARPNESS:
        yield QualityReason("blurred", quality.sharpness, MIN_SHARPNESS)
