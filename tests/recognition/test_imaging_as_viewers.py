"""Incomplete or unusual files that an image viewer shows correctly are accepted; others are
rejected."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

from recognition.exceptions import InvalidImage
from recognition.imaging import read_image, storable_bytes
from tests.pictures import draw_picture


def segments(jpeg: bytes) -> list[tuple[int, int, int]]:
    """Yield the marker, offset and end of header of each segment of a JPEG by Pillow."""
    found, position = [], 2
    while start := re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(jpeg, position):
        size = int.from_bytes(jpeg[start.end() : start.end() + 2], "big")
        found.append((jpeg[start.end() - 1], start.start(), start.end() + size))
        if found[-1][0] == 0xD9:
            break
        position = found[-1][2]
    return found


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_jpeg_that_ends_between_two_scans_is_opened(mode):
    data = draw_picture((90, 70), mode=mode, progressive=True)
    marks = segments(data)
    first = next(number for number, (marker, _start, _end) in enumerate(marks) if marker == 0xDA)
    after = [mark for mark in marks[first + 1 :] if mark[0] != 0xD9]
    assert len(after) >= 5
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(float)

    for marker, start, end in after:
        # At its marker, within what describes the next scan, and before that scan's first byte.
        for cut in (start, start + 1, start + 2, start + 3, start + 4, end - 1, end):
            picture = read_image(data[:cut])
            shown = np.asarray(Image.fromarray(picture.pixels).convert("L"))
            assert np.abs(shown - grey).mean() < 12, (marker, cut - start)
            stored, extension = storable_bytes(data[:cut], picture)
            assert extension == "jpg"
            assert np.array_equal(read_image(stored).pixels, picture.pixels)


def test_a_jpeg_that_ends_before_a_colour_or_within_a_scan_is_damaged():
    data = draw_picture((90, 70), progressive=True)
    scans = [(start, end) for marker, start, end in segments(data) if marker == 0xDA]
    (_start, first), (second, _end) = scans[:2]
    # The colour of the first scan alone: as of a file that has one scan for each colour.
    one_colour = data[: scans[0][0]] + b"\xff\xda\0\x08\1\1\0\0\0\0" + data[first : first + 200]

    for damaged in (one_colour, data[: (first + second) // 2], data[: (second + scans[2][0]) // 2]):
        with pytest.raises(InvalidImage, match="damaged"):
            read_image(damaged)


def test_a_bitmap_whose_palette_has_more_colours_than_pixels_can_name_is_opened():
    picture = Image.open(io.BytesIO(draw_picture((64, 48), format="PNG"))).quantize(200)
    buffer = io.BytesIO()
    picture.save(buffer, "BMP")
    data = buffer.getvalue()
    start = int.from_bytes(data[10:14], "little")
    more = data[:10] + struct.pack("<L", start + 4 * 100)
    more += data[14:46] + struct.pack("<L", 300) + data[50:start]
    more += bytes(4 * (300 - (start - 54) // 4)) + data[start:]
    more = more[:10] + struct.pack("<L", len(more) - len(data) + start) + more[14:]

    assert np.array_equal(read_image(more).pixels, read_image(data).pixels)
