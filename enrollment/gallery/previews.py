"""Small versions of pictures for display. They are never stored."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from recognition.imaging import opened_image

SIDES: Final = {"thumb": 320, "face": 320, "icon": 160}  # pixels; lists show an icon at 56
PREVIEW_SIDE: Final = 800  # pixels
JPEG_QUALITY: Final = 82
FACE_REACH: Final = 0.75  # half side of the crop, as a share of the face's longer side


def thumbnail(
    content: bytes, side: int, box: Sequence[float] | None = None, *, longest: int = 0
) -> bytes:
    """Return a stored picture as an upright sRGB JPEG of at most `side` pixels a side.

    `box` (x, y, width, height in pixels of the upright picture) crops it to the face with a margin;
    with the picture's `longest` side a large face is decoded no larger than it is shown.
    Raise `InvalidImage` when the file is damaged.
    """
    needed = side if box is None else side * longest / (2 * FACE_REACH * max(box[2:]))
    with opened_image(content, side=round(needed)) as image:
        upright = Image.fromarray(image.pixels)
        if box is not None:
            upright = _around(upright, *(image.scale * value for value in box))
        return _scaled_jpeg(upright, side)


def _around(image: Image.Image, x: float, y: float, width: float, height: float) -> Image.Image:
    middle_x, middle_y, reach = x + width / 2, y + height / 2, max(width, height) * FACE_REACH
    return image.crop(
        (
            round(max(middle_x - reach, 0)),
            round(max(middle_y - reach, 0)),
            round(min(middle_x + reach, image.width)),
            round(min(middle_y + reach, image.height)),
        )
    )


def jpeg(pixels: np.ndarray) -> bytes:
    """Return an H×W×3 uint8 RGB picture as a JPEG of at most 800 pixels a side."""
    return _scaled_jpeg(Image.fromarray(pixels), PREVIEW_SIDE)


def data_uri(pixels: np.ndarray) -> str:
    """Return the `jpeg` of the pixels as a `data:` URI."""
    return jpeg_uri(jpeg(pixels))


def jpeg_uri(content: bytes) -> str:
    """Return the bytes of a JPEG as a `data:` URI."""
    return f"data:image/jpeg;base64,{b64encode(content).decode('ascii')}"


def _scaled_jpeg(image: Image.Image, side: int) -> bytes:
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
