"""The cost of a picture is checked before the work, and metadata never makes a picture fail."""

from __future__ import annotations

import gc
import itertools
import struct
import subprocess
import sys
import threading
import time
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recognition.exceptions import InvalidImage
from recognition.imaging import opened_image, read_image, storable_bytes
from recognition.imaging.budget import PixelBudget
from recognition.imaging.budget import budget as shared_budget
from tests.pictures import draw_picture

CASES = Path(__file__).resolve().parent.parent / "cases"


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidImage) as caught:
        read_image(data)
    return str(caught.value)


def tiff(entries: list[tuple[int, int, int, int]], pixels: bytes = b"", order: str = "<") -> bytes:
    """Return a TIFF with these directory entries (tag, type, count, value), followed by its pixels."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    rows = b"".join(struct.pack(order + "HHII", *entry) for entry in sorted(entries))
    return head + struct.pack(order + "H", len(entries)) + rows + bytes(4) + pixels


def grey_tiff(width: int, height: int, *extra: tuple[int, int, int, int]) -> bytes:
    given = {tag for tag, *_rest in extra}
    offset = (
        8 + 2 + 12 * (8 + len(extra) - len(given & {256, 257, 258, 259, 262, 273, 277, 278})) + 4
    )
    usual = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1),
        (262, 3, 1, 1), (273, 4, 1, offset), (277, 3, 1, 1), (278, 4, 1, height),
    ]  # fmt: skip
    entries = [entry for entry in usual if entry[0] not in given]
    return tiff([*entries, *extra], bytes(range(256)) * (width * height // 256 + 1))


def test_too_many_scans_are_refused_at_once():
    data = (CASES / "progressive_600_scans.jpg").read_bytes()
    started = time.monotonic()

    assert "scans" in refusal(data)

    assert time.monotonic() - started < 1


def repeated_scans(count: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """Return a progressive JPEG whose last scan is repeated `count` times."""
    data = draw_picture(size, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def test_an_odd_number_of_scans_does_not_survive_storing():
    data = repeated_scans(50)
    picture = read_image(data)

    stored, extension = storable_bytes(data, picture)

    assert extension == "png"
    assert np.array_equal(read_image(stored).pixels, picture.pixels)


def test_scans_count_by_the_pixels_they_go_over(monkeypatch):
    data = repeated_scans(50)
    assert read_image(data)
    monkeypatch.setattr("recognition.imaging.jpeg.MOST_SCANNED_PIXELS", 64 * 64 * 50)

    assert "scans" in refusal(data)


def test_segments_without_end_are_refused_quickly():
    data = b"\xff\xd8" + b"\xff\xfe\0\2" * 2_000_000
    started = time.monotonic()

    assert refusal(data)

    assert time.monotonic() - started < 2


def test_fill_bytes_take_no_longer_than_others():
    """Each of them was the beginning of a search to the end: 16 kB took 2 s, 200 kB six minutes, in which
    the server answered nobody."""
    jpeg = draw_picture((64, 64))
    scan = jpeg.index(b"\xff\xda") + 14
    filled = jpeg[:scan] + b"\xff" * 300_000 + b"\0" + jpeg[scan:]
    begin = time.thread_time()
    assert read_image(filled).pixels.shape == (64, 64, 3)
    assert time.thread_time() - begin < 2
    before = jpeg.index(b"\xff\xdb")
    filled = jpeg[:before] + b"\xff" * 300_000 + jpeg[before:]
    assert (read_image(filled).pixels == read_image(jpeg).pixels).all()


def test_tiles_are_counted_as_they_decode():
    tiles = [(322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 8)]
    data = tiff(
        [(256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), *tiles]
    )

    assert "too many pixels" in refusal(data)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param((278, 4, 1, 1), id="as many strips as rows, one is listed"),
        pytest.param((273, 4, 5_000, 8), id="more strips than the picture has"),
    ],
)
def test_strips_that_do_not_fit_the_picture_are_refused(extra):
    assert refusal(grey_tiff(64, 64, extra))


def test_a_run_length_coded_bitmap_that_is_read_slowly_is_refused():
    header = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, 5_000, 5_000, 1, 8, 1, 0, 0, 0, 256, 0)

    assert "parts" in refusal(header + info + bytes(1024) + b"\0\0" * 5_000)


@pytest.mark.parametrize(
    "name",
    [
        "orientation_as_rational.jpg",
        "png_large_text.png",
        "png_text_bad_crc.png",
        "not_by_name.jfif",
    ],
)
def test_what_a_viewer_opens_is_opened(name):
    data = (CASES / name).read_bytes()
    picture = read_image(data)

    stored, _extension = storable_bytes(data, picture)

    assert min(picture.width, picture.height) >= 120
    assert np.array_equal(read_image(stored).pixels, picture.pixels)


ORIENTATIONS = {
    "short": (3, 1, struct.pack(">HH", 6, 0)),
    "long": (4, 1, struct.pack(">I", 6)),
    "byte": (1, 1, b"\6\0\0\0"),
    "signed": (8, 1, struct.pack(">hH", 6, 0)),
    "float": (11, 1, struct.pack(">f", 6)),
}


@pytest.mark.parametrize(("kind", "count", "value"), ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_orientation_is_read_in_every_type_of_number(kind, count, value):
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\1" + struct.pack(">HHI", 0x0112, kind, count) + value + bytes(4)
    )

    assert read_image(draw_picture((60, 40), exif=exif)).height == 60


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_metadata_of_any_type_fails_no_picture(format):
    for kind, value in itertools.product(range(20), [b"\xff" * 4, bytes(4), b"\0\0\0\x1a"]):
        data = with_metadata(draw_picture((60, 40)), format, kind, value)

        assert sorted(read_image(data).pixels.shape) == [3, 40, 60], (kind, value)


def with_metadata(jpeg: bytes, format: str, kind: int, value: bytes) -> bytes:
    """Return a picture in this format with EXIF tags of this type and value."""
    tags = (0x0112, 0x011A, 0x8769, 0x8825, 0x02BC)
    rows = b"".join(
        struct.pack(">HHI", tag, kind, count) + value for tag in tags for count in (1, 7)
    )
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2 * len(tags)) + rows + bytes(40)
    if format == "JPEG":
        return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    room = b"MM\0*\0\0\0\x08\0\0" + bytes(len(exif) - 16)
    plain = draw_picture((60, 40), format=format, exif=b"Exif\0\0" + room)
    data = plain.replace(room, exif[6:])
    return with_checksums(data) if format == "PNG" else data


def with_checksums(png: bytes) -> bytes:
    mended, position = png[:8], 8
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        body = png[position + 4 : position + 8 + length]
        mended += png[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return mended


def test_metadata_of_a_tiff_fails_no_picture():
    odd = [
        (274, 2, 4, 0x41414141),
        (282, 2, 4, 0x41414141),
        (34665, 2, 4, 0x41414141),
        (700, 7, 90_000, 8),
    ]

    picture = read_image(grey_tiff(64, 40, *odd))

    assert (picture.width, picture.height, picture.orientation) == (64, 40, 1)


def test_metadata_of_a_heic_ends_no_process():
    """pi_heif crashed (SIGSEGV) on the metadata of this file, which fuzzing produced."""
    script = (
        "import django, sys; django.setup(); from recognition.imaging import read_image; "
        "print(read_image(open(sys.argv[1], 'rb').read()).pixels.shape)"
    )
    command = [sys.executable, "-c", script, CASES / "heic_odd_metadata.heic"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (0, "(96, 128, 3)\n"), ended.stderr


def test_pixels_are_waited_for_in_order(settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_DECODED_PIXELS": 20_000}
    budget, order, most = PixelBudget(), [], [0]

    def decode(name: int, pixels: int) -> None:
        with budget.reserved(pixels):
            order.append(name)
            most[0] = max(most[0], budget.used)
            time.sleep(0.02)

    threads = []
    with budget.reserved(1):
        for name, pixels in enumerate([15_000, 30_000, 10_000, 10_000]):
            threads.append(threading.Thread(target=decode, args=(name, pixels)))
            threads[-1].start()
            time.sleep(0.05)
    for thread in threads:
        thread.join(10)

    assert order == [0, 1, 2, 3]
    assert most[0] <= 20_000 and budget.used == 0


def test_a_picture_counts_until_its_block_ends(settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_DECODED_PIXELS": 20_000}
    data, waited = draw_picture((150, 100)), threading.Event()

    def read() -> None:
        with opened_image(data):
            waited.set()

    with opened_image(data), opened_image(data):  # who holds one waits for nobody
        thread = threading.Thread(target=read)
        thread.start()
        assert not waited.wait(0.2)
    assert waited.wait(10)
    thread.join(10)


@pytest.mark.parametrize(("progressive", "counted"), [(False, 400 * 300), (True, 1600 * 1200)])
def test_a_progressive_jpeg_counts_whole_at_every_scale(progressive, counted):
    """Its decoder holds all coefficients: eight of 50 megapixels at once took 2.2 GB."""
    with opened_image(draw_picture((1600, 1200), progressive=progressive), side=300) as picture:
        assert picture.pixels.shape == (300, 400, 3)
        assert shared_budget.used == counted


def test_a_refused_picture_leaves_the_budget_as_it_was(settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_DECODED_PIXELS": 20_000}
    data = draw_picture((150, 100))
    for _ in range(3):
        assert refusal(data[: len(data) // 2])
    assert read_image(data)


def test_an_error_that_is_kept_holds_no_pixels():
    size = (123, 77)
    whole = draw_picture(size)
    seen: list[weakref.ref[np.ndarray]] = []

    def look(pixels: np.ndarray) -> None:
        seen.append(weakref.ref(pixels))
        raise ValueError("nothing of use in it")

    with pytest.raises(ValueError) as within, opened_image(whole) as image:
        look(image.pixels)
    del image
    with pytest.raises(InvalidImage) as decoding:
        read_image(whole[: len(whole) // 2])

    assert seen[0]() is None
    alive = [each for each in gc.get_objects() if issubclass(type(each), Image.Image)]
    assert not [each for each in alive if each.size == size]
    assert within.value and decoding.value  # kept until here


def test_a_jpeg_is_read_at_the_scale_that_is_asked_for():
    data = draw_picture(
        (1600, 1200), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    )

    with opened_image(data, side=300) as picture:
        assert (picture.width, picture.height) == (1200, 1600)
        assert picture.pixels.shape == (400, 300, 3)
        assert picture.scale == 0.25
    with opened_image(data, side=1000) as picture:
        assert picture.scale == 1
    with opened_image(draw_picture((1600, 1200), format="PNG"), side=300) as picture:
        assert picture.scale == 1
