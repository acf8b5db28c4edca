"""The losses are zero for perfect outputs and grow with the error."""

import math

import pytest
import torch
from torch.nn import functional

from training.losses import (
    CosFaceHead,
    centres_of_people,
    direction_loss,
    fit_orthonormal_map,
    orthonormal_map,
    similarity_loss,
)


@pytest.fixture
def vectors():
    """Twenty directions in 16 dimensions."""
    return functional.normalize(torch.randn(20, 16, generator=torch.Generator().manual_seed(0)))


def test_the_map_keeps_every_cosine(vectors):
    mapped = vectors @ orthonormal_map(16, 512, torch.Generator().manual_seed(1))
    assert mapped.shape == (20, 512)
    assert torch.allclose(mapped @ mapped.T, vectors @ vectors.T, atol=1e-5)


def test_the_fitted_map_finds_the_true_one(vectors):
    true = orthonormal_map(16, 64, torch.Generator().manual_seed(1))
    assert torch.allclose(fit_orthonormal_map(vectors, vectors @ true), true, atol=1e-4)


def test_losses_vanish_at_the_target(vectors):
    assert direction_loss(vectors, vectors) == pytest.approx(0, abs=1e-6)
    assert similarity_loss(vectors, vectors) == pytest.approx(0, abs=1e-6)


def test_similarity_ignores_a_common_rotation(vectors):
    turned = vectors @ orthonormal_map(16, 16, torch.Generator().manual_seed(1))
    assert similarity_loss(turned, vectors) == pytest.approx(0, abs=1e-6)
    assert direction_loss(turned, vectors) > 0.5


def test_cosface_is_a_softmax_with_a_margin():
    head = CosFaceHead(torch.eye(2), scale=4.0, margin=0.25, learned=False)
    loss = head(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    right, wrong = math.exp(4 * 0.75), math.exp(0)
    assert loss.item() == pytest.approx(-math.log(right / (right + wrong)), rel=1e-5)


def test_cosface_leaves_pictures_without_person_alone():
    head = CosFaceHead(torch.eye(2), scale=4.0, margin=0.25, learned=True)
    embeddings = torch.eye(2, requires_grad=True)
    both = head(embeddings, torch.tensor([-1, 1]))
    both.backward()
    assert embeddings.grad[0].abs().sum() == 0
    assert embeddings.grad[1].abs().sum() > 0
    assert both == head(embeddings[1:], torch.tensor([1]))
    assert head(embeddings, torch.tensor([-1, -1])) == 0


@pytest.mark.parametrize("learned", [True, False])
def test_the_centres_learn_only_where_they_should(learned):
    head = CosFaceHead(torch.eye(2), scale=4.0, margin=0.25, learned=learned)
    head(torch.eye(2, requires_grad=True), torch.tensor([0, 1])).backward()
    assert (head.centres.grad is not None) == learned


def test_centres_are_the_mean_directions():
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    centres = centres_of_people(targets, torch.tensor([0, 0, 1, -1]), 2)
    assert torch.allclose(centres, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, -1.0]]))
