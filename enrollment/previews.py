"""Pictures made small enough to be looked at: nothing here is stored."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Final

import numpy as np
from PIL import Image, ImageOps

THUMBNAIL_SIDE: Final = 320  # pixels
PREVIEW_SIDE: Final = 800  # pixels
JPEG_QUALITY: Final = 82


def thumbnail(content: bytes) -> bytes:
    """A stored picture as an upright JPEG of at most 320 pixels a side; OSError if it is damaged."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return _scaled_jpeg(ImageOps.exif_transpose(image), THUMBNAIL_SIDE)


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
