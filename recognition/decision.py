"""Is it the same person? What a similarity means, by thresholds measured with the very weights."""

from __future__ import annotations

from enum import StrEnum

from recognition.networks import find_weights
from recognition.networks.descriptor import WeightsDescriptor, read_descriptor


class Decision(StrEnum):
    """`REVIEW` lies between: similar enough to look, not enough to say so."""

    MATCH = "match"
    REVIEW = "review"
    UNKNOWN = "unknown"


def thresholds_of(model: str) -> WeightsDescriptor | None:
    """The descriptor whose `match` and `review` judge the model's similarities.

    None when nobody measured the weights in use: then there is no honest decision.
    """
    known = read_descriptor(find_weights(model))
    return known if known and known.match and known.review else None


def decide(similarity: float, thresholds: WeightsDescriptor | None) -> Decision | None:
    """What a cosine similarity (-1 to 1) means; None without thresholds."""
    if thresholds is None:
        return None
    if similarity >= thresholds.match.similarity:
        return Decision.MATCH
    return Decision.REVIEW if similarity >= thresholds.review.similarity else Decision.UNKNOWN
