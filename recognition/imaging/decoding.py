"""Decode the bytes of a file to upright RGB pixels, within limits that are checked before the work."""

from __future__ import annotations

import io
import re
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from recognition.exceptions import InvalidImage
from recognition.imaging import refusals
from recognition.imaging.budget import budget
from recognition.imaging.colour import other_byte, rgb_pixels
from recognition.imaging.formats import FORMATS, file_kind
from recognition.imaging.jpeg import Jpeg, read_jpeg
from recognition.imaging.png import read_png
from recognition.imaging.tiff import orientation_of, read_tiff
from recognition.instrumentation import timed

# Decoders' messages for valid files that they do not support.
_UNSUPPORTED: Final = re.compile(
    "unsupported|not supported|not (?:yet )?implemented|unknown pixel mode|cannot handle|not available"
    "|no decoding plugin|unrecognized image mode",
    re.IGNORECASE,
)
# Bits with different meanings in every Huffman table: a truncated scan decodes to different pixels.
_OTHER_ENDS: Final = (b"\x55\xaa" * 32, b"\xfe" * 64, bytes(range(255)) * 4)
# Pillow decodes run-length-encoded bitmaps slowly, in Python.
_MOST_RLE_PIXELS: Final = 4_000_000
_MOST_RLE_BYTES: Final = 4_000_000
# Damaged files make Pillow warn with ever new texts, each of which Python keeps.
warnings.filterwarnings("ignore", module=r"PIL\.")
# The block size of Pillow's allocations. glibc returns blocks of 32 MiB or more to the system at once.
# With the default of 16 MiB, each thread would keep the memory of its largest picture.
Image.core.set_block_size(64 * 1024**2)  # type: ignore[attr-defined]  # there is no public way


@dataclass(slots=True, eq=False)
class DecodedImage:
    """A decoded picture.

    `pixels` is H×W×3 uint8 sRGB, upright, C-contiguous and read-only. `width` and `height` are
    those of the full upright picture; `pixels` is smaller if it was decoded at a reduced scale.
    `orientation` is the EXIF orientation (1 to 8) that was undone.
    """

    pixels: np.ndarray
    format: str  # one of FORMATS
    width: int
    height: int
    orientation: int = 1

    @property
    def scale(self) -> float:
        """The size of `pixels` relative to the full picture, 1 or less."""
        return float(self.pixels.shape[1] / self.width)

    def forget(self) -> None:
        """Release the pixels."""
        self.pixels = np.empty((0, 0, 3), np.uint8)


@dataclass(slots=True)
class _Source:
    """A picture whose header was read, and what its decoding needs."""

    kind: str
    image: Image.Image
    reopened: Callable[[], Image.Image]
    decoded_pixels: int = 0  # if the decoder produces more pixels than the picture has
    orientation: int = 1
    profile: bytes | None = None
    gamma: float | None = None
    dark_is_high: bool = False
    jpeg: Jpeg | None = None
    common: bool = True  # False: not every build of the decoder supports it


@contextmanager
def opened_image(data: bytes, *, side: int | None = None) -> Iterator[DecodedImage]:
    """Decode a picture, whose pixels count in the process's budget until the block ends.

    Wait while other threads hold as many pixels as `MAX_DECODED_PIXELS` allows. Raise
    `InvalidImage` for anything but a complete picture within the limits. With `side` a JPEG may be
    decoded at a half, a quarter or an eighth of its size, with a longer side of at least `side`
    pixels. After the block nothing holds the pixels, not even the traceback of an error.
    """
    with _decoded(data, side) as image:
        try:
            yield image
        except Exception as error:
            _let_go(error)
            raise
        finally:
            image.forget()


def read_image(data: bytes) -> DecodedImage:
    """Decode a picture like `opened_image`, for code that reads one picture at a time outside
    requests."""
    with _decoded(data) as image:
        return image


