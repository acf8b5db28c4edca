"""Random changes of a whole batch at once, on the processor or the GPU.

Training pictures are few and partly grey; the pictures of users are in colour, badly lit, blurred,
small and not always well aligned. Everything is drawn for each picture of the batch on its own.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

MAX_ROTATION = math.radians(10)
MAX_SHIFT = 0.06  # of the side
MAX_SCALING = 0.10
SMALLEST_SIDE = 20  # pixels, before a small picture is scaled up again


def augment(images: torch.Tensor, generator: torch.Generator, plain: float = 0.0) -> torch.Tensor:
    """N×3×112×112 uint8 RGB to N×3×112×112 float32 in [-1, 1], augmented.

    The share `plain` of them is mirrored and nothing else: a short run learns more from pictures
    that look like those it will be asked about.
    """
    x = images.float() / 255
    count = round(plain * len(x))
    mirrored = torch.where(_happens(x[:count], generator, 0.5), x[:count].flip(3), x[:count])
    changed = _change(x[count:], generator) if count < len(x) else x[count:]
    return torch.cat((mirrored, changed)).clamp(0, 1) * 2 - 1


def _change(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    x = _move(x, generator)
    x = _recolour(x, generator)
    x = _coarsen(x, generator)
    return _cover(x, generator)


def scale(images: torch.Tensor) -> torch.Tensor:
    """N×3×112×112 uint8 RGB to float32 in [-1, 1], as the networks read them."""
    return images.float() / 127.5 - 1


def _uniform(
    x: torch.Tensor, generator: torch.Generator, low: float, high: float, channels: int = 1
) -> torch.Tensor:
    """N×C×1×1 random numbers on the batch's device."""
    shape = (len(x), channels, 1, 1)
    return torch.empty(shape, device=x.device).uniform_(low, high, generator=generator)


def _happens(x: torch.Tensor, generator: torch.Generator, probability: float) -> torch.Tensor:
    return _uniform(x, generator, 0, 1) < probability


def _move(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrors, rotates, scales and shifts a little: alignment is never perfect."""
    angle, grow, right, down = (
        _uniform(x, generator, -limit, limit).flatten()
        for limit in (MAX_ROTATION, MAX_SCALING, 2 * MAX_SHIFT, 2 * MAX_SHIFT)
    )
    mirror = torch.where(_happens(x, generator, 0.5).flatten(), -1.0, 1.0)
    zoom = 1 + grow
    rows = (
        torch.stack((zoom * angle.cos() * mirror, -zoom * angle.sin(), right), 1),
        torch.stack((zoom * angle.sin() * mirror, zoom * angle.cos(), down), 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _recolour(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Saturation down to grey, tint, gamma, contrast and brightness."""
    grey = x.mean(1, keepdim=True)
    saturation = _uniform(x, generator, 0.3, 1.5) * ~_happens(x, generator, 0.2)
    x = grey + (x - grey) * saturation
    tint = _uniform(x, generator, -0.22, 0.22, channels=3) * _happens(x, generator, 0.7)
    x = x * (1 + tint)
    x = x.clamp(1e-3, 1) ** _uniform(x, generator, -0.5, 0.5).exp()
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * _uniform(x, generator, 0.6, 1.35)
    return x + _uniform(x, generator, -0.15, 0.15)


def _coarsen(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the batch loses detail, a quarter by low resolution and a quarter by blur; noise."""
    small, blurred = (len(x) // 4, len(x) // 2)
    side = int(torch.randint(SMALLEST_SIDE, x.shape[-1], (), generator=generator, device=x.device))
    low = functional.interpolate(
        x[:small], size=side, mode="bilinear", antialias=True, align_corners=False
    )
    low = functional.interpolate(low, size=x.shape[-1], mode="bilinear", align_corners=False)
    soft = functional.avg_pool2d(x[small:blurred], 3, 1, 1, count_include_pad=False)
    x = torch.cat((low, soft, x[blurred:]))
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    return x + noise * _uniform(x, generator, 0, 0.04)


def _cover(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Hides a rectangle of a quarter of the pictures: hands, masks, hair, sunglasses."""
    ruler = torch.linspace(0, 1, x.shape[-1], device=x.device)
    top, left = _uniform(x, generator, -0.1, 0.9), _uniform(x, generator, -0.1, 0.9)
    height, width = _uniform(x, generator, 0.1, 0.45), _uniform(x, generator, 0.1, 0.45)
    rows, columns = ruler[None, None, :, None], ruler[None, None, None, :]
    inside = (rows > top) & (rows < top + height) & (columns > left) & (columns < left + width)
    hidden = inside & _happens(x, generator, 0.25)
    return torch.where(hidden, _uniform(x, generator, 0, 1), x)
