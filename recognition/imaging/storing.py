"""The bytes of a picture that are fit to keep."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from recognition.imaging.jpeg import read_jpeg, with_orientation
from recognition.imaging.reading import DecodedImage, read_image

_LOSSY: Final = ("WebP", "HEIC", "AVIF")  # what they hold was rounded already
_JPEG_QUALITY: Final = 95


def storable_bytes(data: bytes, image: DecodedImage) -> tuple[bytes, str]:
    """What of an upload is kept on disk, and its extension without a dot (`jpg` or `png`).

    Holds no metadata except a JPEG's colour profile and orientation. A JPEG keeps its compressed data
    untouched; WebP, HEIC and AVIF become a JPEG of the upright pixels, of quality 95 and full colour
    resolution; everything else becomes a PNG of the upright pixels, and so does a JPEG of unusual
    structure or number of scans. But for the second, what is kept decodes to exactly the same pixels.
    """
    if image.format == "JPEG":
        jpeg = read_jpeg(data)
        if jpeg.regular:
            return with_orientation(jpeg), "jpg"
    pixels = image.pixels if image.scale == 1 else read_image(data).pixels
    buffer = io.BytesIO()
    if image.format in _LOSSY:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return buffer.getvalue(), "jpg"
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), "png"