@contextmanager
def _decoded(data: bytes, side: int | None = None) -> Iterator[DecodedImage]:
    if not data:
        raise refusals.empty()
    kind = file_kind(data)
    if kind not in FORMATS:
        raise refusals.unrecognised(kind)
    source = _guarded(kind, partial(_OPENERS[kind], data))
    refusals.check_size(source.image.width, source.image.height)
    upright_size = _upright_size(source)
    if side and source.jpeg and source.jpeg.complete:
        _reduce(source.image, side)
    pixels = source.image.width * source.image.height
    with budget.reserved(max(pixels, source.decoded_pixels)):
        with timed("decode"):
            decoded = _guarded(kind, partial(_decode, source))
        image = DecodedImage(decoded, kind, *upright_size, source.orientation)
        del decoded
        yield image


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of the error, which would hold pixels for as long as the error is kept."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _guarded(kind: str, work: Callable[[], Any]) -> Any:
    """Return what `work` returns. Raise `InvalidImage` for any exception that a decoder raises."""
    try:
        return work()
    except Exception as error:
        _let_go(error)
        if isinstance(error, InvalidImage | MemoryError):
            raise
        if isinstance(error, Image.DecompressionBombError):
            raise refusals.too_many_pixels() from error
        if _UNSUPPORTED.search(str(error)):
            raise refusals.unsupported(kind) from error
        raise refusals.damaged() from error


def _source(kind: str, opener: Callable[[], Image.Image], **found: Any) -> _Source:
    image = opener()
    profile = image.info.get("icc_profile")
    found.setdefault("profile", profile if isinstance(profile, bytes) else None)
    return _Source(kind, image, opener, **found)


def _open_jpeg(data: bytes) -> _Source:
    jpeg = read_jpeg(data)
    opener = lambda: JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg.whole))  # noqa: E731
    source = _source("JPEG", opener, orientation=jpeg.orientation, jpeg=jpeg)
    if jpeg.scans > 1 or "progressive" in source.image.info:
        # The decoder keeps the coefficients of all pixels until the last scan, at every scale.
        source.decoded_pixels = jpeg.width * jpeg.height
    return source


def _open_png(data: bytes) -> _Source:
    png = read_png(data)
    opener = lambda: PngImagePlugin.PngImageFile(io.BytesIO(png.content))  # noqa: E731
    return _source("PNG", opener, orientation=png.orientation, profile=png.profile, gamma=png.gamma)


def _open_bmp(data: bytes) -> _Source:
    content = _with_usable_palette(data)
    source = _source("BMP", lambda: BmpImagePlugin.BmpImageFile(io.BytesIO(content)))
    is_compressed = any(tile.codec_name == "bmp_rle" for tile in _tiles(source.image))
    if is_compressed and (
        source.image.width * source.image.height > _MOST_RLE_PIXELS or len(data) > _MOST_RLE_BYTES
    ):
        raise refusals.too_complex()
    return source


def _with_usable_palette(data: bytes) -> bytes:
    """Return the bitmap with at most as many palette colours as pixels can name, as Pillow
    requires."""
    try:
        header, depth, colours = struct.unpack_from("<14xL10xH16xL", data)
    except struct.error:
        return data
    if header < 40 or depth > 8 or colours <= 1 << depth:
        return data
    return data[:46] + struct.pack("<L", 1 << depth) + data[50:]


def _open_tiff(data: bytes) -> _Source:
    tiff = read_tiff(data)
    opener = lambda: TiffImagePlugin.TiffImageFile(io.BytesIO(tiff.content))  # noqa: E731
    return _source(
        "TIFF",
        opener,
        orientation=tiff.orientation,
        dark_is_high=tiff.dark_is_high,
        decoded_pixels=tiff.decoded_pixels,
        common=tiff.common,
    )


def _open_webp(data: bytes) -> _Source:
    source = _source("WebP", lambda: WebPImagePlugin.WebPImageFile(io.BytesIO(data)))
    source.orientation = orientation_of(source.image.info.get("exif", b""))
    return source


def _open_avif(data: bytes) -> _Source:
    # The container states the rotation, so hide the EXIF metadata, which Pillow would parse.
    start = data.find(b"iinf")
    end = start + int.from_bytes(data[start - 4 : start], "big") if start >= 4 else 0
    if start >= 4 and end > start:
        data = data[:start] + data[start:end].replace(b"Exif", b"free") + data[end:]
    source = _source("AVIF", lambda: AvifImagePlugin.AvifImageFile(io.BytesIO(data)))
    source.orientation = orientation_of(source.image.info.get("exif", b""))
    return source


