"""Is it the same person? What a similarity means, by thresholds measured with the very weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from recognition.networks import find_weights
from recognition.networks.descriptor import Threshold, read_descriptor


class Decision(StrEnum):
    """`REVIEW` lies between: similar enough to look, not enough to say so."""

    MATCH = "match"
    REVIEW = "review"
    UNKNOWN = "unknown"


# Up to so many pictures a search decides as a comparison of two does.
PICTURES_WITHOUT_RISE: Final = 20
HIGHEST_THRESHOLD: Final = 0.98  # the same picture, stored once more, is to match in any gallery


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which similarity on two faces match, and from which on somebody should look.

    `curve` holds what else was measured: the similarities at other false-match rates.
    """

    match: Threshold
    review: Threshold
    curve: tuple[Threshold, ...] = ()

    def for_search(self, pictures: int) -> Thresholds:
        """The thresholds of a search among so many pictures.

        A stranger is compared with every picture, so the chance that one of them is alike grows with
        the gallery. Above `PICTURES_WITHOUT_RISE` the rate of each comparison is lowered in proportion,
        which keeps the share of searches in which a stranger matches (ISO/IEC 19795-1: FPIR).
        """
        rise = pictures / PICTURES_WITHOUT_RISE
        if rise <= 1:
            return self
        return Thresholds(self._at(self.match, rise), self._at(self.review, rise), self.curve)

    def _at(self, threshold: Threshold, rise: float) -> Threshold:
        """The threshold at its rate divided by `rise`."""
        fmr = threshold.fmr / rise
        measured = {point.fmr: point for point in (self.match, self.review, *self.curve)}
        points = [measured[rate] for rate in sorted(measured)]
        rates = np.log10([point.fmr for point in points])
        similarities = np.array([point.similarity for point in points])
        wanted = np.log10(fmr)
        if wanted < rates[0] and len(points) > 1:
            # Beyond what was measured the line through the last two points goes on; it errs upwards,
            # because the tail of impostor scores gets steeper.
            slope = (similarities[1] - similarities[0]) / (rates[1] - rates[0])
            similarity = similarities[0] + slope * (wanted - rates[0])
        else:
            similarity = np.interp(wanted, rates, similarities)
        highest = max(HIGHEST_THRESHOLD, threshold.similarity)
        similarity = min(max(float(similarity), threshold.similarity), highest)
        return Threshold(round(similarity, 4), fmr, threshold.impostor_pairs)


def thresholds_of(model: str) -> Thresholds | None:
    """The thresholds measured with the model's weights; None when nobody measured those in use.

    Then there is no honest decision. A gallery's own calibration wins over these: see
    `enrollment.gallery.selectors.thresholds_in_force`.
    """
    known = read_descriptor(find_weights(model))
    if known and known.match and known.review:
        return Thresholds(known.match, known.review, tuple(known.curve))
    return None


def decide(similarity: float, thresholds: Thresholds | None) -> Decision | None:
    """What a cosine similarity (-1 to 1) means; None without thresholds."""
    if thresholds is None:
        return None
    if similarity >= thresholds.match.similarity:
        return Decision.MATCH
    return Decision.REVIEW if similarity >= thresholds.review.similarity else Decision.UNKNOWN
