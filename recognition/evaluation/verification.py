"""Verification: are two pictures of one person? Scores of pairs, their figures and thresholds."""

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
FALSE_MATCHES: Final = 10  # that a threshold must stand on: fewer are chance


@dataclass(frozen=True, slots=True)
class Verification:
    """Scores of pairs and the figures drawn from them; rates are shares, thresholds cosines.

    `similarities` are M float32, `same` M booleans, and `people`, where known, M×2 numbers of whom
    the two pictures show: intervals need them.
    """

    similarities: np.ndarray
    same: np.ndarray
    people: np.ndarray | None = None

    @property
    def is_enough(self) -> bool:
        """Whether each of the folds gets a pair of one person and one of different people."""
        return bool(min(self.same.sum(), (~self.same).sum()) >= FOLDS)

    def figures(self, fmr: float) -> dict[str, Any]:
        """Raises `EvaluationError` when there are fewer pairs of a kind than folds."""
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
        """The false-match rates of `FMRS` at which at least one of so many impostor pairs passes."""
        impostors = (~self.same).sum()
        return [rate for rate in FMRS if impostors * rate >= 1]

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the `tar_at_fmr_…` figures, by bootstrap over the people."""
        if self.people is None:
            return {}
        found = tar_intervals(self.similarities, self.same, self.people, self.rates)
        return {f"tar_at_fmr_{rate:g}": interval for rate, interval in found.items()}

    def at(self, similarity: float) -> tuple[float, float]:
        """FMR and TAR: the shares of the pairs of different people, and of one, that reach it."""
        reached = self.similarities >= np.float64(similarity)  # not rounded to float32
        return float(reached[~self.same].mean()), float(reached[self.same].mean())


def verify_pairs(
    vectors: np.ndarray, places: dict[str, int], pairs: Sequence[Pair], people: dict[str, str]
) -> Verification:
    """The similarity of every pair; vectors are N×D of length 1.

    `places` finds the row of a picture's name, `people` whom it shows.
    """
    rows = np.array([[places[pair.first], places[pair.second]] for pair in pairs])
    names = [[people[pair.first], people[pair.second]] for pair in pairs]
    return Verification(
        (vectors[rows[:, 0]] * vectors[rows[:, 1]]).sum(1),
        np.array([pair.same for pair in pairs]),
        np.unique(np.array(names), return_inverse=True)[1].reshape(-1, 2).astype(np.int32),
    )


def verify_all(vectors: np.ndarray, people: Sequence[str]) -> Verification:
    """The similarity of every picture with every other; vectors are N×D float32 of length 1."""
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
    """The similarity of every picture in one state with every *other* picture in another.

    `probes` and `references` are N×D float32 of length 1, of the same pictures in the same order.
    """
    numbers = np.unique(np.asarray(people), return_inverse=True)[1].astype(np.int32)
    other = ~np.eye(len(numbers), dtype=bool)
    first, second = np.nonzero(other)
    pairs = np.stack([numbers[first], numbers[second]], axis=1)
    return Verification((probes @ references.T)[other], pairs[:, 0] == pairs[:, 1], pairs)


def review_fmr(fmr: float) -> float:
    """`review` starts where ten times as many strangers would come through as at `match`."""
    return min(fmr * REVIEW_FMR_FACTOR, 0.5)


def impostor_scores(vectors: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """The similarities of all pairs of different people; `vectors` is N×D float32 of length 1."""
    pairs = verify_all(vectors, people)
    return np.asarray(pairs.similarities[~pairs.same])


def impostor_curve(scores: np.ndarray) -> list[Threshold]:
    """The thresholds at the rates of `CURVE_FMRS` that so many scores can tell."""
    measurable = [fmr for fmr in CURVE_FMRS if len(scores) * fmr >= FALSE_MATCHES]
    return [threshold_of_impostors(scores, fmr) for fmr in measurable]


def threshold_of_impostors(scores: np.ndarray, fmr: float) -> Threshold:
    """The lowest similarity, in steps of 0.0001, that at most the share `fmr` of the scores reach."""
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
    """The thresholds that follow from all pairs of different people, `match` at the rate `fmr`."""
    scores = impostor_scores(vectors, people)
    return Thresholds(
        threshold_of_impostors(scores, fmr),
        threshold_of_impostors(scores, review_fmr(fmr)),
        tuple(impostor_curve(scores)),
    )
