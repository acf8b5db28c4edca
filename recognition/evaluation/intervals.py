"""Confidence intervals by bootstrap over people, as pictures of one person are not independent.

Each replicate draws as many people as there are, with replacement. A genuine pair then counts as
often as its person was drawn, a pair of different people as often as the product of both counts
(Bolle, Ratha and Pankanti 2004, "Error analysis of pattern recognition systems").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

REPLICATES: Final = 1000
LEVEL: Final = (2.5, 97.5)  # percentiles: an interval of 95 %
MOST_PEOPLE: Final = (
    5000  # their table of pairs takes 100 MB; with more people intervals are narrow
)
TAIL: Final = 4  # examine this many times the impostor pairs that a rate accepts

Interval = tuple[float, float]


def tar_intervals(
    similarities: np.ndarray,
    same: np.ndarray,
    people: np.ndarray,
    rates: Sequence[float],
    replicates: int = REPLICATES,
) -> dict[float, Interval]:
    """Return the 95 % interval of the TAR at each false-match rate.

    `similarities` are M floats, `same` M booleans, `people` M×2 integers from 0. Empty for more
    than `MOST_PEOPLE` people.
    """
    count = int(people.max()) + 1
    if not rates or count > MOST_PEOPLE:
        return {}
    genuine = np.flatnonzero(same)
    genuine = genuine[np.argsort(-similarities[genuine], kind="stable")]
    impostors = np.flatnonzero(~same)
    nearest = min(len(impostors), int(len(impostors) * max(rates) * TAIL) + 100)
    tail = impostors[np.argpartition(-similarities[impostors], nearest - 1)[:nearest]]
    tail = tail[np.argsort(-similarities[tail], kind="stable")]
    pairs = np.bincount(people[impostors] @ np.array([count, 1]), minlength=count * count)
    pairs = pairs.reshape(count, count).astype(np.float32)
    whom, (first, second) = people[genuine, 0], people[tail].T
    negated, thresholds = -similarities[genuine], similarities[tail]

    def of(drawn: np.ndarray) -> list[float]:
        passed = np.cumsum(drawn[first] * drawn[second])
        allowed = np.array(rates) * float(drawn @ pairs @ drawn)
        cuts = np.minimum(np.searchsorted(passed, allowed, side="right"), len(tail) - 1)
        found = np.concatenate([[0.0], np.cumsum(drawn[whom])])
        places = np.searchsorted(negated, -thresholds[cuts], side="left")
        return list(found[places] / found[-1]) if found[-1] else [np.nan] * len(rates)

    low, high = np.nanpercentile([of(drawn) for drawn in draws(count, replicates)], LEVEL, axis=0)
    return {rate: (float(low[k]), float(high[k])) for k, rate in enumerate(rates)}


def share_interval(
    share: Callable[[np.ndarray], float], people: np.ndarray, replicates: int = REPLICATES
) -> Interval:
    """Return the 95 % interval of `share`, a function of the weights of N items.

    `people` are N integers from 0 that say to whom each item belongs.
    """
    found = [share(drawn[people]) for drawn in draws(int(people.max()) + 1, replicates)]
    low, high = np.nanpercentile(found, LEVEL)
    return float(low), float(high)


def rate_interval(count: int, of: int) -> Interval:
    """Return the 95 % interval of a rate of which `count` among `of` independent cases were seen.

    Wilson's, which holds for few cases and for none seen. `of` must not be 0.
    """
    z = NormalDist().inv_cdf(0.975)
    rate, spread = count / of, z * z / of
    middle = (rate + spread / 2) / (1 + spread)
    reach = z * sqrt(rate * (1 - rate) / of + spread / (4 * of)) / (1 + spread)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def draws(count: int, replicates: int) -> Iterator[np.ndarray]:
    """Yield float32 counts of how often each of `count` people is drawn, always the same sequence."""
    chance = np.random.default_rng(0)
    for _replicate in range(replicates):
        yield np.bincount(chance.integers(count, size=count), minlength=count).astype(np.float32)
