"""Calibration: thresholds from the similarities of pairs in the own gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from django.db.models import Q
from django.utils.translation import gettext

from enrollment import journal
from enrollment.gallery import Weights
from enrollment.judging.error_rates import CONFIRMED, REJECTED, confirmed_pairs
from enrollment.judging.gallery_vectors import GalleryVectors, gallery_vectors
from enrollment.models import Calibration, FaceImage
from recognition.evaluation import (
    FALSE_MATCHES,
    Verification,
    impostor_curve,
    review_fmr,
    threshold_of_impostors,
)
from recognition.exceptions import RecognitionError
from recognition.networks.descriptor import Threshold

MOST_PAIRS: Final = 1_000_000  # of each kind
PICTURES_OF_ONE: Final = 20  # so that nobody with a thousand pictures outweighs the others
GENUINE_PAIRS: Final = 50  # least number; with fewer, the true-match rate is a guess
MOST_ALIKE: Final = 5  # impostor pairs reported: the most similar are often enrolment mistakes
_COMPARED_AT_A_TIME: Final = 16_384  # pairs of vectors, 4 KiB a pair


class TooFewPairs(RecognitionError):
    """The gallery has too few pairs to measure thresholds."""

    code = "too_few_pairs"


class LikePair(NamedTuple):
    """Two pictures of different persons, by id, and their cosine."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """The thresholds measured on the gallery, and the pairs behind them."""

    weights: Weights
    match: Threshold
    review: Threshold
    curve: list[Threshold]  # at further false-match rates, for decisions in larger galleries
    verification: Verification
    persons: int
    pictures: int
    most_alike: list[LikePair]  # enrolled as different persons
    confirmed: int = 0  # of the genuine pairs, those that operators confirmed
    rejected: int = 0  # of the impostor pairs, those that operators rejected

    @property
    def genuine_pairs(self) -> int:
        return int(self.verification.same.sum())

    @property
    def impostor_pairs(self) -> int:
        return int((~self.verification.same).sum())

    def recognised(self, threshold: Threshold) -> float:
        """Return the share of genuine pairs that reach the threshold, 0 to 1."""
        genuine = self.verification.similarities[self.verification.same]
        return float((genuine >= threshold.similarity).mean())


def measure_gallery(weights: Weights, fmr: float, seed: int = 0) -> Measurement:
    """Draw pairs of enrolled pictures and find the thresholds for the false-match rate `fmr`.

    Pairs of a searched face and an enrolled picture that operators confirmed or rejected are among
    them, if the same weights compared them. The same gallery and seed give the same pairs. Pictures without a face and pairs of the same
    file are left out. Raise `TooFewPairs`.
    """
    # Where detection found no face, the vector describes the whole scene.
    faces = weights.rows.exclude(Q(face_detected=False) & Q(face_image__use_face_detection=True))
    chance = np.random.default_rng(seed)
    gallery = _some_of_each_person(gallery_vectors(faces), chance)
    genuine, impostors = _genuine_pairs(gallery, chance), _impostor_pairs(gallery, chance)
    said = confirmed_pairs(weights.model, weights.fingerprint)
    alike = _similarities(gallery, impostors)
    genuine_scores = _with(_similarities(gallery, genuine), said[CONFIRMED])
    scores = _with(alike, said[REJECTED])
    _check_number(genuine_scores, scores, fmr)
    same = np.repeat([True, False], [len(genuine_scores), len(scores)])
    return Measurement(
        weights,
        threshold_of_impostors(scores, fmr),
        threshold_of_impostors(scores, review_fmr(fmr)),
        impostor_curve(scores),
        Verification(np.concatenate([genuine_scores, scores]), same),
        persons=len(np.unique(gallery.persons)),
        pictures=len(gallery.pictures),
        most_alike=_most_alike(gallery, impostors, alike),
        confirmed=len(said[CONFIRMED]),
        rejected=len(said[REJECTED]),
    )


def save_calibration(measurement: Measurement) -> Calibration:
    """Store the thresholds; they decide as long as these weights are in use."""
    weights: dict[str, Any] = {
        "model": measurement.weights.model,
        "fingerprint": measurement.weights.fingerprint,
    }
    measured = {
        "match": measurement.match.similarity,
        "match_far": measurement.match.fmr,
        "review": measurement.review.similarity,
        "review_far": measurement.review.fmr,
        "genuine_pairs": measurement.genuine_pairs,
        "impostor_pairs": measurement.impostor_pairs,
        "persons": measurement.persons,
    }
    curve = [[point.fmr, point.similarity] for point in measurement.curve]
    with journal.changes():
        calibration, _created = Calibration.objects.update_or_create(
            **weights, defaults={**measured, "curve": curve}
        )
        journal.record(journal.Action.CALIBRATED, facts={**weights, **measured})
    return calibration


def _some_of_each_person(gallery: GalleryVectors, chance: np.random.Generator) -> GalleryVectors:
    """Return at most `PICTURES_OF_ONE` random pictures of each person, sorted by person."""
    mixed = chance.permutation(len(gallery.persons))
    order = mixed[np.argsort(gallery.persons[mixed], kind="stable")]
    persons = gallery.persons[order]
    number = np.arange(len(persons)) - np.searchsorted(persons, persons)
    chosen = order[number < PICTURES_OF_ONE]
    return GalleryVectors(*(column[chosen] for column in gallery))


def _genuine_pairs(gallery: GalleryVectors, chance: np.random.Generator) -> np.ndarray:
    """Return up to `MOST_PAIRS` pairs of pictures of one person, M×2 positions in the gallery
    arrays."""
    places = np.arange(len(gallery.persons))
    parts = [
        np.stack([places[:-apart], places[apart:]], axis=1)
        for apart in range(1, min(PICTURES_OF_ONE, len(places)))
    ]
    pairs = np.concatenate([np.empty((0, 2), int), *parts])
    pairs = _different_files(gallery, pairs[_is_of_one_person(gallery, pairs)])
    return chance.permutation(pairs)[:MOST_PAIRS]


def _impostor_pairs(gallery: GalleryVectors, chance: np.random.Generator) -> np.ndarray:
    """Return up to `MOST_PAIRS` pairs of pictures of different persons, M×2 positions.

    A small gallery gives all its pairs; a large one a random sample.
    """
    count = len(gallery.persons)
    if count * (count - 1) // 2 <= MOST_PAIRS:
        pairs = np.stack(np.triu_indices(count, 1), axis=1)
    else:
        drawn = np.sort(chance.integers(count, size=(2 * MOST_PAIRS, 2)), axis=1)
        pairs = np.unique(drawn, axis=0)
    pairs = _different_files(gallery, pairs[~_is_of_one_person(gallery, pairs)])
    return chance.permutation(pairs)[:MOST_PAIRS]


def _is_of_one_person(gallery: GalleryVectors, pairs: np.ndarray) -> np.ndarray:
    first, second = gallery.persons[pairs].T
    return np.asarray(first == second)


def _different_files(gallery: GalleryVectors, pairs: np.ndarray) -> np.ndarray:
    """Return the pairs without those of identical files, which would bias the similarities."""
    hashes = dict(FaceImage.objects.exclude(content_hash="").values_list("pk", "content_hash"))
    files: dict[str | int, int] = {}
    numbers = np.array(
        [files.setdefault(hashes.get(pk, pk), len(files)) for pk in gallery.pictures.tolist()]
    )
    first, second = numbers[pairs].T
    return np.asarray(pairs[first != second])


def _check_number(genuine: np.ndarray, impostors: np.ndarray, fmr: float) -> None:
    needed = round(FALSE_MATCHES / fmr)
    if len(impostors) < needed or len(genuine) < GENUINE_PAIRS:
        raise TooFewPairs(
            gettext(
                "The gallery makes %(genuine)d pairs of pictures of one person and %(impostors)d of "
                "different people. For a false-match rate of %(fmr)g at least %(least)d and %(needed)d "
                "are needed. Enrol more pictures, or choose a larger rate (--fmr)."
            )
            % {
                "genuine": len(genuine),
                "impostors": len(impostors),
                "fmr": fmr,
                "least": GENUINE_PAIRS,
                "needed": needed,
            }
        )


def _similarities(gallery: GalleryVectors, pairs: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair as M float32."""
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _COMPARED_AT_A_TIME):
        first, second = gallery.vectors[pairs[start : start + _COMPARED_AT_A_TIME].T]
        parts.append(np.einsum("ij,ij->i", first, second))
    return np.concatenate(parts)


def _with(scores: np.ndarray, more: Sequence[float]) -> np.ndarray:
    return np.concatenate([scores, np.array(more, np.float32)])


def _most_alike(
    gallery: GalleryVectors, impostors: np.ndarray, scores: np.ndarray
) -> list[LikePair]:
    highest = np.argsort(-scores)[:MOST_ALIKE]
    pictures = gallery.pictures[impostors[highest]].tolist()
    return [
        LikePair(first, second, similarity)
        for (first, second), similarity in zip(pictures, scores[highest].tolist(), strict=True)
    ]
