"""Uploads of every kind give upright RGB or a clear error; stored files have no metadata."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from django.utils.translation import override
from PIL import Image, ImageCms, ImageOps

from recognition.exceptions import InvalidImage
from recognition.imaging import read_image, storable_bytes
from tests.pictures import draw_picture, encoded

CORNER = (200, 30, 20)  # marks the upper left of upright pictures


def marked_picture() -> Image.Image:
    """Return a 48×32 picture with a reddish upper left quarter."""
    image = Image.new("RGB", (48, 32), (30, 90, 160))
    image.paste(CORNER, (0, 0, 24, 16))
    return image


def exif(orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "SecretCamera"
    block.get_ifd(0x8825)[1] = "N"  # GPS latitude reference
    return block


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidImage) as caught:
        read_image(data)
    return str(caught.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF"])
def test_reads_the_four_formats(format):
    picture = read_image(draw_picture((60, 40), format=format))

    assert (picture.format, picture.width, picture.height) == (format, 60, 40)
    assert picture.pixels.shape == (40, 60, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert not picture.pixels.flags.writeable


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_lossless_modes_keep_their_grey(mode):
    grey = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 32, 1).repeat(32, 0))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert(mode)

    pixels = read_image(encoded(image, "PNG")).pixels

    assert np.array_equal(pixels, np.asarray(grey.convert("RGB")))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        pytest.param([0, 257, 32896, 65535], np.uint16, [0, 1, 128, 255], id="16-bit"),
        pytest.param([0, 1, 128, 255], np.int32, [0, 1, 128, 255], id="32-bit-as-8"),
        pytest.param([-5, 257, 32896, 65535], np.int32, [0, 1, 128, 255], id="32-bit-as-16"),
        pytest.param([0.0, 0.25, 0.5, 1.0], np.float32, [0, 64, 128, 255], id="float-to-1"),
        pytest.param([0.0, 1.0, 128.0, 255.0], np.float32, [0, 1, 128, 255], id="float-to-255"),
        pytest.param([0.0, 4e5, 1e6, 1e6], np.float32, [0, 102, 255, 255], id="float-beyond"),
    ],
)
def test_deep_grey_is_scaled_not_clipped(values, dtype, expected):
    image = Image.fromarray(np.repeat(np.array([values], dtype).repeat(16, 0), 8, 1))

    pixels = read_image(encoded(image, "TIFF")).pixels

    assert pixels[0, ::8, 0].tolist() == expected


def test_float_that_is_no_number_is_refused():
    image = Image.fromarray(np.full((32, 32), np.nan, np.float32))

    assert "damaged" in refusal(encoded(image, "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB-key"])
def test_transparency_is_laid_over_white(mode):
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 16, 32))
    if mode == "RGB-key":
        key = Image.new("RGB", (32, 32), (9, 9, 9))
        key.paste((0, 0, 0), (0, 0, 16, 32))
        data = encoded(key, "PNG", transparency=(9, 9, 9))
    else:
        data = encoded(image.convert(mode) if mode != "RGBA" else image, "PNG")

    pixels = read_image(data).pixels

    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 31].tolist() == [255, 255, 255]


def test_cmyk_jpeg_is_not_inverted():
    data = encoded(marked_picture().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data

    red, green, blue = (int(value) for value in read_image(data).pixels[4, 4])

    assert red > 150
    assert max(green, blue) < 90


def test_first_page_of_a_tiff_is_taken():
    pages = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]

    pixels = read_image(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])).pixels

    assert pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(format, orientation):
    turned = {
        1: lambda image: image,
        2: ImageOps.mirror,
        3: lambda image: image.rotate(180),
        4: ImageOps.flip,
        5: lambda image: ImageOps.mirror(image.rotate(-90, expand=True)),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: ImageOps.mirror(image.rotate(90, expand=True)),
        8: lambda image: image.rotate(-90, expand=True),
    }[orientation](marked_picture())

    picture = read_image(encoded(turned, format, exif=exif(orientation)))

    assert (picture.width, picture.height) == (48, 32)
    assert np.abs(picture.pixels[4, 4].astype(int) - CORNER).max() < 12
    assert np.abs(picture.pixels[28, 4].astype(int) - CORNER).max() > 50


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_spoil_the_picture():
    data = draw_picture(exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")

    assert read_image(data).orientation == 1


@pytest.mark.parametrize(
    ("data", "given"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"<!DOCTYPE html><html></html>", "HTML", id="html"),
        pytest.param(b"%PDF-1.7", "PDF", id="pdf"),
        pytest.param(b"\0\0\0\x18ftypisom\0\0\0\0isom", "MP4", id="video"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0", "damaged", id="heic-header-only"),
        pytest.param(draw_picture(format="GIF"), "GIF", id="gif"),
        pytest.param(draw_picture(format="JPEG2000"), "JPEG 2000", id="jpeg-2000"),
        pytest.param(draw_picture(format="PPM"), "not a picture", id="ppm"),
        pytest.param(b"\xff\xd8\xff", "damaged", id="jpeg-header-only"),
        pytest.param(random.Random(0).randbytes(500), "not a picture", id="noise"),
    ],
)
def test_what_is_no_picture_is_named(data, given):
    assert given in refusal(data)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_jpeg_is_refused(kept, progressive):
    data = draw_picture((200, 200), progressive=progressive)

    assert "incomplete" in refusal(data[: int(len(data) * kept)])


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_truncated_lossless_is_refused(format):
    data = draw_picture((200, 200), format=format)

    assert refusal(data[: int(len(data) * 0.8)])


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_000, 10_000, 30_000])
def test_too_many_pixels_are_refused_undecoded(side):
    data = png_header(side, side)
    tracemalloc.start()

    message = refusal(data)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "50000000" in message
    assert peak < 5_000_000


def test_too_small_is_refused():
    message = refusal(draw_picture((15, 200)))

    assert "15×200" in message
    assert "16" in message


def test_limits_follow_the_settings(settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_IMAGE_PIXELS": 100 * 100}

    assert read_image(draw_picture((100, 100)))
    assert "101×100" in refusal(draw_picture((101, 100)))


def test_messages_are_translatable_and_hold_no_internals():
    with override("pt-br"):
        message = refusal(b"\xff\xd8\xff\xe0" + bytes(100))

    assert "BytesIO" not in message
    assert "0x" not in message


def samples() -> list[bytes]:
    picture = marked_picture()
    modes = [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "BMP")]
    return [
        *(encoded(picture, "JPEG", progressive=flag, exif=exif(6)) for flag in (False, True)),
        *(encoded(picture.convert(mode), format) for mode, format in modes),
        *(encoded(picture, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "raw")),
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(chance.randrange(1, 8)):
        spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
    if chance.random() < 0.3:
        del spoiled[chance.randrange(len(spoiled)) :]
    return bytes(spoiled)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about bombs and bad metadata
def test_hostile_bytes_are_read_or_refused():
    """Only `InvalidImage` may be raised, and what is decoded must be stored without loss."""
    chance = random.Random(20)
    outcomes = {"read": 0, "refused": 0}
    for data in samples() * 60:
        spoiled = mutated(data, chance)
        try:
            picture = read_image(spoiled)
        except InvalidImage:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        stored, _ = storable_bytes(spoiled, picture)
        assert np.array_equal(read_image(stored).pixels, picture.pixels)
    assert min(outcomes.values()) > 50


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
METADATA = {"exif": exif(6).tobytes(), "comment": b"SecretComment", "xmp": b"SecretXmp"}


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        pytest.param("RGB", {}, id="baseline"),
        pytest.param("RGB", {"progressive": True}, id="progressive"),
        pytest.param("RGB", {"restart_marker_blocks": 1}, id="restart-markers"),
        pytest.param("RGB", {"subsampling": 0, "quality": 100}, id="full-chroma"),
        pytest.param("RGB", {"keep_rgb": True}, id="adobe-rgb"),
        pytest.param("L", {}, id="grey"),
        pytest.param("CMYK", {}, id="cmyk"),
    ],
)
def test_stored_jpeg_loses_metadata_and_no_pixel(mode, options):
    data = draw_picture((90, 70), mode=mode, icc_profile=SRGB, **METADATA, **options)
    data += b"SecretTail"
    picture = read_image(data)

    stored, extension = storable_bytes(data, picture)

    assert extension == "jpg"
    assert b"Secret" in data
    assert b"Secret" not in stored
    reopened = Image.open(io.BytesIO(stored))
    assert dict(reopened.getexif()) == {0x0112: 6}
    assert reopened.info["icc_profile"] == SRGB
    assert np.array_equal(read_image(stored).pixels, picture.pixels)
    assert storable_bytes(stored, read_image(stored)) == (stored, "jpg")


def test_stored_jpeg_drops_thumbnails_and_second_pictures():
    thumbnail = b"\xff\xe0" + struct.pack(">H", 16 + 3) + b"JFIF\0\1\1\0\0\1\0\1\1\1" + b"ABC"
    two = encoded(marked_picture(), "MPO", save_all=True, append_images=[marked_picture()])
    jfif_end = 4 + int.from_bytes(two[4:6], "big")
    assert two[2:4] == b"\xff\xe0"
    data = two[:2] + thumbnail + two[jfif_end:]
    picture = read_image(data)

    stored, extension = storable_bytes(data, picture)

    assert (picture.format, extension) == ("JPEG", "jpg")
    assert b"ABC" not in stored
    assert b"MPF" not in stored
    assert stored.count(b"\xff\xd8\xff") == 1
    assert stored.endswith(b"\xff\xd9")


def test_jpeg_of_odd_structure_is_stored_as_png():
    data = draw_picture((60, 40))
    end_of_jfif = 4 + int.from_bytes(data[4:6], "big")
    odd = data[:end_of_jfif] + b"junk" + data[end_of_jfif:]  # decoders skip it
    picture = read_image(odd)

    stored, extension = storable_bytes(odd, picture)

    assert extension == "png"
    assert np.array_equal(read_image(stored).pixels, picture.pixels)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_other_formats_are_stored_as_upright_png(format):
    data = encoded(marked_picture(), format, exif=exif(8), description="SecretCamera")
    picture = read_image(data)

    stored, extension = storable_bytes(data, picture)

    assert extension == "png"
    assert b"Secret" not in stored
    reopened = Image.open(io.BytesIO(stored))
    assert not reopened.getexif()
    assert np.array_equal(np.asarray(reopened), picture.pixels)
