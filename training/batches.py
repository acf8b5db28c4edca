"""Endless shuffled and augmented batches of training crops, made on the CPU or on the GPU.

Batch number `step` depends only on the seed and the size, so a resumed run continues identically.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from recognition.networks.registry import CROP_SIZE
from training import augmentation, gpu_augmentation
from training.faces import Faces
from training.recombination import Partners, Recombined, recombine

CPU = torch.device("cpu")
AHEAD = 4  # batches that are prepared in advance
TRANSFER = 4096  # crops copied to the GPU at a time


class Batch(NamedTuple):
    """N×3×S×S float32 pictures in [-1, 1], channels last, and their N row numbers in the pack.

    Those that are recombined show nobody, and their row numbers are of one of both faces.
    """

    images: torch.Tensor
    rows: torch.Tensor
    recombined: Recombined | None = None


class _Dealer:
    """The choice of crops for each step: every crop once an epoch, in a new order each time."""

    def __init__(self, rows: np.ndarray, batch: int, seed: int, device: torch.device) -> None:
        if len(rows) < batch:
            raise SystemExit(f"{len(rows)} crops are fewer than a batch of {batch}: lower --batch.")
        self.rows, self.batch, self.seed, self.device = rows, batch, seed, device
        self.round, self.order = -1, torch.empty(0)

    def rows_of(self, step: int) -> torch.Tensor:
        number, place = divmod(step, len(self.rows) // self.batch)
        if number != self.round:
            self.round = number
            order = np.random.default_rng((self.seed, number)).permutation(self.rows)
            self.order = torch.from_numpy(order).to(self.device)
        return self.order[place * self.batch : (place + 1) * self.batch]


class _Batches:
    """What both kinds share: which crops a step has, and which of them are recombined."""

    def __init__(
        self,
        faces: Faces,
        rows: np.ndarray,
        batch: int,
        seed: int,
        plain: float,
        device: torch.device = CPU,
        partners: Partners | None = None,
    ) -> None:
        self.faces, self.seed, self.plain = faces, seed, plain
        self.device, self.partners = device, partners
        self.dealer = _Dealer(rows, batch, seed, device)
        self.generator = torch.Generator(device)

    def _crops(self, rows: torch.Tensor) -> torch.Tensor:
        """Return a copy of these crops, N×3×112×112 uint8 on the device."""
        return torch.from_numpy(self.faces.images[rows.numpy()]).permute(0, 3, 1, 2)

    def _dealt(self, step: int) -> Batch:
        """Return the batch before it is augmented, as uint8; seed the generator for the rest."""
        rows = self.dealer.rows_of(step)
        self.generator.manual_seed(self.seed * 1_000_003 + step)
        crops, recombined = self._crops(rows), None
        if self.partners:
            places, others = self.partners.choose(rows, self.generator)
            crops[places] = recombine(crops[places], self._crops(others), self.generator)
            recombined = Recombined(places, scale(crops[places]))
        return Batch(crops, rows, recombined)


class ProcessorBatches(_Batches):
    """Batches augmented crop by crop in a background thread."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.pool = ThreadPoolExecutor(1)
        self.coming: deque[tuple[int, Future[Batch]]] = deque()

    def take(self, step: int, size: int) -> Batch:
        """Return batch number `step` at size×size pixels.

        After a change of size, the next few batches may still have the old size.
        """
        while self.coming and self.coming[0][0] != step:
            self.coming.popleft()[1].cancel()
        while len(self.coming) < AHEAD:
            following = step + len(self.coming)
            self.coming.append((following, self.pool.submit(self._make, following, size)))
        return self.coming.popleft()[1].result()

    def _make(self, step: int, size: int) -> Batch:
        dealt, rng = self._dealt(step), np.random.default_rng((self.seed, 1, step))
        pictures = [
            augmentation.augment(crop, rng, self.plain, size)
            for crop in dealt.images.permute(0, 2, 3, 1).numpy()
        ]
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return dealt._replace(images=scale(images))


class GpuBatches(_Batches):
    """Batches augmented on the GPU, which holds all crops in its memory (38 kB each)."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        crops = self.faces.images
        self.images = torch.empty(crops.shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(crops), TRANSFER):
            part = np.array(crops[start : start + TRANSFER])
            self.images[start : start + TRANSFER] = torch.from_numpy(part).to(self.device)

    def _crops(self, rows: torch.Tensor) -> torch.Tensor:
        return self.images[rows].permute(0, 3, 1, 2)

    def take(self, step: int, size: int) -> Batch:
        """Return batch number `step` at 112 pixels, without waiting for the GPU."""
        if size != CROP_SIZE:
            raise ValueError(f"Batches on the GPU have {CROP_SIZE} pixels, not {size}.")
        dealt = self._dealt(step)
        images = gpu_augmentation.augment(dealt.images, self.generator, self.plain)
        return dealt._replace(images=images.contiguous(memory_format=torch.channels_last))


def scale(images: torch.Tensor) -> torch.Tensor:
    """Convert N×3×H×W uint8 RGB to float32 in [-1, 1], channels last, as the networks read them."""
    return images.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
