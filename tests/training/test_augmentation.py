"""Augmented batches keep shape and range, differ, and come again with the seed."""

import torch

from training.augmentation import augment, scale


def _batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 3, 112, 112), dtype=torch.uint8, generator=generator)


def test_augmented_pictures_stay_in_the_range_of_the_networks():
    result = augment(_batch(), torch.Generator().manual_seed(1))
    assert result.shape == (16, 3, 112, 112)
    assert result.dtype == torch.float32
    assert -1 <= result.min() < -0.5
    assert 0.5 < result.max() <= 1


def test_every_picture_is_changed_in_its_own_way():
    same = _batch()[:1].expand(16, -1, -1, -1)
    result = augment(same, torch.Generator().manual_seed(1)).flatten(1)
    distances = torch.cdist(result, result) + torch.eye(16) * 1e6
    assert distances.min() > 1


def test_the_seed_decides_the_changes():
    first, again, other = (augment(_batch(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_grey_pictures_become_tinted():
    """A network trained on grey pictures alone would fail on colour."""
    grey = torch.full((16, 3, 112, 112), 120, dtype=torch.uint8)
    channels = augment(grey, torch.Generator().manual_seed(1)).mean((2, 3))
    assert ((channels.amax(1) - channels.amin(1)) > 0.05).sum() >= 8


def test_plain_pictures_are_mirrored_at_most():
    images = _batch()
    result = augment(images, torch.Generator().manual_seed(1), plain=0.5)
    kept = [
        any(
            torch.allclose(given, each, atol=1e-5) for given in (scale(image), scale(image.flip(2)))
        )
        for image, each in zip(images, result, strict=True)
    ]
    assert kept == [True] * 8 + [False] * 8
    assert augment(images, torch.Generator().manual_seed(1), plain=1).shape == images.shape


def test_scale_is_that_of_the_service():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert scale(pixels).flatten().tolist() == [-1, 1]
