"""Uploaded bytes in, upright RGB pixels out; and the bytes of a picture that are fit to keep.

Only four formats are ever decoded. Everything that an upload can do wrong ends in `InvalidImage`.
"""

from __future__ import annotations

import io
import logging
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import numpy as np
from django.utils.translation import gettext as _
from PIL import Image, UnidentifiedImageError

from recognition.conf import RecognitionSettings, get_settings
from recognition.exceptions import InvalidImage

logger = logging.getLogger(__name__)

FORMATS: Final = ("JPEG", "PNG", "BMP", "TIFF")
FORMATS_TEXT: Final = "JPEG, PNG, BMP, TIFF"

# What people send instead, so that the answer can name it.
_FOREIGN_SIGNATURES: Final = (
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("HEIC", re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL)),
    ("AVIF", re.compile(rb"....ftypavi", re.DOTALL)),
    ("PDF", re.compile(rb"%PDF-")),
    ("SVG/XML", re.compile(rb"\s*<(?:\?xml|svg)", re.IGNORECASE)),
    ("HTML", re.compile(rb"\s*<(?:!doctype|html)", re.IGNORECASE)),
)

_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A decoded picture.

    `pixels` is H×W×3 uint8 RGB, upright, C-contiguous and read-only. `orientation` is the EXIF
    orientation (1 to 8) that was undone to get there.
    """

    pixels: np.ndarray
    format: str  # one of FORMATS
    orientation: int = 1

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_image(data: bytes, filename: str | None = None) -> DecodedImage:
    """Decode an upload; `InvalidImage` for everything that is not a whole picture within limits.

    The format is recognised by content; a `filename` must carry one of the allowed extensions
    but need not carry the right one. Transparency is laid over white, the first page of a TIFF
    is taken, the colour profile is not applied. More than 8 bits a channel are scaled to 8.
    """
    settings = get_settings()
    if filename is not None:
        _check_extension(filename, settings.allowed_extensions)
    if not data:
        raise InvalidImage(_("The file is empty. Send the bytes of a picture."))
    image = _open(data, settings)
    _check_size(image.width, image.height, settings)
    try:
        image.load()
        orientation = _orientation(image)
        pixels = np.ascontiguousarray(_upright_rgb(image, orientation))
    except InvalidImage:
        raise
    except Exception as error:  # decoders leak every type there is on hostile bytes
        raise _damaged() from error
    pixels.flags.writeable = False
    return DecodedImage(pixels, _format(image), orientation)


def _check_extension(filename: str, allowed: tuple[str, ...]) -> None:
    extension = PurePath(filename).suffix.lower().removeprefix(".")
    if extension in allowed:
        return
    listing = {"extension": extension[:20], "allowed": ", ".join(allowed)}
    if not extension:
        message = _(
            "The file name has no extension; one of these was expected: %(allowed)s. "
            "Give the file a name that ends in one of them."
        )
    else:
        message = _(
            "The file extension “%(extension)s” is not accepted; one of these was expected: "
            "%(allowed)s. Convert the picture and send it again."
        )
    raise InvalidImage(message % listing)


def _open(data: bytes, settings: RecognitionSettings) -> Image.Image:
    """The picture with its header read and no pixel decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unrecognised(data) from error
    except Image.DecompressionBombError as error:
        # Pillow refuses on its own above twice its limit, and does not say what the size was.
        limit = min(settings.max_image_pixels, 2 * (Image.MAX_IMAGE_PIXELS or 0))
        message = _(
            "The picture has too many pixels; at most %(limit)d are accepted. "
            "Scale it down and send it again."
        )
        raise InvalidImage(message % {"limit": limit}) from error
    except Exception as error:
        raise _damaged() from error


def _unrecognised(data: bytes) -> InvalidImage:
    for given, signature in _FOREIGN_SIGNATURES:
        if signature.match(data):
            message = _(
                "The file is of type %(given)s; a picture in one of these formats was expected: "
                "%(formats)s. Convert it to JPEG or PNG and send it again."
            )
            return InvalidImage(message % {"given": given, "formats": FORMATS_TEXT})
    message = _(
        "The file is not a picture that can be read; one of these formats was expected: "
        "%(formats)s. Check that the file opens in a picture viewer and send it again."
    )
    return InvalidImage(message % {"formats": FORMATS_TEXT})


def _damaged() -> InvalidImage:
    return InvalidImage(
        _(
            "The picture is damaged or incomplete and could not be decoded; a whole picture was "
            "expected. Send the original file again."
        )
    )


