"""Recombined faces lie between their two, differ each time, and never join a person with itself."""

import torch
from torch.nn import functional

from training.recombination import SAME_PERSON, Partners, recombine


def crops(seed: int, count: int = 64) -> torch.Tensor:
    small = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(small.float(), size=(112, 112)).byte()


def joined(own: torch.Tensor, other: torch.Tensor, seed: int = 1) -> torch.Tensor:
    return recombine(own, other, torch.Generator().manual_seed(seed))


def test_a_recombined_face_takes_of_both_and_leaves_them_as_they_are():
    own, other = crops(1), crops(2)
    before = own.clone(), other.clone()
    given = joined(own, other)
    assert given.dtype == torch.uint8 and given.shape == own.shape
    assert torch.equal(own, before[0]) and torch.equal(other, before[1])
    # Another partner changes most of the pictures: those that are not merely warped.
    changed = (given.float() - joined(own, crops(3)).float()).flatten(1).abs().mean(1) > 1
    assert 0.6 < changed.float().mean() < 1
    own_changes = (given.float() - joined(crops(4), other).float()).flatten(1).abs().mean(1) > 1
    assert own_changes.float().mean() > 0.9


def test_equal_faces_of_one_colour_stay_as_they_are():
    plain = torch.full((32, 3, 112, 112), 90, dtype=torch.uint8)
    assert torch.equal(joined(plain, plain), plain)


def test_the_seed_decides_and_each_picture_differs():
    own, other = crops(1, 1).expand(32, -1, -1, -1), crops(2, 1).expand(32, -1, -1, -1)
    given = joined(own, other, seed=7)
    assert torch.equal(given, joined(own, other, seed=7))
    assert len({picture.numpy().tobytes() for picture in given}) == 32


def test_partners_are_others_of_the_training_set_and_some_are_alike():
    chance = torch.Generator().manual_seed(0)
    people = torch.randn(40, 16, generator=chance).repeat_interleave(5, 0)
    directions = functional.normalize(people + 0.05 * torch.randn(200, 16, generator=chance))
    training = torch.arange(150)
    partners = Partners(directions, training, share=0.5)
    batch = training[torch.randperm(150, generator=chance)[:100]]
    places, others = partners.choose(batch, torch.Generator().manual_seed(4))
    assert len(places) == 50 and len(set(places.tolist())) == 50 and places.diff().max() == 2
    assert others.max() < 150
    cosines = (directions[batch[places]] * directions[others]).sum(1)
    assert (cosines > SAME_PERSON).float().mean() < 0.2  # only of those that are drawn blindly
    assert (cosines > 0.3).float().mean() > 0.4
    again, different = (
        partners.choose(batch, torch.Generator().manual_seed(seed)) for seed in (4, 5)
    )
    assert torch.equal(again[1], others) and not torch.equal(different[1], others)
