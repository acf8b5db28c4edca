"""Identification: who is it, and is the person in the gallery at all? (ISO/IEC 19795-1)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.utils.translation import gettext

from recognition.evaluation.intervals import share_interval
from recognition.evaluation.pictures import EvaluationError
from recognition.metrics import rank_k_rate

FPIRS: Final = (0.1, 0.01)


@dataclass(frozen=True, slots=True)
class Identification:
    """Searches in a gallery of each person's first picture; all N other pictures are probes.

    Each probe is searched with its person in the gallery (mated) and without (non-mated). For each
    probe, `own` is the similarity to its person's picture, `other` the highest similarity to
    another person, and `people` the number of its person.
    """

    own: np.ndarray
    other: np.ndarray
    people: np.ndarray
    persons: int
    ranks: dict[str, float]

    def figures(self) -> dict[str, Any]:
        """Return rank-k rates, and the FNIR at an FPIR of at most each of `FPIRS`, as shares.

        FPIR is the share of non-mated searches that return anybody. FNIR is the share of mated
        searches that do not return the right person first at or above the threshold.
        """
        rates = [rate for rate in FPIRS if rate * len(self.other) >= 1]
        return {
            "persons": self.persons,
            "probes": len(self.own),
            **self.ranks,
            **{f"fnir_at_fpir_{rate:g}": self._fnir(rate) for rate in rates},
        }

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals of the `fnir_at_fpir_…` figures, by bootstrap over the people."""
        rates = [rate for rate in FPIRS if rate * len(self.other) >= 1]
        order = np.argsort(-self.other, kind="stable")

        def interval(rate: float) -> tuple[float, float]:
            def fnir(counts: np.ndarray) -> float:
                returned = np.cumsum(counts[order])
                cut = np.searchsorted(returned, rate * returned[-1], side="right")
                missed = self._missed(np.nextafter(self.other[order[min(cut, len(order) - 1)]], 2))
                return float((missed * counts).sum() / counts.sum())

            return share_interval(fnir, self.people)

        return {f"fnir_at_fpir_{rate:g}": interval(rate) for rate in rates}

    def at(self, similarity: float) -> tuple[float, float]:
        """Return FPIR and FNIR at this threshold."""
        exact = np.float64(similarity)  # not rounded to float32
        return float((self.other >= exact).mean()), float(self._missed(exact).mean())

    def _fnir(self, fpir: float) -> float:
        allowed = int(np.floor(fpir * len(self.other) + 1e-9))
        threshold = np.nextafter(np.sort(self.other)[::-1][allowed], np.float32(2))
        return self.at(threshold)[1]

    def _missed(self, similarity: float) -> np.ndarray:
        return (self.own < similarity) | (self.own < self.other)


def identification(vectors: np.ndarray, people: Sequence[str]) -> Identification:
    """Search each probe among the people; `vectors` is N×D float32 of length 1.

    Raise `EvaluationError` when no person has two pictures, or there is only one person.
    """
    labels = np.asarray(people)
    names, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    enrolled = np.zeros(len(labels), bool)
    enrolled[first] = True
    if enrolled.all() or len(names) < 2:
        raise EvaluationError(
            gettext(
                "Identification needs two people or more, of whom one has two pictures or more."
            )
        )
    probes = numbers[~enrolled]
    scores = vectors[~enrolled] @ vectors[first].T
    ranks = {f"rank_{k}": rank_k_rate(scores, probes, np.arange(len(names)), k) for k in (1, 5)}
    rows = np.arange(len(probes))
    own = scores[rows, probes]
    scores[rows, probes] = -np.inf
    whose = np.unique(probes, return_inverse=True)[1]
    return Identification(own, scores.max(1), whose, len(names), ranks)
