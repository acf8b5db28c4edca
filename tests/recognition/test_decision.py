"""Decisions for one-to-one comparisons and for searches."""

import pytest

from recognition.decision import HIGHEST_THRESHOLD, Decision, Thresholds, decide
from recognition.networks.descriptor import Threshold

MATCH = Threshold(0.6, 1e-3, 1_000_000)
REVIEW = Threshold(0.5, 1e-2, 1_000_000)
MEASURED = Thresholds(MATCH, REVIEW, (Threshold(0.68, 1e-4, 1_000_000),))


@pytest.mark.parametrize(
    ("similarity", "decision"),
    [
        (0.6, Decision.MATCH),
        (0.5999, Decision.REVIEW),
        (0.5, Decision.REVIEW),
        (0.4999, Decision.UNKNOWN),
        (-1.0, Decision.UNKNOWN),
    ],
)
def test_a_threshold_belongs_to_the_better_decision(similarity, decision):
    assert decide(similarity, MEASURED) is decision


def test_weights_that_nobody_measured_decide_nothing():
    assert decide(0.99, None) is None


def test_a_small_gallery_is_searched_with_the_thresholds_of_a_pair():
    assert MEASURED.for_search(0) == MEASURED.for_search(20) == MEASURED


def test_in_a_larger_gallery_the_thresholds_are_those_of_the_lower_rate():
    found = MEASURED.for_search(200)
    assert found.match.similarity == 0.68  # measured at a tenth of the rate
    assert found.match.fmr == pytest.approx(1e-4)
    assert found.review.similarity == 0.6


def test_between_measured_rates_the_threshold_lies_between():
    assert 0.6 < MEASURED.for_search(60).match.similarity < 0.68


def test_beyond_what_was_measured_the_line_goes_on():
    assert MEASURED.for_search(2_000).match.similarity == pytest.approx(0.76)


def test_thresholds_only_rise_with_the_gallery_and_leave_room_for_the_same_picture():
    sizes = (1, 20, 21, 50, 200, 1_000, 10_000, 10**7)
    found = [MEASURED.for_search(size) for size in sizes]
    matches = [item.match.similarity for item in found]
    assert matches == sorted(matches)
    assert matches[-1] == HIGHEST_THRESHOLD
    assert all(item.review.similarity <= item.match.similarity for item in found)


def test_a_calibration_without_a_curve_goes_on_along_its_two_points():
    found = Thresholds(MATCH, REVIEW).for_search(200)
    assert found.match.similarity == pytest.approx(0.7)
    assert found.review.similarity == pytest.approx(0.6)
