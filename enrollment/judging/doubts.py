"""Doubts about a picture: the quality of its face, and whom else it resembles.

A doubt never blocks anything by itself, and an error while looking for doubts never loses a
picture: a picture that was not compared has no `judged_at`, and `reindex` compares it later.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from django.db import transaction
from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from enrollment import journal
from enrollment.gallery import Weights, compared_weights, search_thresholds, thresholds_in_force
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person
from recognition.decision import Thresholds
from recognition.embedding import Crop
from recognition.log_text import few
from recognition.quality import FaceQuality
from recognition.vector_store import MAX_HITS, VectorHit, get_vector_store

logger = logging.getLogger(__name__)

FIRST_HITS: Final = 16  # hits requested first; more when all of them are of the same person
SEARCHED_AT_A_TIME: Final = 16  # probes a call; other searches run between two calls
OWN_COMPARED: Final = 200  # newest pictures of the same person that a picture is compared with

Resemblance = Doubt.Resemblance


@dataclass(frozen=True, slots=True)
class Probe:
    """A picture to compare with the gallery.

    `picture` is None while it is not stored, and `person` is None for a new person. `vector` is 512
    float32 of length 1, or None when it could not be computed.
    """

    content_hash: str
    person: int | None
    picture: int | None = None
    vector: np.ndarray | None = field(default=None, repr=False)


# Quality


def quality_doubts(quality: FaceQuality) -> list[Doubt]:
    """Return the quality reasons of a face as unsaved doubts."""
    return [Doubt(**reason.as_record()) for reason in quality.reasons]


def doubts_of(pictures: Collection[int]) -> defaultdict[int, list[Doubt]]:
    """Return the open doubts of each of these pictures, by its key, with whom they name."""
    found: defaultdict[int, list[Doubt]] = defaultdict(list)
    for doubt in Doubt.objects.filter(face_image__in=pictures).select_related("other__person"):
        found[doubt.face_image_id].append(doubt)
    return found


def note_quality(crops: Mapping[int, Crop]) -> None:
    """Replace the quality doubts of these pictures. `crops` maps picture ids to crops."""
    _replace(
        {picture: quality_doubts(crop.quality) for picture, crop in crops.items()},
        Doubt.with_dismissed.exclude(code__in=Resemblance.values),
    )


# Identity


def judge(pictures: Iterable[int]) -> None:
    """Compare stored pictures, by id, with the gallery and store their doubts. Never raises.

    Pictures without a vector of the current weights stay unjudged, and so do all when Milvus does
    not answer.
    """
    ids = list(pictures)
    try:
        _judge(ids)
    except Exception:  # noqa: BLE001 (the pictures are stored and searchable whatever happens here)
        logger.exception("Pictures %s were not judged: 'manage.py reindex' does it", few(ids))


def dismiss_doubts(pictures: QuerySet[FaceImage], by: str, *, but: Collection[str] = ()) -> int:
    """Dismiss the open doubts of these pictures, `but` those with these codes; return how many.

    A dismissed doubt is raised again only when its evidence changes.
    """
    doubts = Doubt.objects.filter(face_image__in=pictures.values("pk")).exclude(code__in=but)
    with journal.changes():
        of_whom = FaceImage.objects.filter(doubts__in=doubts).distinct().order_by("pk")
        by_person: defaultdict[Person, list[int]] = defaultdict(list)
        for picture in of_whom.select_related("person"):
            by_person[picture.person].append(picture.pk)
        for person, ids in by_person.items():
            journal.record(
                journal.Action.DOUBTS_DISMISSED, person=person, facts=journal.pictures(ids)
            )
        return doubts.update(dismissed_at=timezone.now(), dismissed_by=by)


def unjudged() -> QuerySet[FaceImage]:
    """Return indexed pictures that have not been compared with the gallery yet."""
    weights = compared_weights()
    if weights is None:
        return FaceImage.objects.none()
    ready = weights.rows.filter(status=FaceEmbedding.Status.INDEXED)
    return FaceImage.objects.filter(judged_at=None, pk__in=ready.values("face_image"))


def _judge(ids: Sequence[int]) -> None:
    weights = compared_weights()
    if weights is None:
        return
    rows = weights.rows.filter(face_image__in=ids).select_related("face_image")
    probes = [
        Probe(row.face_image.content_hash, row.face_image.person_id, row.face_image_id, row.array)
        for row in rows
    ]
    found = dict(
        zip((row.face_image_id for row in rows), resemblances(probes, weights), strict=True)
    )
    with transaction.atomic():
        _replace(found, Doubt.with_dismissed.filter(code__in=Resemblance.values))
        _drop_settled(found)
        # A picture that was moved meanwhile must still be compared with its new person's pictures.
        whose = {probe.picture: probe.person for probe in probes}
        now = FaceImage.objects.filter(pk__in=found).values_list("pk", "person_id")
        judged = [pk for pk, person in now if person == whose[pk]]
        FaceImage.objects.filter(pk__in=judged).update(judged_at=timezone.now())


def resemblances(
    probes: Sequence[Probe], weights: Weights | None, *, certain: bool = False
) -> list[list[Doubt]]:
    """Return the unsaved identity doubts of each probe, in the order of the probes.

    A probe is doubted when another person's picture reaches the `match` threshold, or reaches the
    `review` threshold and is nearer than the other pictures of the same person. Without such
    pictures only `match` counts: a quarter of all strangers reach `review`. A probe is also doubted
    when no picture of the same person reaches `review`. With `certain` only `match` counts, as if there
    were none. Without measured thresholds only identical files are found. Raise
    `VectorStoreUnavailable`.
    """
    found = list(_same_files(probes))
    if weights and (limits := search_thresholds(weights)):
        own = {} if certain else _best_own(probes, weights)
        found += _like_others(probes, own, weights, limits)
        if own and (pair := thresholds_in_force(weights)):
            found += _unlike_own(own, pair.review.similarity)
    doubts: list[list[Doubt]] = [[] for _probe in probes]
    for place, doubt in found:
        doubts[place].append(doubt)
    return doubts


Placed = Iterator[tuple[int, Doubt]]  # the index of the probe, and a doubt about it


def _same_files(probes: Sequence[Probe]) -> Placed:
    hashes = {probe.content_hash for probe in probes} - {""}
    first: dict[str, int] = {}
    rows = FaceImage.objects.filter(content_hash__in=hashes).order_by("pk")
    for picture, content_hash in rows.values_list("pk", "content_hash"):
        first.setdefault(content_hash, picture)
    for place, probe in enumerate(probes):
        original = first.get(probe.content_hash)
        # Of two pictures in the gallery the later one is the copy.
        if original and (probe.picture is None or original < probe.picture):
            yield (
                place,
                Doubt(code=Resemblance.SAME_PICTURE, given=1, expected=1, other_id=original),
            )


def _like_others(
    probes: Sequence[Probe],
    own: Mapping[int, float],
    weights: Weights,
    limits: Thresholds,
) -> Placed:
    match, review = limits.match.similarity, limits.review.similarity
    for place, (similarity, picture) in _nearest_others(probes, weights, review):
        if similarity >= match or similarity > own.get(place, match):
            code = Resemblance.LOOKS_LIKE_SOMEONE_ELSE
            limit = review if place in own else match
            yield place, Doubt(code=code, given=similarity, expected=limit, other_id=picture)


def _nearest_others(
    probes: Sequence[Probe], weights: Weights, floor: float
) -> Iterator[tuple[int, tuple[float, int]]]:
    """Yield a probe's index with the cosine and id of the nearest picture of another person.

    Only pictures with a cosine of at least `floor` count.
    """
    vectors = {n: probe.vector for n, probe in enumerate(probes) if probe.vector is not None}
    left, wanted = list(vectors), FIRST_HITS
    while left:
        hidden = []
        for start in range(0, len(left), SEARCHED_AT_A_TIME):
            batch = left[start : start + SEARCHED_AT_A_TIME]
            stacked = np.stack([vectors[place] for place in batch])
            found = get_vector_store().search(weights.partition, stacked, wanted)
            owners = _owners(hit.id for hits in found for hit in hits)
            for place, hits in zip(batch, found, strict=True):
                similar = [hit for hit in hits if hit.similarity >= floor]
                if other := _first_other(probes[place], similar, owners):
                    yield place, other
                elif len(similar) == wanted < MAX_HITS:
                    hidden.append(place)  # all hits were the person's own: ask for more
        left, wanted = hidden, min(wanted * 8, MAX_HITS)


def _owners(ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Return picture and person of each embedding id that still has a row."""
    rows = FaceEmbedding.objects.filter(pk__in=set(ids))
    values = rows.values_list("pk", "face_image_id", "face_image__person_id")
    return {pk: (picture, person) for pk, picture, person in values}


