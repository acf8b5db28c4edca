"""Pictures made small enough to be looked at: nothing here is stored."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageOps

SIDES: Final = {"thumb": 320, "face": 320, "icon": 160}  # pixels; an icon is shown at 56, in lists
PREVIEW_SIDE: Final = 800  # pixels
JPEG_QUALITY: Final = 82
FACE_REACH: Final = 0.75  # of the face's longer side, from its middle: as much as a crop shows


def thumbnail(content: bytes, side: int, box: Sequence[float] | None = None) -> bytes:
    """A stored picture as an upright JPEG of at most `side` pixels a side; OSError if it is damaged.

    `box` (x, y, width, height in pixels of the upright picture) leaves the face with some margin.
    """
    with Image.open(io.BytesIO(content)) as image:
        if box is None:
            image.draft("RGB", (side, side))
        upright = ImageOps.exif_transpose(image)
        return _scaled_jpeg(upright if box is None else _around(upright, *box), side)


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


def data_uri(pixels: np.ndarray) -> str:
    """H×W×3 uint8 RGB as a `data:` URI of a JPEG of at most 800 pixels a side."""
    jpeg = _scaled_jpeg(Image.fromarray(pixels), PREVIEW_SIDE)
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}"


def _scaled_jpeg(image: Image.Image, side: int) -> bytes:
    # The profile of another colour space would be wrong after the conversion.
    profile = image.info.get("icc_profile") if image.mode == "RGB" else None
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, icc_profile=profile)
    return buffer.getvalue()
