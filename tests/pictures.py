"""Pictures drawn at run time, so that the repository needs no binary test files."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image, ImageDraw

from recognition.quality import has_structure


def draw_picture(
    size: tuple[int, int] = (160, 160),
    colour: Any = "tan",
    format: str = "JPEG",
    *,
    mode: str = "RGB",
    seed: int = 0,
    **options: Any,
) -> bytes:
    """Draw an encoded picture that resembles a face but is not detected as one.

    Other colours and seeds give other pictures, and so other embeddings. `options` are passed to
    Pillow.
    """
    image = Image.new("RGB", size, colour)
    draw, shapes = ImageDraw.Draw(image), random.Random(f"{seed} {colour}")
    width, height = size
    for _ in range(12):
        x, y = shapes.randrange(width), shapes.randrange(height)
        radius = shapes.randrange(1, max(2, min(size) // 3))
        ink = tuple(shapes.randrange(256) for _ in range(3))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)
    return encoded(image.convert(mode), format, **options)


def draw_crop(seed: str) -> bytes:
    """Draw a picture that the service takes for a crop of a face: one drawing in 1,600 is too plain."""
    drawn = (draw_picture((112, 112), seed=f"{seed} {number}") for number in count())
    return next(each for each in drawn if has_structure(np.array(Image.open(io.BytesIO(each)))))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return the picture as a file; `options` are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def packed(files: Mapping[Any, bytes | str], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a ZIP of these files; a key is a name or a `ZipInfo`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def upload(content: bytes | None = None, name: str = "face.jpg") -> SimpleUploadedFile:
    """Return a file for a form; a drawn picture unless content is given."""
    return SimpleUploadedFile(name, draw_picture() if content is None else content, "image/jpeg")
