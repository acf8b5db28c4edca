"""Verification: do two pictures show the same person? Scores of pairs, figures and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.utils.translation import gettext

from recognition.decision import Thresholds
from recognition.evaluation.intervals import tar_intervals
from recognition.evaluation.pictures import EvaluationError, Pair
from recognition.metrics import (
    equal_error_rate,
    tar_at_fmr,
    threshold_at_fmr,
    verification_accuracy,
)
from recognition.networks.descriptor import Threshold

FOLDS: Final = 10
FMRS: Final = (0.01, 0.001, 0.0001)
CURVE_FMRS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
REVIEW_FMR_FACTOR: Final = 10
FALSE_MATCHES: Final = 10  # least number of false matches for a reliable threshold


@dataclass(frozen=True, slots=True)
class Verification:
    """Scores of M pairs and figures computed from them; rates are shares, thresholds cosines.

    `similarities` are M float32, `same` M booleans, and `people`, if known, M×2 integers for the
    two persons of each pair, which intervals need.
    """

    similarities: np.ndarray
    same: np.ndarray
    people: np.ndarray | None = None

    @property
    def is_enough(self) -> bool:
        """Whether each fold gets at least one genuine and one impostor pair."""
        return bool(min(self.same.sum(), (~self.same).sum()) >= FOLDS)

    def figures(self, fmr: float) -> dict[str, Any]:
        """Return the figures; `fmr` is the false-match rate of `threshold_at_fmr`.

        Raise `EvaluationError` when there are fewer pairs of a kind than folds.
        """
        if not self.is_enough:
            raise EvaluationError(
                gettext(
                    "There are %(genuine)d pairs of one person and %(impostors)d of different people; "
                    "at least %(least)d of each are needed. Give more pairs or pictures."
                )
                % {
                    "genuine": self.same.sum(),
                    "impostors": (~self.same).sum(),
                    "least": FOLDS,
                }
            )
        accuracy = verification_accuracy(self.similarities, self.same, FOLDS)
        error = equal_error_rate(self.similarities, self.same)
        return {
            "genuine_pairs": int(self.same.sum()),
            "impostor_pairs": int((~self.same).sum()),
            "accuracy": accuracy.mean,
            "accuracy_standard_error": accuracy.standard_error,
            "accuracy_threshold": accuracy.threshold,
            "eer": error.rate,
            **{
                f"tar_at_fmr_{rate:g}": tar_at_fmr(self.similarities, self.same, rate)
                for rate in self.rates
            },
            "fmr": fmr,
            "threshold_at_fmr": threshold_at_fmr(self.similarities, self.same, fmr),
            "tar_at_threshold": tar_at_fmr(self.similarities, self.same, fmr),
        }

    @property
    def rates(self) -> list[float]:
        """The rates of `FMRS` at which at least one impostor pair is accepted."""
        impostors = (~self.same).sum()
        return [rate for rate in FMRS if impostors * rate >= 1]

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals of the `tar_at_fmr_…` figures, by bootstrap over the people."""
        if self.people is None:
            return {}
        found = tar_intervals(self.similarities, self.same, self.people, self.rates)
        return {f"tar_at_fmr_{rate:g}": interval for rate, interval in found.items()}

    def at(self, similarity: float) -> tuple[float, float]:
        """Return FMR and TAR: the shares of impostor and of genuine pairs that reach the threshold."""
        reached = self.similarities >= np.float64(similarity)  # not rounded to float32
        return float(reached[~self.same].mean()), float(reached[self.same].mean())


def verify_pairs(
    vectors: np.ndarray, places: dict[str, int], pairs: Sequence[Pair], people: dict[str, str]
) -> Verification:
    """Return the similarities of the pairs; `vectors` is N×D float32 of length 1.

    `places` gives the row, and `people` the person, of each picture's name.
    """
    rows = np.array([[places[pair.first], places[pair.second]] for pair in pairs])
    names = [[people[pair.first], people[pair.second]] for pair in pairs]
    return Verification(
        (vectors[rows[:, 0]] * vectors[rows[:, 1]]).sum(1),
        np.array([pair.same for pair in pairs]),
        np.unique(np.array(names), return_inverse=True)[1].reshape(-1, 2).astype(np.int32),
    )


