"""The bytes of a picture that are stored."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from recognition.imaging.decoding import DecodedImage, read_image
from recognition.imaging.jpeg import read_jpeg, with_orientation

_LOSSY: Final = ("WebP", "HEIC", "AVIF")  # lossy formats
_JPEG_QUALITY: Final = 95


def storable_bytes(data: bytes, image: DecodedImage) -> tuple[bytes, str]:
    """Return what is stored of an upload, and its extension without a dot (`jpg` or `png`).

    No metadata is kept except the colour profile and orientation of a JPEG. A regular JPEG keeps
    its compressed data. WebP, HEIC and AVIF become a JPEG of the upright pixels, with quality 95
    and full colour resolution. Everything else, and a JPEG of unusual structure or number of scans,
    becomes a PNG of the upright pixels. Except for WebP, HEIC and AVIF, the result decodes to
    exactly the same pixels.
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
