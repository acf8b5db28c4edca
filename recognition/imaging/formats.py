"""Recognise file types by their content."""

from __future__ import annotations

import re
from typing import Final

FORMATS: Final = ("JPEG", "PNG", "WebP", "HEIC", "AVIF", "BMP", "TIFF")
FORMATS_TEXT: Final = ", ".join(FORMATS)

# File names that count as pictures in a folder; the content decides about the type.
EXTENSIONS: Final = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "heic", "heif", "hif", "avif"),
    *("bmp", "tif", "tiff"),
)
# The `accept` attribute of file inputs for pictures.
ACCEPT: Final = ",".join(
    [
        *(
            f"image/{name}"
            for name in ("jpeg", "png", "webp", "heic", "heif", "avif", "bmp", "tiff")
        ),
        *(f".{name}" for name in EXTENSIONS),
    ]
)

_SIGNATURES: Final = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II(?:\*\0|\+\0)|MM(?:\0\*|\0\+)")),
    # The size of the second header must be that of a known version.
    ("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")),
    ("JPEG 2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n")),
    ("PSD", re.compile(rb"8BPS")),
    ("ICO", re.compile(rb"\0\0[\1\2]\0[^\0]\0")),
    ("PDF", re.compile(rb"%PDF-")),
    ("SVG/XML", re.compile(rb"\s*<(?:\?xml|svg)", re.IGNORECASE)),
    ("HTML", re.compile(rb"\s*<(?:!doctype|html)", re.IGNORECASE)),
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_MOST_BRANDS: Final = 32


def file_kind(data: bytes) -> str | None:
    """Return one of `FORMATS`, the name of another known type, or None."""
    if data[4:8] == b"ftyp":
        return _media_kind(data)
    return next((kind for kind, signature in _SIGNATURES if signature.match(data)), None)


def _media_kind(data: bytes) -> str:
    """Return AVIF, HEIC or MP4 by the list of brands at the beginning of their common container."""
    size = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
    brands = [data[start : start + 4] for start in (8, *range(16, size, 4))]
    if _AVIF_BRANDS.intersection(brands):
        return "AVIF"
    return "HEIC" if _HEIF_BRANDS.intersection(brands) else "MP4"
