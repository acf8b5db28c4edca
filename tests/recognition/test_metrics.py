"""Figures of verification and identification for scores with known results."""

import numpy as np
import pytest

from recognition.metrics import (
    best_threshold,
    equal_error_rate,
    rank_k_rate,
    tar_at_fmr,
    threshold_at_fmr,
    verification_accuracy,
)


@pytest.fixture
def overlapping():
    """1,000 genuine scores around 0.6 and 1,000 impostor scores around 0, standard deviation 0.2."""
    rng = np.random.default_rng(0)
    scores = np.concatenate((rng.normal(0.6, 0.2, 1000), rng.normal(0, 0.2, 1000)))
    return scores, np.arange(2000) < 1000


def test_best_threshold_lies_between_the_classes():
    assert best_threshold([0.9, 0.7, 0.3, 0.1], [1, 1, 0, 0]) == pytest.approx(0.5)


def test_best_threshold_never_parts_equal_scores():
    threshold = best_threshold([0.5, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    assert 0.1 < threshold <= 0.5


def test_separable_pairs_are_all_right():
    scores = np.r_[np.linspace(0.6, 0.9, 40), np.linspace(0, 0.3, 40)]
    accuracy = verification_accuracy(scores, np.arange(80) < 40)
    assert accuracy.mean == 1
    assert accuracy.standard_error == 0
    assert 0.3 < accuracy.threshold < 0.6


def test_accuracy_of_two_normal_distributions(overlapping):
    """Means three standard deviations apart: Φ(1.5) = 93.3 % of each side is correct."""
    accuracy = verification_accuracy(*overlapping)
    assert accuracy.mean == pytest.approx(0.933, abs=0.015)
    assert accuracy.threshold == pytest.approx(0.3, abs=0.06)
    assert 0 < accuracy.standard_error < 0.02


def test_both_kinds_of_pairs_count_the_same():
    """Half of 20 genuine pairs lie among 2,000 impostors: rejecting all would be half right."""
    scores = np.r_[np.full(10, 0.9), np.full(10, 0.1), np.full(2000, 0.1)]
    accuracy = verification_accuracy(scores, np.arange(2020) < 20)
    assert accuracy.mean == pytest.approx(0.75)
    assert best_threshold([0.9, *[0.5] * 3, 0.4, *[0.4] * 5], [1, 0, 0, 0, 1, 0, 0, 0, 0, 0]) == 0.7


def test_accuracy_ignores_the_order_of_classes(overlapping):
    """Pair lists are sorted by class; contiguous folds would have a single class each."""
    scores, same = overlapping
    shuffled = np.random.default_rng(1).permutation(len(scores))
    mixed = verification_accuracy(scores[shuffled], same[shuffled])
    assert mixed.mean == pytest.approx(verification_accuracy(scores, same).mean, abs=0.01)


def test_a_fold_is_judged_by_the_threshold_of_the_others():
    """A genuine pair far below the impostors must count as wrong in its own fold."""
    scores = np.r_[np.full(9, 0.8), -1.0, np.full(10, 0.1)]
    assert verification_accuracy(scores, np.arange(20) < 10).mean == pytest.approx(0.95)


@pytest.mark.parametrize(("fmr", "expected"), [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_tar_at_fmr_counts_what_is_accepted(fmr, expected):
    scores = [0.9, 0.7, 0.5, 0.3, 0.8, 0.6, 0.4, 0.2]
    assert tar_at_fmr(scores, [1, 1, 1, 1, 0, 0, 0, 0], fmr) == expected


def test_threshold_keeps_false_accepts_within_the_rate(overlapping):
    scores, same = overlapping
    for fmr in (0.1, 0.01, 0.001):
        threshold = threshold_at_fmr(scores, same, fmr)
        assert (scores[~same] >= threshold).sum() == fmr * 1000


def test_equal_error_of_two_normal_distributions(overlapping):
    error = equal_error_rate(*overlapping)
    assert error.rate == pytest.approx(0.067, abs=0.015)
    assert error.threshold == pytest.approx(0.3, abs=0.06)


def test_rank_counts_people_not_pictures():
    """Two pictures of a wrong person rank first; counted by people, the right one is second."""
    similarities = [[0.9, 0.8, 0.7, 0.1]]
    gallery = ["ana", "ana", "rui", "eva"]
    assert rank_k_rate(similarities, ["rui"], gallery, k=1) == 0
    assert rank_k_rate(similarities, ["rui"], gallery, k=2) == 1


def test_a_probe_outside_the_gallery_is_never_found():
    assert rank_k_rate([[0.9, 0.1], [0.2, 0.8]], [7, 2], [1, 2], k=2) == 0.5


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        pytest.param([0.1, 0.2], [1], "one length", id="lengths"),
        pytest.param([0.1, 0.2], [1, 1], "both needed", id="one class"),
        pytest.param([0.1, np.nan], [1, 0], "finite", id="nan"),
    ],
)
def test_unusable_pairs_are_refused(scores, same, message):
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, same)


def test_too_few_pairs_for_the_folds_are_refused():
    with pytest.raises(ValueError, match="10 folds need 10 pairs"):
        verification_accuracy([0.9, 0.1], [1, 0])


def test_similarities_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="2 probes × 3 gallery"):
        rank_k_rate([[0.1, 0.2]], [1, 2], [1, 2, 3])
