"""Metrics of verification and identification, in NumPy only.

`similarities` are N floats, higher for more alike; `same` are N booleans, true where both pictures
show one person. A pair is accepted when its similarity reaches the threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Accuracy(NamedTuple):
    """The mean over the folds, the standard error of that mean, and the mean threshold."""

    mean: float
    standard_error: float
    threshold: float


class EqualError(NamedTuple):
    """The rate and threshold at which the false-match rate equals the false-non-match rate."""

    rate: float
    threshold: float


def verification_accuracy(similarities: ArrayLike, same: ArrayLike, folds: int = 10) -> Accuracy:
    """Return the share of correct decisions, each fold at the threshold best for the others.

    This is the protocol of Labeled Faces in the Wild (Huang et al. 2007), which has as many genuine
    pairs as impostor pairs; otherwise both kinds are weighted equally. Each fold gets its share of
    both kinds. Raise `ValueError` when there are fewer pairs of a kind than folds.
    """
    scores, genuine = _pairs(similarities, same)
    fold = np.empty(len(scores), int)
    for kind in (genuine, ~genuine):
        if kind.sum() < folds:
            raise ValueError(
                f"{folds} folds need {folds} pairs of the same person and of different people, "
                f"got {genuine.sum()} and {(~genuine).sum()}. Give more pairs or fewer folds."
            )
        fold[kind] = np.arange(kind.sum()) % folds
    rates, thresholds = [], []
    for number in range(folds):
        test = fold == number
        threshold = best_threshold(scores[~test], genuine[~test])
        right = (scores[test] >= threshold) == genuine[test]
        rates.append((right[genuine[test]].mean() + right[~genuine[test]].mean()) / 2)
        thresholds.append(threshold)
    error = np.std(rates, ddof=1) / np.sqrt(folds) if folds > 1 else 0.0
    return Accuracy(float(np.mean(rates)), float(error), float(np.mean(thresholds)))


def best_threshold(similarities: ArrayLike, same: ArrayLike) -> float:
    """Return the threshold with the highest accuracy, midway between the two adjacent scores.

    Genuine and impostor pairs are weighted equally.
    """
    scores, genuine = _pairs(similarities, same)
    of_genuine, of_impostor = int((~genuine).sum()), -int(genuine.sum())
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # With k accepted pairs, the accepted genuine and the rejected impostor pairs are correct.
    right = np.cumsum(np.where(genuine[order], of_genuine, of_impostor))
    cuts = np.flatnonzero(np.diff(ranked, append=-np.inf))
    cut = cuts[np.argmax(right[cuts])]
    following = ranked[cut + 1] if cut + 1 < len(ranked) else ranked[cut]
    return float((ranked[cut] + following) / 2)


def threshold_at_fmr(similarities: ArrayLike, same: ArrayLike, fmr: float) -> float:
    """Return the lowest threshold that accepts at most the share `fmr` of the impostor pairs."""
    scores, genuine = _pairs(similarities, same)
    impostors = np.sort(scores[~genuine])[::-1]
    allowed = int(np.floor(fmr * len(impostors) + 1e-9))
    if allowed >= len(impostors):
        return float(impostors[-1])
    return float(np.nextafter(impostors[allowed], np.inf))


def tar_at_fmr(similarities: ArrayLike, same: ArrayLike, fmr: float) -> float:
    """Return the share of genuine pairs accepted at `threshold_at_fmr`, 0 to 1."""
    scores, genuine = _pairs(similarities, same)
    return float((scores[genuine] >= threshold_at_fmr(scores, genuine, fmr)).mean())


def equal_error_rate(similarities: ArrayLike, same: ArrayLike) -> EqualError:
    """Return the error where false-match and false-non-match rate are nearest, as their mean."""
    scores, genuine = _pairs(similarities, same)
    thresholds = np.unique(scores)
    accepted = 1 - np.searchsorted(np.sort(scores[~genuine]), thresholds) / (~genuine).sum()
    rejected = np.searchsorted(np.sort(scores[genuine]), thresholds) / genuine.sum()
    at = int(np.argmin(np.abs(accepted - rejected)))
    return EqualError(float((accepted[at] + rejected[at]) / 2), float(thresholds[at]))


def rank_k_rate(
    similarities: ArrayLike, probe_people: ArrayLike, gallery_people: ArrayLike, k: int = 1
) -> float:
    """Return the share of probes whose person is among the k most similar people of the gallery.

    `similarities` is probes × gallery pictures. A person counts once, by the most similar picture.
    """
    scores = np.asarray(similarities, float)
    gallery, probes = np.asarray(gallery_people), np.asarray(probe_people)
    if scores.shape != (len(probes), len(gallery)):
        raise ValueError(
            f"Similarities must be {len(probes)} probes × {len(gallery)} gallery pictures, "
            f"got {scores.shape}."
        )
    people = np.unique(gallery)
    best = np.stack([scores[:, gallery == person].max(1) for person in people], 1)
    nearest = people[np.argsort(-best, axis=1, kind="stable")[:, :k]]
    return float((nearest == probes[:, None]).any(1).mean())


def _pairs(
    similarities: ArrayLike, same: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, genuine = np.asarray(similarities, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != genuine.shape:
        raise ValueError(
            f"Similarities and labels must be two lists of one length, "
            f"got {scores.shape} and {genuine.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("Similarities must be finite numbers; some are not.")
    if genuine.all() or not genuine.any():
        raise ValueError("Pairs of the same person and of different people are both needed.")
    return scores, genuine
