"""Is it the same person? What a similarity means, by thresholds measured with the very weights."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from recognition.networks import find_weights
from recognition.networks.descriptor import Threshold, read_descriptor


class Decision(StrEnum):
    """`REVIEW` lies between: similar enough to look, not enough to say so."""

    MATCH = "match"
    REVIEW = "review"
    UNKNOWN = "unknown"


class Thresholds(NamedTuple):
    """From which similarity on two faces match, and from which on somebody should look."""

    match: Threshold
    review: Threshold


def thresholds_of(model: str) -> Thresholds | None:
    """The thresholds measured with the model's weights; None when nobody measured those in use.

    Then there is no honest decision. A gallery's own calibration wins over these: see
    `enrollment.selectors.thresholds_in_force`.
    """
    known = read_descriptor(find_weights(model))
    return Thresholds(known.match, known.review) if known and known.match and known.review else None


def decide(similarity: float, thresholds: Thresholds | None) -> Decision | None:
    """What a cosine similarity (-1 to 1) means; None without thresholds."""
    if thresholds is None:
        return None
    if similarity >= thresholds.match.similarity:
        return Decision.MATCH
    return Decision.REVIEW if similarity >= thresholds.review.similarity else Decision.UNKNOWN
