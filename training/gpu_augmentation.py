"""The augmentation of `training.augmentation` for whole batches on a GPU."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch.nn import functional

from recognition.networks.registry import CROP_SIZE
from training import augmentation as ranges

GROUPS = 6  # different strengths of low resolution, blur and JPEG in a batch


def augment(images: torch.Tensor, generator: torch.Generator, plain: float = 0.0) -> torch.Tensor:
    """Augment N×3×112×112 uint8 RGB crops, each differently; return float32 in [-1, 1].

    The share `plain` of them is only mirrored or left unchanged. The generator must be on the same
    device.
    """
    chance = Chance(len(images), generator, images.device)
    x = images.float() / 255
    x = torch.where(chance.happens(0.5), x.flip(3), x)
    changed = round((1 - plain) * len(x))
    if changed:
        head = Chance(changed, generator, images.device)
        some = _coarsen(_light(_colour(_move(x[:changed], head), head), head), head)
        x = torch.cat((_cover(some, head), x[changed:]))
    return x.clamp(0, 1) * 2 - 1


class Chance:
    """Random numbers for the N crops of a batch, N×1×1×1 on their device."""

    def __init__(self, count: int, generator: torch.Generator, device: torch.device) -> None:
        self.count, self.generator, self.device = count, generator, device
        # Numbers that determine shapes are drawn on the CPU, so that nothing waits for the device.
        self.host = torch.Generator().manual_seed(generator.initial_seed() + count)

    def uniform(self, low: float, high: float, channels: int = 1) -> torch.Tensor:
        shape = (self.count, channels, 1, 1)
        return torch.empty(shape, device=self.device).uniform_(low, high, generator=self.generator)

    def normal(self, deviation: float) -> torch.Tensor:
        shape = (self.count, 1, 1, 1)
        return torch.empty(shape, device=self.device).normal_(
            0, deviation, generator=self.generator
        )

    def happens(self, probability: float) -> torch.Tensor:
        return self.uniform(0, 1) < probability

    def some(self, probability: float) -> list[torch.Tensor]:
        """Return the indices of about this share of the crops, all different, in up to `GROUPS`
        groups."""
        order = torch.randperm(self.count, generator=self.generator, device=self.device)
        groups = order[: round(probability * self.count)].chunk(GROUPS)
        return [group for group in groups if len(group)]

    def numbers(self, count: int, low: float, high: float) -> list[float]:
        """Return a few uniform random numbers on the CPU."""
        return (torch.rand(count, generator=self.host) * (high - low) + low).tolist()


def _move(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Rotate, scale, stretch and shift, like the errors of a detector."""
    usual = chance.happens(1 - ranges.TURN_SHARE)
    most = ranges.TURN_MOST
    angle = torch.where(usual, chance.normal(ranges.TURN), chance.uniform(-most, most)).deg2rad()
    down = chance.normal(ranges.ZOOM).exp()
    across = down * chance.normal(ranges.STRETCH).exp()
    limit = ranges.SHIFT_MOST
    right, low = (chance.normal(ranges.SHIFT).clamp(-limit, limit) * 2 / CROP_SIZE for _ in "xy")
    rows = (
        torch.cat((across * angle.cos(), -down * angle.sin(), right), 3),
        torch.cat((across * angle.sin(), down * angle.cos(), low), 3),
    )
    grid = functional.affine_grid(torch.cat(rows, 2)[:, 0], list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _colour(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    luma = torch.tensor((0.299, 0.587, 0.114), device=x.device).view(1, 3, 1, 1)
    grey = (x * luma).sum(1, keepdim=True)
    draw = chance.uniform(0, 1)
    saturation = torch.where(
        draw < ranges.GREY_SHARE + ranges.SATURATION_SHARE, chance.uniform(*ranges.SATURATION), 1.0
    )
    saturation = torch.where(draw < ranges.GREY_SHARE, 0.0, saturation)
    return (grey + (x - grey) * saturation).clamp(0, 1)


def _light(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    gamma = chance.uniform(-ranges.GAMMA, ranges.GAMMA).exp()
    lit = (x.clamp_min(1e-4) ** gamma - ranges.MIDDLE) * chance.uniform(*ranges.CONTRAST)
    lit = lit + ranges.MIDDLE + chance.uniform(-ranges.BRIGHTNESS, ranges.BRIGHTNESS)
    tint = chance.uniform(-ranges.TINT, ranges.TINT, 3) * chance.happens(ranges.TINT_SHARE)
    x = torch.where(chance.happens(ranges.LIGHT_SHARE), (lit * (1 + tint)).clamp(0, 1), x)
    ruler = torch.linspace(0, 1, x.shape[-1], device=x.device)
    across = torch.where(chance.happens(0.75), ruler.view(1, 1, 1, -1), ruler.view(1, 1, -1, 1))
    across = torch.where(chance.happens(0.5), across, 1 - across)
    dark, bright = (chance.uniform(*limits) for limits in ranges.SIDE_LIGHT)
    ramp = torch.where(
        chance.happens(ranges.SIDE_LIGHT_SHARE), dark + (bright - dark) * across, 1.0
    )
    return (x * ramp).clamp(0, 1)


def _coarsen(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Apply low resolution, blur or motion blur to disjoint groups, then noise and JPEG to random
    crops."""
    size = x.shape[-1]
    groups = chance.some(ranges.SMALL_SHARE + ranges.BLUR_SHARE + ranges.MOTION_SHARE)
    small = round(len(groups) * ranges.SMALL_SHARE / 0.33)
    draws = chance.numbers(len(groups), 0, 1)
    for number, (places, draw) in enumerate(zip(groups, draws, strict=True)):
        if number < small:
            fewest, most = (math.log(side) for side in ranges.SMALL)
            x[places] = _resize_twice(x[places], round(math.exp(fewest + draw * (most - fewest))))
        elif number < len(groups) - 1:
            low, high = ranges.BLUR
            x[places] = _blur(x[places], (low + draw * (high - low)) * size / CROP_SIZE)
        else:
            length = round(ranges.MOTION[0] + draw * (ranges.MOTION[1] - ranges.MOTION[0]))
            window = (1, length) if draw < 0.5 else (length, 1)
            x[places] = _mean(x[places], window)
    strength = chance.uniform(*ranges.NOISE) / 255 * chance.happens(ranges.NOISE_SHARE)
    noise = torch.empty_like(x).normal_(generator=chance.generator)
    x = (x + noise * strength).clamp(0, 1)
    groups = chance.some(ranges.JPEG_SHARE)
    for places, quality in zip(groups, chance.numbers(len(groups), *ranges.JPEG), strict=True):
        x[places] = compress(x[places], quality)
    return x


def _resize_twice(x: torch.Tensor, side: int) -> torch.Tensor:
    size = x.shape[-1]
    low = functional.interpolate(x, size=(side, side), mode="area")
    return functional.interpolate(low, size=(size, size), mode="bilinear", align_corners=False)


def _mean(x: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Return the mean over a window of rows × columns, with replicated borders."""
    rows, columns = window
    padding = ((columns - 1) // 2, columns // 2, (rows - 1) // 2, rows // 2)
    return functional.avg_pool2d(functional.pad(x, padding, mode="replicate"), window, 1)


def _blur(x: torch.Tensor, deviation: float) -> torch.Tensor:
    """Apply a Gaussian blur, first along rows and then along columns."""
    reach = max(1, math.ceil(3 * deviation))
    places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-(places**2) / (2 * deviation**2)).exp()
    kernel = (kernel / kernel.sum()).repeat(x.shape[1], 1, 1, 1)
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, kernel, groups=x.shape[1])
    return functional.conv2d(across, kernel.transpose(2, 3), groups=x.shape[1])


def _cover(x: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Cover a rectangle, the mouth like a mask, or the eyes like glasses, with one colour."""
    draw = chance.uniform(0, 1)
    mask = (draw >= ranges.RECTANGLE) & (draw < ranges.RECTANGLE + ranges.MASK)
    glasses = draw >= ranges.RECTANGLE + ranges.MASK

    def choose(
        of_mask: tuple[float, float], of_glasses: tuple[float, float], other: tuple[float, float]
    ) -> torch.Tensor:
        given = torch.where(mask, chance.uniform(*of_mask), chance.uniform(*other))
        return torch.where(glasses, chance.uniform(*of_glasses), given)

    top = choose((0.58, 0.68), (0.33, 0.4), (-0.05, 0.9))
    left = choose((0.05, 0.2), (0.12, 0.12), (-0.05, 0.9))
    height = choose((0.45, 0.45), (0.12, 0.22), (0.12, 0.4))
    width = choose((0.6, 0.85), (0.76, 0.76), (0.12, 0.4))
    ruler = (torch.arange(x.shape[-1], device=x.device) + 0.5) / x.shape[-1]
    rows, columns = ruler.view(1, 1, -1, 1), ruler.view(1, 1, 1, -1)
    inside = (rows > top) & (rows < top + height) & (columns > left) & (columns < left + width)
    grey, colour = chance.uniform(0, 1), chance.uniform(0, 1, 3)
    paint = torch.where(chance.happens(0.7), colour, grey)
    return torch.where(inside & chance.happens(ranges.COVER_SHARE), paint, x)


# The luminance quantisation table of Annex K of the JPEG standard (ITU-T T.81). The chrominance table
# is approximated by 1.5 times these values, and 99 for values of 30 or more.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class JpegTables(NamedTuple):
    """RGB to YCbCr and back (3×3), the cosine transform (8×8), quantisation at quality 50 (3×8×8)."""

    forth: torch.Tensor
    back: torch.Tensor
    cosines: torch.Tensor
    quantisation: torch.Tensor


@cache
def _jpeg_tables(device: torch.device) -> JpegTables:
    forth = torch.tensor(TO_YCC)
    steps = torch.arange(8.0)
    cosines = ((2 * steps + 1) * steps[:, None] * math.pi / 16).cos() / 2
    cosines[0] /= math.sqrt(2)
    luminance = torch.tensor(LUMINANCE).float()
    colour = torch.where(luminance < 30, luminance * 1.5, 99.0)
    quantisation = torch.stack((luminance, colour, colour))
    tables = (forth, torch.linalg.inv(forth), cosines, quantisation)
    return JpegTables(*(table.to(device) for table in tables))


def compress(x: torch.Tensor, quality: float) -> torch.Tensor:
    """Apply the loss of JPEG with this quality to N×3×H×W in [0, 1]; H and W are multiples of 8."""
    count, _, height, width = x.shape
    tables = _jpeg_tables(x.device)
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = (tables.quantisation * (percent / 100)).round().clamp(1, 255)[:, None, None]
    planes = torch.einsum("ij,njhw->nihw", tables.forth, x * 255 - 128)
    blocks = planes.reshape(count, 3, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = tables.cosines @ blocks @ tables.cosines.T
    waves = (waves / table).round() * table
    blocks = tables.cosines.T @ waves @ tables.cosines
    planes = blocks.transpose(3, 4).reshape(count, 3, height, width)
    pixels = torch.einsum("ij,njhw->nihw", tables.back, planes) + 128
    return (pixels / 255).clamp(0, 1)
