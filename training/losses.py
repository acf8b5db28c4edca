"""Losses: distillation from a teacher's vectors, and classification of people.

All vectors here are N×D float32 of length 1.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from training.faces import NOBODY


def orthonormal_map(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """Return a random rows×columns matrix with orthonormal rows, which keeps every cosine."""
    square = torch.randn(columns, rows, generator=generator)
    return torch.linalg.qr(square).Q.T.contiguous()


def fit_orthonormal_map(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the orthonormal map that carries `source` nearest to `target` (Schönemann 1966)."""
    left, _, right = torch.linalg.svd(source.T @ target, full_matrices=False)
    return (left @ right).contiguous()


def direction_loss(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return one minus the mean cosine to the teacher's directions."""
    return 1 - (embeddings * targets).sum(1).mean()


def similarity_loss(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of all cosines in the batch (Park et al. 2019, RKD)."""
    difference = embeddings @ embeddings.T - targets @ targets.T
    size = len(embeddings)
    return difference.square().sum() / (size * max(size - 1, 1))


class CosFaceHead(nn.Module):
    """Softmax over people with a margin on the cosine of the right one (Wang et al. 2018).

    The centres, one row for each person, are fixed unless `learned`.
    """

    def __init__(self, centres: torch.Tensor, scale: float, margin: float, learned: bool) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres, requires_grad=learned)
        self.scale, self.margin = scale, margin

    def forward(self, embeddings: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of the pictures with a known person; 0 if there are none."""
        known = (people != NOBODY).float()
        cosine = embeddings @ functional.normalize(self.centres).T
        right = functional.one_hot(people.clamp_min(0), len(self.centres))
        logits = self.scale * (cosine - self.margin * right)
        losses = functional.cross_entropy(logits, people.clamp_min(0), reduction="none")
        return (losses * known).sum() / known.sum().clamp_min(1)


def centres_of_people(targets: torch.Tensor, people: torch.Tensor, count: int) -> torch.Tensor:
    """Return each person's mean teacher direction, the initial centres of the head."""
    known = people != NOBODY
    centres = torch.zeros(count, targets.shape[1]).index_add_(0, people[known], targets[known])
    return functional.normalize(centres)
