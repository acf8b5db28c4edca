"""Pictures drawn at run time, so that the repository needs no binary test files."""

from __future__ import annotations

import io
import random
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image, ImageDraw


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
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def upload(content: bytes | None = None, name: str = "face.jpg") -> SimpleUploadedFile:
    """Return a file for a form; a drawn picture unless content is given."""
    return SimpleUploadedFile(name, draw_picture() if content is None else content, "image/jpeg")
