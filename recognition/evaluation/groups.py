"""False matches by group: how often strangers of one group match each other."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from django.utils.translation import gettext

from recognition.evaluation.intervals import share_interval
from recognition.evaluation.pictures import EvaluationError

EVERYBODY: Final = ("all", "")
SAME_LABELS: Final = ("alike in all labels", "")
REPLICATES: Final = 200
BLOCK: Final = 1024  # rows compared at a time
# Age groups that spreadsheets turned into dates in copies of FairFace's list.
DATES: Final = {"03-Sep": "3-9", "Oct-19": "10-19"}


@dataclass(frozen=True, slots=True)
class GroupRate:
    """The pairs of different people within one group, and how many of them reach the threshold."""

    column: str
    value: str
    pictures: int
    pairs: int
    false_matches: int
    interval: tuple[float, float]  # 95 % interval of the rate, by bootstrap over the pictures

    @property
    def fmr(self) -> float:
        return self.false_matches / self.pairs


def read_labels(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the label of each picture, by column of a CSV whose first column names the picture.

    Raise `EvaluationError` when a picture has no row or there is no column of labels.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    known = {row[0]: row[1:] for row in rows if row}
    if missing := [name for name in names if name not in known]:
        raise EvaluationError(
            gettext("%(file)s has no row for %(count)d of the pictures, the first is %(first)s.")
            % {"file": path.name, "count": len(missing), "first": missing[0]}
        )
    if len(header) < 2 or any(len(known[name]) != len(header) - 1 for name in names):
        raise EvaluationError(
            gettext(
                "%(file)s must have a header, the pictures' names in its first column, and at least "
                "one column of labels, the same number in every row."
            )
            % {"file": path.name}
        )
    return {
        column: [DATES.get(known[name][place], known[name][place]) for name in names]
        for place, column in enumerate(header[1:])
    }


def group_rates(
    vectors: np.ndarray, labels: Mapping[str, Sequence[str]], threshold: float
) -> list[GroupRate]:
    """Return the false-match rates among everybody, in each group, and with all labels equal.

    `vectors` are N×D float32 of length 1, each of another person. Groups with one picture are left
    out.
    """
    first, second = _matches(vectors, threshold)
    columns = {name: np.asarray(values) for name, values in labels.items()}
    rates = [_rate(*EVERYBODY, first, second, np.zeros(len(vectors), int))]
    for column, values in columns.items():
        for value in sorted(set(values.tolist()), key=_natural):
            within = np.where(values == value, 0, -1)
            rates.append(_rate(column, value, first, second, within))
    if len(columns) > 1:
        together = np.unique(np.stack(list(columns.values())), axis=1, return_inverse=True)[1]
        rates.append(_rate(*SAME_LABELS, first, second, together.reshape(-1)))
    return [rate for rate in rates if rate.pairs]


def _rate(
    column: str, value: str, first: np.ndarray, second: np.ndarray, group: np.ndarray
) -> GroupRate:
    """Return the rate of pairs with the same number in `group` (N integers, -1 for no group)."""
    members = np.flatnonzero(group >= 0)
    same = (group[first] == group[second]) & (group[first] >= 0)
    place = np.searchsorted(members, np.stack([first[same], second[same]]))
    numbers = group[members]
    sizes = np.bincount(numbers)
    pairs = int((sizes * (sizes - 1) // 2).sum())

    def share(counts: np.ndarray) -> float:
        squared = np.bincount(numbers, counts) ** 2 - np.bincount(numbers, counts**2)
        matched = float((counts[place[0]] * counts[place[1]]).sum())
        return 2 * matched / squared.sum() if squared.sum() else np.nan

    everyone = np.arange(len(members))
    interval = share_interval(share, everyone, REPLICATES) if pairs else (np.nan, np.nan)
    return GroupRate(column, value, len(members), pairs, int(same.sum()), interval)


def _matches(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the pairs that reach the threshold as two arrays, the smaller index
    first."""
    found = [np.empty((0, 2), int)]
    exact = np.float64(threshold)  # not rounded to float32
    for start in range(0, len(vectors), BLOCK):
        scores = vectors[start : start + BLOCK] @ vectors[start:].T
        found.append(np.argwhere(np.triu(scores >= exact, 1)) + start)
    first, second = np.concatenate(found).T
    return first, second


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts "3-9" before "10-19", and words after numbers."""
    digits = text.split("-")[0]
    return [(int(digits), text)] if digits.isdigit() else [(10**6, text)]