def _first_other(
    probe: Probe, hits: Iterable[VectorHit], owners: Mapping[int, tuple[int, int]]
) -> tuple[float, int] | None:
    """Return cosine and picture id of the first hit of another person, or None."""
    for hit in hits:
        if (owner := owners.get(hit.id)) and owner[1] != probe.person:
            return hit.similarity, owner[0]
    return None


def _unlike_own(own: Mapping[int, float], review: float) -> Placed:
    for place, best in own.items():
        if best < review:
            yield place, Doubt(code=Resemblance.UNLIKE_OWN_PICTURES, given=best, expected=review)


def _best_own(probes: Sequence[Probe], weights: Weights) -> dict[int, float]:
    """Return, by index of the probe, the cosine to the nearest other picture of the same person."""
    persons = {probe.person for probe in probes if probe.person is not None}
    own = _own_pictures(persons, weights)
    best = {}
    for place, probe in enumerate(probes):
        others = [vector for picture, vector in own[probe.person] if picture != probe.picture]
        if probe.vector is not None and others:
            best[place] = float((np.stack(others) @ probe.vector).max())
    return best


def _own_pictures(
    persons: set[int], weights: Weights
) -> defaultdict[int | None, list[tuple[int, np.ndarray]]]:
    """Return (picture id, vector) of the newest pictures of each person."""
    newest = Window(RowNumber(), "face_image__person", F("face_image").desc())
    rows = weights.rows.filter(face_image__person__in=persons).annotate(age=newest)
    values = rows.filter(age__lte=OWN_COMPARED).values_list(
        "face_image__person_id", "face_image_id", "vector"
    )
    own: defaultdict[int | None, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for person, picture, vector in values:
        if vector is not None:
            own[person].append((picture, np.frombuffer(vector, "<f4")))
    return own


# Storing


def _replace(found: Mapping[int, Iterable[Doubt]], old: QuerySet[Doubt]) -> None:
    """Replace the `old` doubts of each picture by the doubts found; skip deleted pictures.

    A new doubt with the same evidence as a dismissed one is stored as dismissed.
    """
    doubts = [(picture, doubt) for picture, items in found.items() for doubt in items]
    named = {doubt.other_id for _picture, doubt in doubts if doubt.other_id}
    with transaction.atomic():
        # Locked, so that no picture is deleted before the doubts that refer to it are stored.
        # Others who refer to them need not wait, and so never wait for each other with this.
        locked = FaceImage.objects.select_for_update(no_key=True)
        locked = locked.filter(pk__in=named | found.keys())
        owners = dict(locked.order_by("pk").values_list("pk", "person_id"))
        replaced = old.filter(face_image__in=found)
        dismissed = list(replaced.exclude(dismissed_at=None))
        replaced.delete()
        kept = [
            (picture, doubt)
            for picture, doubt in doubts
            if {picture, doubt.other_id} <= {None, *owners}
        ]
        for picture, doubt in kept:
            doubt.face_image_id = picture
            if doubt.code in Resemblance:
                doubt.persons = f"{owners[picture]} {owners.get(doubt.other_id, '')}"
            for before in dismissed:
                if before.face_image_id == picture and doubt.has_evidence_of(before):
                    doubt.dismissed_at = before.dismissed_at
                    doubt.dismissed_by = before.dismissed_by
        Doubt.objects.bulk_create(doubt for _picture, doubt in kept)


def _drop_settled(pictures: Iterable[int]) -> None:
    """Delete doubts about a resemblance to pictures that now belong to the same person."""
    settled = Doubt.with_dismissed.filter(
        code=Resemblance.LOOKS_LIKE_SOMEONE_ELSE,
        other__in=pictures,
        other__person=F("face_image__person"),
    )
    Doubt.with_dismissed.filter(pk__in=list(settled.values_list("pk", flat=True))).delete()
