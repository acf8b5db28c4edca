"""Parse a PNG into the chunks that its pixels need and the metadata about them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from recognition.imaging.refusals import damaged, too_complex, unsupported
from recognition.imaging.tiff import orientation_of

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS: Final = 100_000
_LARGEST_PROFILE: Final = 4_000_000  # bytes
# Length of a tRNS chunk by the colour type of IHDR: grey, RGB, palette.
_TRANSPARENCY: Final = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
_END: Final = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))


@dataclass(frozen=True, slots=True)
class Png:
    """A PNG without metadata, and the metadata that its pixels need.

    `gamma` is the exponent of gAMA, None if the file says more about its colours.
    """

    content: bytes
    orientation: int
    profile: bytes | None
    gamma: float | None


def read_png(data: bytes) -> Png:
    """Parse the chunks of a PNG; leave out ancillary chunks that are broken, large or useless.

    Wrong checksums and long texts outside the pixels are ignored, and a missing end is no error.
    Raise `InvalidImage` for damaged or too complex files.
    """
    kept: list[bytes] = [_SIGNATURE]
    notes: dict[bytes, bytes] = {}
    colour_type = -1
    position = len(_SIGNATURE)
    for _count in range(_MOST_CHUNKS):
        length, kind = (
            struct.unpack_from(">I4s", data, position)
            if len(data) - position >= 8
            else (0, b"IEND")
        )
        content = data[position + 8 : position + 8 + length]
        end = position + 12 + length
        if kind == b"IEND":
            break
        if kind == b"CgBI":  # Apple's proprietary variant
            raise unsupported("PNG")
        if kind == b"IHDR" and len(content) == 13:
            colour_type = content[9]
        if kind == b"IDAT":
            kept.append(
                struct.pack(">I4s", len(content), kind)
                + content
                + data[end - 4 : end].ljust(4, b"\0")
            )
        elif kind[0:1].isupper():
            kept.append(data[position:end])
        elif kind in (b"tRNS", b"iCCP", b"eXIf", b"gAMA", b"sRGB") and _is_sound(
            data, position, end
        ):
            if kind != b"tRNS":
                notes.setdefault(kind, content)
            elif length in _TRANSPARENCY.get(colour_type, ()):
                kept.append(data[position:end])
        position = end
    else:
        raise too_complex()
    if not any(chunk[4:8] == b"IDAT" for chunk in kept):
        raise damaged()
    profile = _profile(notes.get(b"iCCP", b""))
    gamma = None if profile or b"sRGB" in notes else _gamma(notes.get(b"gAMA", b""))
    return Png(b"".join([*kept, _END]), orientation_of(notes.get(b"eXIf", b"")), profile, gamma)


def _is_sound(data: bytes, start: int, end: int) -> bool:
    """Return whether a chunk is complete and its checksum is right."""
    return end <= len(data) and data[end - 4 : end] == struct.pack(
        ">I", zlib.crc32(memoryview(data)[start + 4 : end - 4])
    )


def _profile(content: bytes) -> bytes | None:
    """Return the colour profile of an iCCP chunk (name, zero, method zero, deflated bytes), or
    None."""
    _name, found, packed = content.partition(b"\0")
    if not found or packed[:1] != b"\0":
        return None
    try:
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def _gamma(content: bytes) -> float | None:
    return int.from_bytes(content, "big") / 100_000 if len(content) == 4 else None
