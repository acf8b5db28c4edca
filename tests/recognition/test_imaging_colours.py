"""Pictures have the tones, colours and orientation that an image viewer shows."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from recognition.exceptions import InvalidImage
from recognition.imaging import read_image, storable_bytes
from tests.pictures import draw_picture, encoded

CASES = Path(__file__).resolve().parent.parent / "cases"
RAMP = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(32, 0)


def greys(data: bytes) -> np.ndarray:
    return read_image(data).pixels[0, :, 0].astype(int)


def png(
    depth: int, colour_type: int, rows: bytes, width: int, height: int, *chunks: bytes
) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            head,
            *chunks,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_grey_of_fewer_bits_than_its_file_has_room_for(format, bits):
    image = Image.fromarray((RAMP * (2**bits - 1)).astype(np.uint16))

    assert np.abs(greys(encoded(image, format)) - RAMP[0] * 255).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_fewer_bits_than_its_file_has_room_for(channels, bits):
    values = (RAMP * (2**bits - 1)).astype(np.uint16)
    pixels = np.stack([values] * 3 + [np.full_like(values, 65535)] * (channels - 3), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))

    seen = greys(png(16, {3: 2, 4: 6}[channels], rows, 64, 32))

    assert np.abs(seen - RAMP[0] * 255).max() <= 1


def test_large_colour_of_fewer_bits_is_converted_a_band_at_a_time():
    width, height = 4000, 2000
    rows = (b"\0" + b"\x08\x00" * 3 * width) * height
    data = png(16, 2, rows, width, height)
    tracemalloc.start()

    picture = read_image(data)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(int(picture.pixels[1000, 1000, 0]) - 255 * 2048 / 4095) <= 1
    assert peak < 18 * width * height


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_tiff_in_which_0_is_white(dtype):
    top = np.iinfo(dtype).max
    image = Image.fromarray((RAMP * top).astype(dtype))
    data = bytearray(encoded(image, "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = b"\0\0"

    assert np.abs(greys(bytes(data)) - (1 - RAMP[0]) * 255).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_a_picture_of_which_nothing_is_visible_is_shown_all_the_same(format):
    image = Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB")
    image.putalpha(0)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}

    assert np.abs(greys(encoded(image, format, **options)) - RAMP[0] * 255).max() <= 1


def wide_gamut_profile() -> bytes:
    """sRGB's profile with the red and green colourants of another, wider space."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(132, 132 + 12 * int.from_bytes(content[128:132], "big"), 12):
        tag, offset, _size = struct.unpack_from(">4sII", content, place)
        values = {
            b"rXYZ": (0.60974, 0.31111, 0.01947),
            b"gXYZ": (0.20528, 0.62567, 0.06087),
            b"bXYZ": (0.14919, 0.06322, 0.74457),
        }.get(tag)
        if values:  # those of Adobe RGB (1998)
            struct.pack_into(
                ">3i", content, offset + 8, *(round(65536 * value) for value in values)
            )
    return bytes(content)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIC"])
def test_a_wide_gamut_profile_is_applied(format):
    image = Image.new("RGB", (32, 32), (200, 120, 90))
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    expected = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut_profile())),
        ImageCms.createProfile("sRGB"),
    ).getpixel((0, 0))

    if format == "HEIC":  # nothing here can write it
        data = (CASES / "wide_gamut.heic").read_bytes()
    else:
        data = encoded(image, format, icc_profile=wide_gamut_profile(), **options.get(format, {}))
    picture = read_image(data)

    assert expected[0] > 215  # more saturated than the numbers say
    assert np.abs(picture.pixels[16, 16].astype(int) - expected).max() <= 3
    stored, _extension = storable_bytes(data, picture)
    assert np.abs(read_image(stored).pixels[16, 16].astype(int) - expected).max() <= 3


def test_a_profile_of_cmyk_is_applied_only_to_cmyk():
    profile = wide_gamut_profile()
    for offset in (16,):
        profile = profile[:offset] + b"CMYK" + profile[offset + 4 :]
    data = draw_picture((40, 40), "white", icc_profile=profile)

    assert read_image(data).width == 40


@pytest.mark.parametrize(
    "profile",
    [b"", b"x", bytes(200), wide_gamut_profile()[:300]],
    ids=["empty", "short", "zeros", "cut"],  # a profile holds the second it was made in
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_a_broken_profile_fails_no_picture(format, profile):
    data = draw_picture((40, 40), format=format, icc_profile=profile)
    plain = draw_picture((40, 40), format=format)

    assert np.array_equal(read_image(data).pixels, read_image(plain).pixels)


def test_the_gamma_of_a_png_is_applied():
    rows = b"".join(b"\0" + row.tobytes() for row in (RAMP * 255).astype(np.uint8))

    linear = greys(png(8, 0, rows, 64, 32, chunk(b"gAMA", struct.pack(">I", 100_000))))
    usual = greys(png(8, 0, rows, 64, 32, chunk(b"gAMA", struct.pack(">I", 45_455))))

    assert np.abs(linear - 255 * RAMP[0] ** (1 / 2.2)).max() <= 2
    assert np.abs(usual - 255 * RAMP[0]).max() <= 1


@pytest.mark.parametrize("missing", [1, 2, 6, 12])
def test_a_png_without_its_end_is_whole(missing):
    data = draw_picture((40, 40), format="PNG")

    assert np.array_equal(read_image(data[:-missing]).pixels, read_image(data).pixels)


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_is_whole(mode, progressive, missing):
    data = draw_picture((90, 70), mode=mode, progressive=progressive)
    picture = read_image(data[:-missing])

    stored, extension = storable_bytes(data[:-missing], picture)

    assert np.array_equal(picture.pixels, read_image(data).pixels)
    assert (extension, stored[-2:]) == ("jpg", b"\xff\xd9")


def test_heic_is_read_upright_and_stored_as_jpeg():
    data = (CASES / "turned.heic").read_bytes()
    picture = read_image(data)

    stored, extension = storable_bytes(data, picture)

    assert (picture.format, picture.width, picture.height) == ("HEIC", 128, 96)
    assert np.abs(picture.pixels[10, 10].astype(int) - (200, 30, 20)).max() < 20
    assert picture.pixels[80, 10].max() < 60
    assert extension == "jpg" and read_image(stored).width == 128


@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_webp_and_avif_are_read_and_stored_as_jpeg(format):
    data = draw_picture((160, 120), format=format)
    picture = read_image(data)

    stored, extension = storable_bytes(data, picture)

    assert (picture.width, picture.height, extension) == (160, 120, "jpg")
    assert np.abs(read_image(stored).pixels.astype(int) - picture.pixels).mean() < 2


def without_support() -> dict[str, bytes]:
    jpeg = draw_picture((40, 40))
    frame = jpeg.index(b"\xff\xc0")
    bitmap = draw_picture((40, 40), format="BMP")
    return {
        "JPEG of 12 bits": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "lossless JPEG": jpeg[:frame] + b"\xff\xc3" + jpeg[frame + 2 :],
        "JPEG within a BMP": bitmap[:30] + struct.pack("<I", 4) + bitmap[34:],
        "TIFF of 64 bits": encoded(Image.new("L", (40, 40)), "TIFF").replace(
            struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 1, 64)
        ),
    }


@pytest.mark.parametrize("data", without_support().values(), ids=without_support())
def test_a_whole_picture_of_a_rare_kind_is_not_called_damaged(data):
    with pytest.raises(InvalidImage, match="not supported"):
        read_image(data)
