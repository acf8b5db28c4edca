"""Both augmentations change pictures as much as intended, and are alike on average."""

import numpy as np
import pytest
import torch

from training import gpu_augmentation
from training.augmentation import augment


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """An asymmetric smooth picture in colour."""
    ramp = np.linspace(0, 1, 112)
    rows, columns = np.meshgrid(ramp, ramp, indexing="ij")
    waves = (np.sin(5 * rows + 9 * columns), np.cos(7 * rows * columns), columns)
    return (np.stack(waves, 2) * 60 + 128).clip(0, 255).astype(np.uint8)


def many(face: np.ndarray, count: int, plain: float = 0.0, size: int = 112) -> np.ndarray:
    return np.stack([augment(face, np.random.default_rng(n), plain, size) for n in range(count)])


def whole_batch(face: np.ndarray, count: int, plain: float = 0.0) -> torch.Tensor:
    images = torch.from_numpy(face).permute(2, 0, 1).repeat(count, 1, 1, 1)
    return gpu_augmentation.augment(images, torch.Generator().manual_seed(4), plain)


@pytest.mark.parametrize("size", [64, 112])
def test_pictures_keep_kind_and_size_and_each_is_changed_in_its_own_way(face, size):
    images = many(face, 40, size=size)
    assert images.shape == (40, size, size, 3) and images.dtype == np.uint8
    assert len(np.unique(images.reshape(40, -1), axis=0)) == 40
    assert np.array_equal(images, many(face, 40, size=size))


def test_plain_pictures_are_mirrored_at_most(face):
    images = many(face, 20, plain=1)
    kept = [np.array_equal(image, face) for image in images]
    mirrored = [np.array_equal(image, face[:, ::-1]) for image in images]
    assert all(a or b for a, b in zip(kept, mirrored, strict=True)) and any(kept) and any(mirrored)


def test_a_fifth_is_grey(face):
    spread = np.ptp(many(face, 200).astype(int), axis=3).mean((1, 2))
    assert 0.02 < (spread < 12).mean() < 0.35


def test_a_batch_is_in_the_networks_range_and_its_plain_share_unchanged(face):
    images = whole_batch(face, 30, plain=0.5)
    assert images.shape == (30, 3, 112, 112)
    assert images.abs().max() <= 1
    given = torch.from_numpy(face).permute(2, 0, 1) / 127.5 - 1
    same = [
        min((image - given).abs().max(), (image - given.flip(2)).abs().max()) < 1e-4
        for image in images
    ]
    assert same == [False] * 15 + [True] * 15
    assert torch.equal(images, whole_batch(face, 30, plain=0.5))


def test_a_batch_of_one_and_a_whole_plain_batch_pass(face):
    assert whole_batch(face, 1).shape == whole_batch(face, 1, plain=1).shape == (1, 3, 112, 112)


def test_both_augmentations_are_alike_on_average(face):
    """Mean, contrast, colour and sharpness over many pictures."""

    def figures(images: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [
                images.mean(),
                images.std((1, 2, 3)).mean(),
                images.std(1).mean(),
                images.diff(dim=3).abs().mean(),
                images.mean((2, 3)).std(0).mean(),
            ]
        )

    single = torch.from_numpy(many(face, 200)).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(
        figures(whole_batch(face, 200)), figures(single), rtol=0.25, atol=0.06
    )


def test_jpeg_costs_more_at_lower_quality(face):
    images = torch.from_numpy(face).permute(2, 0, 1)[None] / 255
    images = (images + 0.05 * torch.randn(images.shape)).clamp(0, 1)
    errors = [(gpu_augmentation.compress(images, q) - images).abs().mean() for q in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[0] < 0.06


def test_blur_keeps_a_flat_picture():
    flat = torch.full((2, 3, 32, 32), 0.4)
    assert torch.allclose(gpu_augmentation._blur(flat, 1.3), flat, atol=1e-5)
    assert torch.allclose(gpu_augmentation._mean(flat, (1, 5)), flat, atol=1e-5)