def verify_all(vectors: np.ndarray, people: Sequence[str]) -> Verification:
    """Return the similarities of all pairs of pictures; `vectors` is N×D float32 of length 1."""
    numbers = np.unique(np.asarray(people), return_inverse=True)[1].astype(np.int32)
    following = range(1, len(numbers))
    scores = [vectors[place:] @ vectors[place - 1] for place in following]
    first = np.repeat(numbers, np.arange(len(numbers))[::-1])
    second = [numbers[place:] for place in following]
    pairs = np.stack([first, np.concatenate([first[:0], *second])], axis=1)
    return Verification(
        np.concatenate([np.empty(0, np.float32), *scores]), pairs[:, 0] == pairs[:, 1], pairs
    )


def verify_between(
    probes: np.ndarray, references: np.ndarray, people: Sequence[str]
) -> Verification:
    """Return the similarities of each probe with every reference of another picture.

    `probes` and `references` are N×D float32 of length 1, of the same pictures in the same order,
    such as degraded and unchanged ones.
    """
    numbers = np.unique(np.asarray(people), return_inverse=True)[1].astype(np.int32)
    other = ~np.eye(len(numbers), dtype=bool)
    first, second = np.nonzero(other)
    pairs = np.stack([numbers[first], numbers[second]], axis=1)
    return Verification((probes @ references.T)[other], pairs[:, 0] == pairs[:, 1], pairs)


def review_fmr(fmr: float) -> float:
    """Return the false-match rate of the `review` threshold: ten times that of `match`."""
    return min(fmr * REVIEW_FMR_FACTOR, 0.5)


def impostor_scores(vectors: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Return the similarities of all pairs of different people.

    `vectors` is N×D float32 of length 1.
    """
    pairs = verify_all(vectors, people)
    return np.asarray(pairs.similarities[~pairs.same])


def impostor_curve(scores: np.ndarray) -> list[Threshold]:
    """Return the thresholds at those `CURVE_FMRS` that this many scores can measure."""
    measurable = [fmr for fmr in CURVE_FMRS if len(scores) * fmr >= FALSE_MATCHES]
    return [threshold_of_impostors(scores, fmr) for fmr in measurable]


def threshold_of_impostors(scores: np.ndarray, fmr: float) -> Threshold:
    """Return the lowest threshold that at most the share `fmr` of the impostor scores reach.

    It is rounded to 0.0001. Raise `EvaluationError` when there are too few scores for this rate.
    """
    if len(scores) * fmr < FALSE_MATCHES:
        raise EvaluationError(
            gettext(
                "A threshold for a false-match rate of %(fmr)g needs at least %(least)d pairs of "
                "different people; these pictures make %(given)d. Give more pictures or a larger rate."
            )
            % {"fmr": fmr, "least": int(FALSE_MATCHES / fmr), "given": len(scores)}
        )
    allowed = int(len(scores) * fmr)
    value = float(np.partition(scores, -allowed - 1)[-allowed - 1])
    return Threshold(round(float(np.nextafter(value, 2)) + 5e-5, 4), fmr, len(scores))


def propose_thresholds(vectors: np.ndarray, people: Sequence[str], fmr: float) -> Thresholds:
    """Return thresholds from all pairs of different people, with `match` at the rate `fmr`.

    `vectors` is N×D float32 of length 1.
    """
    scores = impostor_scores(vectors, people)
    return Thresholds(
        threshold_of_impostors(scores, fmr),
        threshold_of_impostors(scores, review_fmr(fmr)),
        tuple(impostor_curve(scores)),
    )
