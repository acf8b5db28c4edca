"""Faces that nobody has, joined from two people's crops, for a teacher that is asked about each.

A network that only sees the people of its training set knows these better than others. With most
of a batch recombined, it hardly sees a face twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from recognition.networks.registry import CROP_SIZE
from training.gpu_augmentation import Chance

CANDIDATES = 64  # crops among which a similar partner is looked for
SIMILAR_SHARE = 0.5  # of the partners; the others are drawn blindly
SAME_PERSON = 0.6  # cosine of the teacher; a partner above it would be no other person
ALONE_SHARE = 0.15  # only warped
MATCHED_SHARE = 0.8  # the partner takes over mean and contrast of the colours
CENTRE = (slice(24, 104), slice(16, 96))  # rows and columns where these are measured
BLEND_SHARE, BLEND = 0.35, (0.25, 0.75)  # both faces are blended evenly; else region by region
EDGE = (2.0, 6.0)  # steepness of the borders between regions
HALVES_SHARE, HALVES, DOWN_SHARE = 0.4, (-0.3, 0.4), 0.8  # upper and lower half, or left and right
WARP_SHARE, WARP = 0.4, (1.0, 4.0)  # pixels, standard deviation
FIELD = 4  # regions and warps are random numbers on 4×4 places, interpolated


class Recombined(NamedTuple):
    """K places in a batch, and their recombined crops before augmentation: K×3×112×112 in [-1, 1]."""

    places: torch.Tensor
    crops: torch.Tensor


class Partners:
    """Chooses which crops of a batch are recombined, and with whom."""

    def __init__(self, directions: torch.Tensor, rows: torch.Tensor, share: float) -> None:
        """Take the teacher's N×D directions of all crops, and the rows of those in the training."""
        self.directions, self.rows, self.share = directions, rows, share

    def choose(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the places to recombine, spread over the batch of these `rows`, and the rows of
        the partners. All is on one device."""
        count, device = round(self.share * len(rows)), rows.device
        places = torch.arange(count, device=device) * len(rows) // max(count, 1)
        shape, chance = (count, CANDIDATES), {"generator": generator, "device": device}
        candidates = self.rows[torch.randint(len(self.rows), shape, **chance)]
        own = self.directions[rows[places]]
        cosines = (self.directions[candidates] @ own[:, :, None])[..., 0]
        best = cosines.masked_fill(cosines > SAME_PERSON, -1).argmax(1, keepdim=True)
        similar = torch.rand(count, **chance) < SIMILAR_SHARE
        return places, torch.where(similar, candidates.gather(1, best)[:, 0], candidates[:, 0])


def recombine(own: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Join N×3×112×112 uint8 RGB crops with as many others into N×3×112×112 uint8 RGB.

    The generator must be on the same device.
    """
    chance = Chance(len(own), generator, own.device)
    first, second = (
        torch.where(chance.happens(0.5), crops.flip(3), crops).float() for crops in (own, other)
    )
    matched = torch.where(chance.happens(MATCHED_SHARE), _match(second, first), second)
    alone = chance.happens(ALONE_SHARE)
    joined = first + (matched - first) * torch.where(alone, 0.0, _share_of_other(chance))
    warped = alone | chance.happens(WARP_SHARE)
    return torch.where(warped, _warp(joined, chance), joined).round().clamp(0, 255).byte()


def _match(crops: torch.Tensor, models: torch.Tensor) -> torch.Tensor:
    """Give the crops the mean and standard deviation of each colour that the models have."""
    (spread, mean), (wanted, place) = (
        torch.std_mean(x[..., CENTRE[0], CENTRE[1]], (2, 3), keepdim=True) for x in (crops, models)
    )
    gain = (wanted / spread.clamp_min(4)).clamp(0.5, 2)
    return ((crops - mean) * gain + place).clamp(0, 255)


def _share_of_other(chance: Chance) -> torch.Tensor:
    """Return N×1×112×112 shares: one for the whole face, or regions with soft borders."""
    regions = _field(chance, 1)
    ruler = torch.linspace(-1, 1, CROP_SIZE, device=regions.device)
    down = chance.happens(DOWN_SHARE)
    ramp = torch.where(down, ruler.view(1, 1, -1, 1), ruler.view(1, 1, 1, -1))
    ramp = 3 * (ramp - chance.uniform(*HALVES)) * (2.0 * chance.happens(0.5) - 1)
    regions = torch.where(chance.happens(HALVES_SHARE), regions / 2 + ramp, regions)
    regions = (regions * chance.uniform(*EDGE)).sigmoid()
    return torch.where(chance.happens(BLEND_SHARE), chance.uniform(*BLEND), regions)


def _warp(crops: torch.Tensor, chance: Chance) -> torch.Tensor:
    """Move the features of each face smoothly, which changes its shape."""
    shift = _field(chance, 2) * chance.uniform(*WARP) * (2 / CROP_SIZE)
    still = torch.eye(2, 3, device=crops.device).expand(len(crops), 2, 3)
    grid = functional.affine_grid(still, list(crops.shape), align_corners=False)
    grid = grid + shift.permute(0, 2, 3, 1)
    return functional.grid_sample(crops, grid, padding_mode="reflection", align_corners=False)


def _field(chance: Chance, channels: int) -> torch.Tensor:
    """Return N×channels×112×112 smooth random numbers, of a standard deviation of about 1."""
    shape = (chance.count, channels, FIELD, FIELD)
    knots = torch.empty(shape, device=chance.device).normal_(generator=chance.generator)
    return functional.interpolate(knots, size=(CROP_SIZE, CROP_SIZE), mode="bicubic")
