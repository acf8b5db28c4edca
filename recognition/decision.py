"""Decisions: what a similarity means, by thresholds measured with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from recognition.networks import find_weights
from recognition.networks.descriptor import Threshold, read_descriptor


class Decision(StrEnum):
    """The verdict on a similarity. `REVIEW` is similar enough for a person to look at it."""

    MATCH = "match"
    REVIEW = "review"
    UNKNOWN = "unknown"


# A search among at most this many pictures uses the thresholds of a one-to-one comparison.
PICTURES_WITHOUT_RISE: Final = 20
HIGHEST_THRESHOLD: Final = 0.98  # identical pictures must match in a gallery of any size


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The similarities from which two faces match, and from which a person should look at them.

    `curve` holds the measured thresholds at other false-match rates.
    """

    match: Threshold
    review: Threshold
    curve: tuple[Threshold, ...] = ()

    def for_search(self, pictures: int) -> Thresholds:
        """Return the thresholds for a search among this many pictures.

        A search compares a stranger with every picture, so the chance of a false match grows with
        the gallery. Above `PICTURES_WITHOUT_RISE` the false-match rate of each comparison is
        lowered in proportion, which keeps the false-positive identification rate constant (FPIR,
        ISO/IEC 19795-1).
        """
        rise = pictures / PICTURES_WITHOUT_RISE
        if rise <= 1:
            return self
        return Thresholds(self._at(self.match, rise), self._at(self.review, rise), self.curve)

    def _at(self, threshold: Threshold, rise: float) -> Threshold:
        """Return the threshold at its false-match rate divided by `rise`."""
        fmr = threshold.fmr / rise
        measured = {point.fmr: point for point in (self.match, self.review, *self.curve)}
        points = [measured[rate] for rate in sorted(measured)]
        rates = np.log10([point.fmr for point in points])
        similarities = np.array([point.similarity for point in points])
        wanted = np.log10(fmr)
        if wanted < rates[0] and len(points) > 1:
            # Below the measured rates, extrapolate the line through the two lowest. The result is too high
            # rather than too low, because the tail of impostor scores gets steeper.
            slope = (similarities[1] - similarities[0]) / (rates[1] - rates[0])
            similarity = similarities[0] + slope * (wanted - rates[0])
        else:
            similarity = np.interp(wanted, rates, similarities)
        highest = max(HIGHEST_THRESHOLD, threshold.similarity)
        similarity = min(max(float(similarity), threshold.similarity), highest)
        return Threshold(round(similarity, 4), fmr, threshold.impostor_pairs)


def thresholds_of(model: str, fingerprint: str) -> Thresholds | None:
    """Return the thresholds stored with these weights of the model, or None when none were measured.

    So it is when others are in use since: their thresholds say nothing of vectors that these made. A
    gallery's own calibration takes precedence; see `enrollment.gallery.thresholds_in_force`.
    """
    weights = find_weights(model)
    known = read_descriptor(weights) if weights.fingerprint == fingerprint else None
    if known and known.match and known.review:
        return Thresholds(known.match, known.review, tuple(known.curve))
    return None


def decide(similarity: float, thresholds: Thresholds | None) -> Decision | None:
    """Return the decision for a cosine similarity (-1 to 1); None without thresholds."""
    if thresholds is None:
        return None
    if similarity >= thresholds.match.similarity:
        return Decision.MATCH
    return Decision.REVIEW if similarity >= thresholds.review.similarity else Decision.UNKNOWN
