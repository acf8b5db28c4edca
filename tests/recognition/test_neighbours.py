"""Nearest neighbours equal those of a direct comparison."""

from __future__ import annotations

import numpy as np
import pytest

from recognition import neighbours
from recognition.neighbours import NOWHERE, nearest_neighbours


def gallery(labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(1).standard_normal((len(labels), 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.array(labels)


def one_by_one(vectors, labels, place, same: bool) -> int:
    candidates = [
        n for n in range(len(labels)) if n != place and (labels[n] == labels[place]) == same
    ]
    return max(candidates, key=lambda n: vectors[n] @ vectors[place], default=NOWHERE)


@pytest.mark.parametrize("cells", [1, 100, 16_000_000])
def test_the_same_as_one_by_one(monkeypatch, cells):
    monkeypatch.setattr(neighbours, "_CELLS", cells)
    vectors, labels = gallery([0, 0, 0, 2, 3, 3, 7, 7, 7, 7, 7, 9])
    found = nearest_neighbours(vectors, labels)
    places = range(len(labels))
    assert list(found.own) == [one_by_one(vectors, labels, n, True) for n in places]
    assert list(found.other) == [one_by_one(vectors, labels, n, False) for n in places]
    expected = (vectors * vectors[found.other]).sum(1)
    assert found.other_similarity == pytest.approx(expected, abs=1e-5)
    assert found.own_similarity[3] == -np.inf and found.own[3] == NOWHERE


@pytest.mark.parametrize("labels", [[], [5], [5, 5]])
def test_too_few_for_a_neighbour(labels):
    found = nearest_neighbours(*gallery(labels))
    assert set(found.other) <= {NOWHERE}
    assert list(found.own) == ([1, 0] if len(labels) == 2 else [NOWHERE] * len(labels))


def test_progress_is_told(monkeypatch):
    monkeypatch.setattr(neighbours, "_CELLS", 24)
    told = []
    nearest_neighbours(*gallery([0] * 12), track=lambda items, total: told.append(total) or items)
    assert told == [6]
