"""Convert decoded pictures to 8-bit sRGB, as an image viewer shows them."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from recognition.imaging.refusals import damaged

logger = logging.getLogger(__name__)

_BAND_PIXELS: Final = 2_000_000  # converted at a time
_LARGEST_PROFILE: Final = 4_000_000  # bytes
_PROFILE_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SAME_COLOUR: Final = 2  # largest difference, in levels of 255, of a profile that equals sRGB
_SRGB_GAMMA: Final = 1 / 2.2
_SAME_GAMMA: Final = 0.05
# Maximum values of 8, 10, 12, 14 and 16 bits a channel, for values stored in larger types.
_FULL_SCALES: Final = (255, 1023, 4095, 16383, 65535)
_OTHER_ORDER: Final = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_Conversion = Callable[[Image.Image], Image.Image]


def rgb_pixels(
    image: Image.Image,
    *,
    profile: bytes | None = None,
    gamma: float | None = None,
    dark_is_high: bool = False,
    low_bytes: Callable[[], Image.Image | None] | None = None,
) -> np.ndarray:
    """Return a decoded picture as H×W×3 uint8 sRGB.

    Transparency is blended over white, unless the whole picture is transparent, which is taken for
    an error of the program that wrote it. A colour `profile` (ICC), or else the exponent `gamma` of
    a PNG, is applied; a broken or unsuitable one is ignored. `dark_is_high` says that 0 is white in
    a grey picture. `low_bytes` returns the lower bytes of a picture of 16 bits a channel, for those
    that use fewer bits; None for formats that have none.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _deep_grey_to_8_bits(image, dark_is_high)
    elif low_bytes and (shallow := _shallow_colour(image, low_bytes)) is not None:
        image = shallow
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        if image.getchannel("A").getextrema()[1] == 0:
            image = image.convert("RGB")
    to_srgb = _to_srgb(image, profile, gamma)
    bands = list(_bands(image))
    if len(bands) == 1:
        return np.asarray(to_srgb(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for band in bands:
        pixels[band[1] : band[3]] = np.asarray(to_srgb(image.crop(band)))
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes (left, top, right, bottom) of the bands that are converted one at a time."""
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _to_srgb(image: Image.Image, profile: bytes | None, gamma: float | None) -> _Conversion:
    by_profile = _profile_conversion(image.mode, profile) if profile else None
    if by_profile:
        return by_profile
    if image.mode == "LAB":
        return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")
    if gamma and abs(gamma / _SRGB_GAMMA - 1) > _SAME_GAMMA:
        table = [round(255 * (level / 255) ** min(_SRGB_GAMMA / gamma, 10)) for level in range(256)]
        return lambda band: _over_white(band).point(table * 3)
    return _over_white


def _over_white(band: Image.Image) -> Image.Image:
    if band.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB")
    return band if band.mode == "RGB" else band.convert("RGB")


def _profile_conversion(mode: str, content: bytes) -> _Conversion | None:
    """Return the conversion by an ICC profile for this mode; None if it is useless."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content[:_LARGEST_PROFILE]))
        space = _PROFILE_MODES.get(profile.profile.xcolor_space.strip())
        if (
            space is None
            or (space != "RGB" and space != mode)
            or (space == "RGB" and mode == "CMYK")
        ):
            return None
        convert = _transform(profile, space)
        if space == "RGB":
            seen = np.asarray(convert(_COLOURS)).astype(int)
            if np.abs(seen - np.asarray(_COLOURS)).max() <= _SAME_COLOUR:
                return None  # the profile is sRGB itself
            return lambda band: convert(_over_white(band))
        convert(Image.new(space, (1, 1)))
        return convert
    except Exception:  # noqa: BLE001 (a broken profile is ignored, like all metadata)
        logger.debug("Unusable colour profile, sRGB assumed", exc_info=True)
        return None


def _transform(profile: ImageCms.ImageCmsProfile, mode: str) -> _Conversion:
    transform = ImageCms.ImageCmsTransform(
        profile, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB"
    )
    return transform.apply


def _colour_samples() -> Image.Image:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    return Image.fromarray(np.ascontiguousarray(cube))


_COLOURS: Final = _colour_samples()


def _deep_grey_to_8_bits(image: Image.Image, dark_is_high: bool) -> Image.Image:
    """Convert grey of 16 or 32 bits to 8 bits, relative to its full scale.

    The full scale is the smallest of 8, 10, 12, 14 or 16 bits that holds every value, 1 for
    fractions, else the maximum itself. Negative values become black.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise damaged()
    maximum = float(values.max())
    scale = next((one for one in _scales(image.mode) if maximum <= one), maximum)
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = values[top : top + rows].astype(np.float32) * (255 / scale)
        grey[top : top + rows] = np.rint(band).clip(0, 255)
    return Image.fromarray(255 - grey if dark_is_high else grey)


def _scales(mode: str) -> tuple[int, ...]:
    if mode == "F":
        return (1, 255, 65535)
    return _FULL_SCALES if mode.startswith("I;16") else (255, 65535)


def _shallow_colour(
    image: Image.Image, low_bytes: Callable[[], Image.Image | None]
) -> Image.Image | None:
    """Convert a picture of 16 bits a channel that uses 14 or fewer to 8 bits; None for others.

    Pillow keeps only the upper 8 of 16 bits, which hold little or nothing of such a picture.
    """
    if image.mode not in ("RGB", "RGBA"):
        return None
    if np.max(image.getextrema()[:3]) >= 64:
        return None
    lower = low_bytes()
    if lower is None:
        return None
    bands = list(_bands(image))
    highest = max(int(_of_16_bits(image.crop(band), lower.crop(band)).max()) for band in bands)
    scale = np.float32(255 / next(one for one in _FULL_SCALES if highest <= one))
    colour = Image.new("RGB", image.size)
    for band in bands:
        levels = np.rint(_of_16_bits(image.crop(band), lower.crop(band)) * scale)
        colour.paste(Image.fromarray(levels.astype(np.uint8)), band)
    if image.mode == "RGBA":
        colour.putalpha(image.getchannel("A"))
    return colour


def _of_16_bits(upper: Image.Image, lower: Image.Image) -> np.ndarray:
    """Return H×W×3 uint16 from the upper and the lower bytes of a picture's colours."""
    values = np.asarray(upper)[..., :3].astype(np.uint16)
    values <<= 8
    values |= np.asarray(lower)[..., :3]
    return values


def other_byte(rawmode: str) -> str | None:
    """Return Pillow's raw mode for the lower bytes, given the raw mode for the upper bytes."""
    layout, found, order = rawmode.partition(";16")
    return f"{layout};16{_OTHER_ORDER[order]}" if found and order in _OTHER_ORDER else None
