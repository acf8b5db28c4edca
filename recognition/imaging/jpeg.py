"""Parse the structure of a JPEG (ITU-T T.81) without decoding it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from recognition.imaging.refusals import damaged, too_complex, unsupported
from recognition.imaging.tiff import orientation_of

MOST_SCANS: Final = 100
MOST_SEGMENTS: Final = 5_000
# Each scan of a progressive JPEG covers the whole picture. 16 scans at 50 megapixels take about as
# long as the largest PNG does.
MOST_SCANNED_PIXELS: Final = 1_000_000_000
USUAL_SCANS: Final = 20  # libjpeg writes 10 for colour, known optimisers at most 18

_EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_DECODING: Final = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, _SOS}  # DHT, DAC, DQT, DNL, DRI
_METADATA: Final = frozenset(range(0xE0, 0xF0)) | {_COM}
# The end of entropy-coded data: any marker except a stuffed zero and a restart. Python searches for a
# first byte 20 times as fast as for one or more of it.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Jpeg:
    """The first picture of a JPEG file, without its metadata.

    `content` lacks the end marker. `complete` is False if the file lacks it too or ends between two
    scans. `regular` is False if decoders would skip something, or if there are more scans than any
    program writes.
    """

    content: bytes
    width: int
    height: int
    orientation: int
    scans: int
    complete: bool
    regular: bool

    @property
    def whole(self) -> bytes:
        return self.content + b"\xff\xd9"


def read_jpeg(data: bytes) -> Jpeg:
    """Parse the segments of a JPEG. Raise `InvalidImage` if it is damaged, unsupported or too
    complex.

    What decoding needs is kept: frames, tables, scans, the colour profile, and the colour encoding.
    """
    head: list[bytes] = []
    body: list[bytes] = []
    size: tuple[int, int] | None = None
    missing: set[int] = set()  # components that are in no scan so far
    orientation, scans, regular, complete, position = 1, 0, True, False, 2
    for _count in range(MOST_SEGMENTS):
        found = _next_marker(data, position)
        if not found:
            break
        regular &= found[0] == position
        position = found[1]
        marker = data[position - 1]
        if marker == _EOI:
            complete = True
            break
        # A truncated length is padded, so that it exceeds the rest of the file.
        end = position + int.from_bytes(data[position : position + 2].ljust(2, b"\xff"), "big")
        payload = data[position + 2 : end]
        if end < position + 2 or marker not in _DECODING | _METADATA:
            raise damaged()
        if end > len(data):
            break
        position = end
        if marker in _FRAMES and size is None:
            size = _frame_size(marker, payload)
            missing = set(payload[6::3])
        if marker == _SOS:
            following = _next_marker(data, end)
            position = following[0] if following else len(data)
            if not data[end:position].rstrip(b"\xff"):
                break
            scans += 1
            missing -= set(payload[1:-3:2])
            body += [_segment(marker, payload), data[end:position]]
        elif marker in _DECODING:
            body.append(_segment(marker, payload))
        elif marker == _APP0 and payload.startswith(b"JFIF\0") and not head:
            # The last two bytes are the size of the thumbnail, which is removed.
            head.append(_segment(_APP0, payload[:12].ljust(12, b"\0") + b"\0\0"))
        elif marker == _APP2 and payload.startswith(b"ICC_PROFILE\0") and len(payload) > 14:
            body.append(_segment(marker, payload))
        elif marker == _APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
            body.append(_segment(marker, payload[:12]))
        elif marker == _APP1 and payload.startswith(b"Exif\0") and orientation == 1:
            orientation = orientation_of(payload[6:])
    else:
        raise too_complex()
    if size is None or not scans or (missing and not complete):
        raise damaged()
    if scans > MOST_SCANS or scans * size[0] * size[1] > MOST_SCANNED_PIXELS:
        raise too_complex()
    content = b"".join([b"\xff\xd8", *head, *body]).rstrip(b"\xff")
    return Jpeg(content, *size, orientation, scans, complete, regular and scans <= USUAL_SCANS)


def _next_marker(data: bytes, position: int) -> tuple[int, int] | None:
    """Return the beginning and the end of the next marker, the bytes that fill up before it included."""
    found = _MARKER.search(data, position)
    if not found:
        return None
    return position + len(data[position : found.start()].rstrip(b"\xff")), found.end()


def _frame_size(marker: int, payload: bytes) -> tuple[int, int]:
    """Return (width, height) of a decodable frame. Raise `InvalidImage`."""
    if len(payload) < 6:
        raise damaged()
    precision, height, width, components = struct.unpack_from(">BHHB", payload)
    known = marker in _DECODED_FRAMES and precision == 8 and components in (1, 3, 4)
    if not known or not height:
        raise unsupported("JPEG")
    return width, height


def with_orientation(jpeg: Jpeg) -> bytes:
    """Return the JPEG with no metadata but its orientation (TIFF header, one directory entry)."""
    if jpeg.orientation == 1:
        return jpeg.whole
    directory = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, jpeg.orientation, 0, 0)
    after = _end_of_jfif(jpeg.content)
    exif = _segment(_APP1, b"Exif\0\0" + directory)
    return b"".join([jpeg.content[:after], exif, jpeg.content[after:], b"\xff\xd9"])


def _end_of_jfif(content: bytes) -> int:
    """Return the end of the JFIF header, which must stay the first segment, or 2 without one."""
    return 4 + int.from_bytes(content[4:6], "big") if content[2:4] == b"\xff\xe0" else 2


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