def _open_heic(data: bytes) -> _Source:
    # The first call of `pi_heif.open_heif`. Its later ones read metadata and thumbnails, where damaged
    # files crash the whole process (SIGSEGV, pi_heif 1.4.0).
    import _pi_heif

    threads, to_8_bits, as_bgr, without_stride, to_16_bits, unlimited = (
        4,
        True,
        False,
        True,
        True,
        False,
    )
    limits = (threads, to_8_bits, as_bgr, without_stride, to_16_bits, "", unlimited)
    pictures = _pi_heif.load_file(data, *limits)
    pictures = sorted(filter(None, pictures), key=lambda picture: not picture.primary)
    return _source("HEIC", lambda: _HeicImage(pictures[0]))


class _HeicImage(Image.Image):
    """A picture that libheif decodes upright when it is loaded."""

    def __init__(self, picture: Any) -> None:
        super().__init__()
        self._picture = picture
        self._size, self._mode = picture.size_mode
        profile = picture.color_profile or {}
        if profile.get("type") in ("rICC", "prof"):
            self.info = {"icc_profile": profile["data"]}

    def load(self) -> Any:
        if self._picture is not None:
            picture, self._picture = self._picture, None
            data = picture.data  # decodes; only then the size is final
            size, mode = picture.size_mode
            whole = Image.frombuffer(mode, size, data, "raw", mode, picture.stride, 1)
            self._size, self.im = whole.size, whole.im
        return super().load()


_OPENERS: Final[dict[str, Callable[[bytes], _Source]]] = {
    "JPEG": _open_jpeg,
    "PNG": _open_png,
    "WebP": _open_webp,
    "HEIC": _open_heic,
    "AVIF": _open_avif,
    "BMP": _open_bmp,
    "TIFF": _open_tiff,
}


def _upright_size(source: _Source) -> tuple[int, int]:
    width, height = source.image.size
    return (height, width) if source.orientation >= 5 else (width, height)


def _reduce(image: Image.Image, side: int) -> None:
    longer = max(image.size)
    if longer >= 2 * side:
        width, height = (max(1, length * side // longer) for length in image.size)
        image.draft(None, (width, height))


def _decode(source: _Source) -> np.ndarray:
    image = source.image
    del source.image  # 4 bytes a pixel, which would be kept while the picture is open
    try:
        image.load()
    except OSError as error:
        raise error if source.common else refusals.unsupported(source.kind) from error
    if source.jpeg and not source.jpeg.complete and not _is_whole(source.jpeg, image):
        raise refusals.damaged()
    pixels = rgb_pixels(
        image,
        profile=source.profile,
        gamma=source.gamma,
        dark_is_high=source.dark_is_high,
        low_bytes=None if source.jpeg else partial(_low_bytes, source),
    )
    del image
    pixels = _upright(pixels, source.orientation)
    pixels.flags.writeable = False
    return pixels


def _is_whole(jpeg: Jpeg, image: Image.Image) -> bool:
    """Return whether only the end marker is missing: no pixel depends on what would follow."""
    pixels = image.tobytes()
    for more in _OTHER_ENDS:
        other = JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg.content + more + b"\xff\xd9"))
        other.load()
        if other.tobytes() != pixels:
            return False
    return True


def _tiles(image: Image.Image) -> list[ImageFile._Tile]:
    """Return the tiles that Pillow will decode; empty if another library decodes the picture."""
    return image.tile if isinstance(image, ImageFile.ImageFile) else []


def _low_bytes(source: _Source) -> Image.Image | None:
    """Return the lower bytes of a picture of 16 bits a channel; None for other pictures."""
    image = source.reopened()
    tiles = []
    for tile in _tiles(image):
        first, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or (None,)
        rawmode = other_byte(first) if isinstance(first, str) else None
        if rawmode is None:
            return None
        args = rawmode if isinstance(tile.args, str) else (rawmode, *rest)
        tiles.append(tile._replace(args=args))
    if not tiles:
        return None
    vars(image)["tile"] = tiles
    image.load()
    return image


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation; return contiguous pixels."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