def _check_size(width: int, height: int, settings: RecognitionSettings) -> None:
    size = {"width": width, "height": height}
    if width * height > settings.max_image_pixels:
        message = _(
            "The picture has %(width)d×%(height)d pixels; at most %(limit)d in all are accepted. "
            "Scale it down and send it again."
        )
        raise InvalidImage(message % (size | {"limit": settings.max_image_pixels}))
    if min(width, height) < settings.min_image_side:
        message = _(
            "The picture has %(width)d×%(height)d pixels; each side must have at least "
            "%(limit)d. Send a larger picture."
        )
        raise InvalidImage(message % (size | {"limit": settings.min_image_side}))


def _format(image: Image.Image) -> str:
    """Pillow calls a JPEG with further pictures behind it MPO; we read its first picture."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where the metadata is absent or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata does not make a picture unreadable
        logger.debug("Unreadable EXIF metadata, orientation 1 assumed", exc_info=True)
        return 1
    return value if value in _UPRIGHT else 1


def _upright_rgb(image: Image.Image, orientation: int) -> np.ndarray:
    rgb = _to_rgb(image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.asarray(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits as 8 bits, brightness kept relative to the full scale.

    16-bit files have the full scale 65535 (12-bit TIFF: 4095). Signed, 32-bit and float files do
    not state theirs: the smallest of 1 (float only), 255, 65535 that holds every value is taken,
    else the maximum itself; negative values are black.
    """
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise _damaged()
    values *= 255 / _full_scale(image, float(values.max()))
    return Image.fromarray(np.rint(values, out=values).clip(0, 255).astype(np.uint8))


def _full_scale(image: Image.Image, maximum: float) -> float:
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))  # TIFF BitsPerSample
        return float(2 ** bits[0] - 1)
    scales = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    return float(next((scale for scale in scales if maximum <= scale), maximum))


def storable_bytes(data: bytes, image: DecodedImage) -> tuple[bytes, str]:
    """What of an upload is kept on disk, and its extension without a dot (`jpg` or `png`).

    Holds no metadata except a JPEG's colour profile and orientation, and decodes to exactly
    `image.pixels`: a JPEG keeps its compressed data untouched, everything else becomes a PNG
    of the upright pixels, and so does a JPEG of unusual structure.
    """
    if image.format == "JPEG":
        stripped = _strip_jpeg(data, image.orientation)
        if stripped is not None and _decodes_to(stripped, image.pixels):
            return stripped, "jpg"
    buffer = io.BytesIO()
    Image.fromarray(image.pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), "png"


def _decodes_to(data: bytes, pixels: np.ndarray) -> bool:
    try:
        return np.array_equal(read_image(data).pixels, pixels)
    except InvalidImage:
        return False


# JPEG markers (ITU-T T.81, table B.1), without the leading 0xFF.
_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODING: Final = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, _SOS}  # DHT, DAC, DQT, DNL, DRI
_METADATA: Final = frozenset(range(0xE0, 0xF0)) | {_COM}
# Ends a run of entropy-coded data: any marker but a stuffed zero or a restart.
_NEXT_MARKER: Final = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)


def _strip_jpeg(data: bytes, orientation: int) -> bytes | None:
    """The first picture of a JPEG without metadata; None if its structure is not understood."""
    head, body = [], []
    for marker, payload, scan in _jpeg_segments(data):
        if marker == _EOI:
            exif = [_orientation_segment(orientation)] if orientation != 1 else []
            return b"".join([b"\xff\xd8", *head, *exif, *body, b"\xff\xd9"])
        if marker == _APP0 and payload.startswith(b"JFIF\0") and not head:
            # The last two bytes are the size of the thumbnail, which is left out.
            head.append(_segment(_APP0, payload[:12].ljust(12, b"\0") + b"\0\0"))
        elif marker == _APP2 and payload.startswith(b"ICC_PROFILE\0"):
            body.append(_segment(marker, payload))
        elif marker == _APP14 and payload.startswith(b"Adobe"):
            body.append(_segment(marker, payload[:12]))
        elif marker in _DECODING:
            body += [_segment(marker, payload), scan]
        elif marker not in _METADATA:
            return None
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(marker, payload, entropy-coded data after a scan header) up to EOI or the first oddity."""
    position = 2
    while found := _NEXT_MARKER.match(data, position):
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            yield marker, b"", b""
            return
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + length
        if length < 2 or end > len(data):
            return
        following = _NEXT_MARKER.search(data, end) if marker == _SOS else None
        stop = following.start() if following else end
        yield marker, data[position + 2 : end], data[end:stop]
        position = stop


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _orientation_segment(orientation: int) -> bytes:
    """An EXIF block with nothing but the orientation (TIFF header, one directory entry)."""
    header = struct.pack(">2sHI", b"MM", 42, 8)
    directory = struct.pack(">HHHIHHI", 1, _ORIENTATION_TAG, 3, 1, orientation, 0, 0)
    return _segment(_APP1, b"Exif\0\0" + header + directory)
