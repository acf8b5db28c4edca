"""Parse the first directory of a TIFF or of EXIF metadata, without decoding anything."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from recognition.conf import get_settings
from recognition.imaging.refusals import damaged, too_complex, too_many_pixels, unsupported

_MOST_ENTRIES: Final = 4_096
_MOST_PIECES: Final = 100_000  # tiles or strips
# The struct format of each numeric TIFF type; for a fraction, that of its numerator.
_NUMBERS: Final = {
    1: "B", 3: "H", 4: "L", 5: "L", 6: "b", 8: "h", 9: "l", 10: "l", 11: "f", 12: "d", 16: "Q", 17: "q",
}  # fmt: skip
_FRACTIONS: Final = frozenset({5, 10})

_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 259, 262, 274
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _PLANES = 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES = 322, 323, 324
# Tags for decoding: size, layout, predictor, palette, samples, JPEG tables, YCbCr, colour profile.
_DECODING: Final = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325,
     332, 338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 34675}
)  # fmt: skip
_UNUSED_TAG: Final = 0xFFFE
_OLD_JPEG: Final = 6  # old-style JPEG, whose data offsets are in other tags
# Compressions that every TIFF reader supports: none, CCITT, LZW, JPEG, deflate, PackBits.
_COMMON_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946})
# The layout of headers and counts in ordinary and in big TIFF files.
_Layout = tuple[int, str, str, str, int]  # offset of the pointer, its letter, count, entry, inline
_ORDINARY: Final[_Layout] = (4, "L", "H", "HHL4s", 4)
_BIG: Final[_Layout] = (8, "Q", "Q", "HHQ8s", 8)


@dataclass(frozen=True, slots=True)
class _Entry:
    place: int  # offset in the file
    count: int
    value: float | None  # the first number; None for text and unreadable values


@dataclass(frozen=True, slots=True)
class Tiff:
    """A TIFF whose metadata is hidden from decoders, and what was read from it.

    `decoded_pixels` counts the pixels of its tiles or strips, which may be more than the picture
    has. `common` is False for a compression that not every reader supports.
    """

    content: bytes
    orientation: int
    dark_is_high: bool  # a grey picture in which 0 is white
    decoded_pixels: int
    common: bool


def orientation_of(block: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of a metadata block; 1 if there is none."""
    try:
        entries, _end = _first_directory(block.removeprefix(b"Exif\0\0"))
    except (struct.error, ValueError, OverflowError):
        return 1
    return _orientation(entries)


def _orientation(entries: dict[int, _Entry]) -> int:
    value = _number(entries, _ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def read_tiff(data: bytes) -> Tiff:
    """Parse the first picture's directory. Raise `InvalidImage` for damaged or too complex files."""
    try:
        entries, end = _first_directory(data)
    except (struct.error, ValueError, OverflowError) as error:
        raise damaged() from error
    pixels = _decoded_pixels(entries)
    content = bytearray(data)
    order = ">" if data[:1] == b"M" else "<"
    for tag, entry in entries.items():
        if tag not in _DECODING:
            struct.pack_into(f"{order}H", content, entry.place, _UNUSED_TAG)
    content[end : end + 4] = bytes(len(content[end : end + 4]))  # no further pictures
    inverted = _number(entries, _PHOTOMETRIC, 0) == 0
    common = _number(entries, _COMPRESSION, 1) in _COMMON_COMPRESSIONS
    return Tiff(bytes(content), _orientation(entries), inverted, pixels, common)


def _first_directory(data: bytes) -> tuple[dict[int, _Entry], int]:
    """Return the entries of the first directory by tag, and the offset of their end."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no TIFF header")
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    where, pointer, counter, form, inline = _BIG if version == 43 else _ORDINARY
    (start,) = struct.unpack_from(order + pointer, data, where)
    (count,) = struct.unpack_from(order + counter, data, start)
    if count > _MOST_ENTRIES:
        raise ValueError("more entries than any program writes")
    position, size = start + struct.calcsize(order + counter), struct.calcsize(order + form)
    entries: dict[int, _Entry] = {}
    for place in range(position, position + count * size, size):
        tag, kind, number, raw = struct.unpack_from(order + form, data, place)
        value = _first_number(data, order, kind, number, raw, inline)
        entries.setdefault(tag, _Entry(place, number, value))
    return entries, position + count * size


def _first_number(
    data: bytes, order: str, kind: int, count: int, raw: bytes, inline: int
) -> float | None:
    letter = _NUMBERS.get(kind)
    if letter is None or not count:
        return None
    form = order + letter * (2 if kind in _FRACTIONS else 1)
    if struct.calcsize(order + letter) * len(form[1:]) * count <= inline:
        source, offset = raw, 0
    else:
        source, offset = data, struct.unpack(order + ("Q" if inline == 8 else "L"), raw)[0]
    try:
        numbers: tuple[float, ...] = struct.unpack_from(form, source, offset)
    except (struct.error, OverflowError):
        return None
    if kind in _FRACTIONS:
        return numbers[0] / numbers[1] if numbers[1] else None
    return numbers[0]


def _number(entries: dict[int, _Entry], tag: int, default: int) -> int:
    """Return the first value of a tag as an integer; the default when it is missing or no number."""
    value = entries[tag].value if tag in entries else None
    try:
        return default if value is None else int(value)
    except (ValueError, OverflowError):  # NaN or infinity
        return default


def _decoded_pixels(entries: dict[int, _Entry]) -> int:
    width, height = _number(entries, _WIDTH, 0), _number(entries, _HEIGHT, 0)
    if width <= 0 or height <= 0:
        raise damaged()
    if _TILES in entries and _STRIPS not in entries:
        across, down = _number(entries, _TILE_WIDTH, 0), _number(entries, _TILE_HEIGHT, 0)
        stored = entries[_TILES].count
    else:
        across, down = width, min(_number(entries, _ROWS_PER_STRIP, height), height)
        stored = entries[_STRIPS].count if _STRIPS in entries else 0
    if across <= 0 or down <= 0 or not stored:
        raise damaged()
    pieces = -(-width // across) * -(-height // down)
    planes = _number(entries, _SAMPLES, 1) if _number(entries, _PLANES, 1) == 2 else 1
    if planes > 8:
        raise unsupported("TIFF")
    if stored < pieces and _number(entries, _COMPRESSION, 1) != _OLD_JPEG:
        raise damaged()
    # Pillow creates a tile for each listed piece, whether it is needed or not.
    if max(pieces * planes, stored) > _MOST_PIECES or stored > 2 * pieces * planes:
        raise too_complex()
    pixels = pieces * across * down
    if pixels > max(get_settings().max_image_pixels, 2 * width * height):
        raise too_many_pixels()
    return pixels
