"""Small pictures of searched faces: large enough to show, to align again and to enrol."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from recognition.alignment import is_enlarged
from recognition.conf import get_settings
from recognition.detection import Face
from recognition.embedding import Crop
from recognition.imaging import DecodedImage, opened_image, read_image

SIDE: Final = 320  # pixels, at most
REACH: Final = 0.75  # half side of the picture, as a share of the face's longer side
JPEG_QUALITY: Final = 92


@dataclass(frozen=True, slots=True)
class FacePicture:
    """A face with a margin as JPEG, and its `Crop.face_record` in pixels of it.

    Without a record it is the crop itself, in which no face was looked for.
    """

    jpeg: bytes
    record: dict[str, Any] | None


def face_pictures(image: DecodedImage, data: bytes, crops: Iterable[Crop]) -> list[FacePicture]:
    """Return a small picture of each crop of the opened image; `data` is its file.

    A face that is too small in pixels of reduced scale is cut from the full picture.
    """
    pixels, scale = image.pixels, image.scale
    found = []
    for crop in crops:
        if crop.face is None:
            found.append(FacePicture(_jpeg(Image.fromarray(crop.pixels)), None))
            continue
        seen = crop.face if scale == 1 else crop.face.scaled(scale)
        if scale != 1 and is_enlarged(seen.landmarks):
            pixels, scale, seen = read_image(data).pixels, 1.0, crop.face
        found.append(_cut(pixels, seen, crop))
    return found


def _cut(pixels: np.ndarray, face: Face, crop: Crop) -> FacePicture:
    x, y, width, height = face.box
    reach = max(width, height) * REACH
    left, top = max(round(x + width / 2 - reach), 0), max(round(y + height / 2 - reach), 0)
    right = min(max(round(x + width / 2 + reach), left + 1), pixels.shape[1])
    bottom = min(max(round(y + height / 2 + reach), top + 1), pixels.shape[0])
    picture = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    factor = min(1.0, SIDE / max(picture.size))
    if factor < 1:
        size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    moved = Face(
        (x - left, y - top, width, height), face.score, face.landmarks - [left, top], face.rotation
    ).scaled(factor)
    return FacePicture(_jpeg(picture), moved.as_dict() | {"quality": crop.quality.as_record()})


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def face_pictures_of(data: bytes, crops: Iterable[Crop]) -> list[FacePicture]:
    """Like `face_pictures`, for a file that is not open any more."""
    with opened_image(data, side=get_settings().detection_max_side) as image:
        return face_pictures(image, data, crops)
