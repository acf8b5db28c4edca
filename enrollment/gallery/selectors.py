"""Queries to the gallery: who resembles a face, who is enrolled, what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import EllipsisType
from typing import Any, Final

import numpy as np
from django.db import DatabaseError
from django.db.models import Count, Exists, OuterRef, Prefetch, QuerySet
from django.utils import timezone
from django.utils.translation import gettext, ngettext

from enrollment.exceptions import PersonMerged, PersonNotComparable, PersonNotFound, PictureNotFound
from enrollment.gallery.person_list import find_persons, with_pictures
from enrollment.gallery.purposes import DUE_SOON, nearest_of, persons_due, persons_expiring
from enrollment.gallery.weights import Weights, compared_weights, search_thresholds
from enrollment.models import (
    Doubt,
    FaceEmbedding,
    FaceImage,
    MergedId,
    Person,
    Removal,
    folded,
    letters_and_digits,
    normalised,
)
from recognition.decision import Decision, Thresholds, decide
from recognition.exceptions import NoFaceDetected
from recognition.inference import Embeddings
from recognition.neighbours import as_cosine
from recognition.vector_store import (
    MAX_HITS,
    VectorHit,
    get_vector_store,
    partition_name,
)

REMOVED_WITHIN: Final = timedelta(minutes=5)  # a pending removal older than this is reported
NO_THRESHOLDS: Final = "no_thresholds"  # a reason why there is no decision
# To make the objects of ten hits takes longer than to find them.
_OF_A_HIT: Final = (
    "face_image__original_path",
    "face_image__source",
    "face_image__created_at",
    "face_image__person__person_id",
    "face_image__person__name",
)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An enrolled picture that resembles the probe. `similarity` is the cosine, -1 to 1.

    `decision` is None when the current weights have no measured thresholds (`no_thresholds`) or no
    face was found in the probe (`no_face_detected`); `decision_reason` then holds that code.
    """

    id: int  # of the embedding, and so of the vector
    similarity: float
    decision: Decision | None
    face_image: FaceImage
    decision_reason: str | None = None

    @property
    def person(self) -> Person:
        return self.face_image.person


def search_gallery(
    probe: Embeddings,
    top_k: int,
    *,
    threshold: float = -1.0,
    group_by_person: bool = False,
    thresholds: Thresholds | EllipsisType | None = ...,
    persons: QuerySet[Person] | None = None,
) -> list[list[SearchHit]]:
    """Return the `top_k` most similar enrolled pictures for each probe vector, best first.

    Hits below `threshold` (a cosine, -1 to 1) are left out. With `group_by_person` each person
    appears once, with the most similar picture. A caller that already has the result of
    `search_thresholds` passes it as `thresholds`.

    Only vectors of the same weights are searched. Hits without a row in SQL, or of none of `persons`,
    give way to further ones; where Milvus returns too few, vectors of `persons` are compared in SQL.
    """
    rows = _rows_of_hits().filter(model=probe.model, fingerprint=probe.fingerprint)
    if persons is not None:
        rows = rows.filter(face_image__person__in=persons)
    partition = partition_name(probe.model, probe.fingerprint)
    if thresholds is ...:
        thresholds = search_thresholds(Weights.of(probe))
    answers: dict[int, list[SearchHit]] = {}
    left, wanted = list(range(len(probe.vectors))), top_k
    while left:
        found = get_vector_store().search(partition, probe.vectors[left], wanted)
        similar = [[hit for hit in hits if hit.similarity >= threshold] for hits in found]
        by_id = rows.in_bulk({hit.id for hits in similar for hit in hits})
        short = []
        for place, candidates in zip(left, similar, strict=True):
            hits = _with_rows(candidates, by_id, thresholds)
            if group_by_person:
                hits = _best_of_each_person(hits)
            answers[place] = hits[:top_k]
            if len(hits) < top_k and len(candidates) == wanted:
                if wanted < MAX_HITS:
                    short.append(place)
                elif persons is not None:
                    exact = nearest_of(
                        rows, probe.vectors[place], top_k, threshold, group_by_person
                    )
                    by_id |= rows.in_bulk([hit.id for hit in exact])
                    answers[place] = _with_rows(exact, by_id, thresholds)
        left, wanted = short, min(wanted * 4, MAX_HITS)
    return [answers[place] for place in range(len(probe.vectors))]


def _best_of_each_person(hits: list[SearchHit]) -> list[SearchHit]:
    best: dict[int, SearchHit] = {}
    for hit in hits:
        best.setdefault(hit.face_image.person_id, hit)
    return list(best.values())


def _rows_of_hits() -> QuerySet[FaceEmbedding]:
    """Return the embeddings with pictures and persons, and of each only what a hit has use for."""
    return FaceEmbedding.objects.order_by().select_related("face_image__person").only(*_OF_A_HIT)


def _with_rows(
    found: list[VectorHit],
    by_id: Mapping[int, FaceEmbedding],
    thresholds: Thresholds | None,
) -> list[SearchHit]:
    return [
        SearchHit(
            hit.id,
            hit.similarity,
            decide(hit.similarity, thresholds),
            by_id[hit.id].face_image,
            None if thresholds else NO_THRESHOLDS,
        )
        for hit in found
        if hit.id in by_id
    ]


def hits_again(
    found: Sequence[Sequence[VectorHit]],
    thresholds: Thresholds | None,
    *,
    persons: QuerySet[Person] | None = None,
) -> list[list[SearchHit]]:
    """Return the hits of an earlier search, by the thresholds that it had.

    Left out are those without a row in SQL by now, and those of none of `persons`.
    """
    rows = _rows_of_hits()
    if persons is not None:
        rows = rows.filter(face_image__person__in=persons)
    by_id = rows.in_bulk({hit.id for hits in found for hit in hits})
    return [_with_rows(list(hits), by_id, thresholds) for hits in found]


def without_verdict(hits: Iterable[SearchHit]) -> list[SearchHit]:
    """Return the hits without a decision, for a probe in which no face was found."""
    return [replace(hit, decision=None, decision_reason=NoFaceDetected.code) for hit in hits]


def persons_like(picture: FaceImage, limit: int) -> list[SearchHit]:
    """Return up to `limit` other persons, each with their picture most similar to this one.

    The list is empty when the picture has no vector yet.
    """
    weights = compared_weights()
    row = weights.rows.filter(face_image=picture).first() if weights else None
    if row is None:
        return []
    probe = Embeddings(row.computed_array()[None], row.model, row.fingerprint)
    (hits,) = search_gallery(probe, limit + 1, group_by_person=True)
    return [hit for hit in hits if hit.person.pk != picture.person_id][:limit]


def best_of_person(probe: Embeddings, person: Person) -> list[tuple[FaceEmbedding, float]]:
    """Return the person's picture most similar to each probe vector, and the cosine.

    Raise `PersonNotComparable` when none of the person's vectors was computed with the same
    weights.
    """
    rows = list(
        Weights.of(probe)
        .rows.filter(face_image__person=person)
        .select_related("face_image__person")
    )
    if not rows:
        message = gettext(
            "%(person)s has no picture that is searchable with the model '%(model)s'. Add one, or have "
            "the administrator run 'manage.py reindex'."
        )
        raise PersonNotComparable(message % {"person": person, "model": probe.model})
    similarities = probe.vectors @ np.stack([row.computed_array() for row in rows]).T
    best = similarities.argmax(axis=1).tolist()
    of_best = zip(best, similarities, strict=True)
    return [(rows[place], as_cosine(each[place])) for place, each in of_best]


def faceless_pictures() -> QuerySet[FaceImage]:
    """Return pictures in which detection found no face; earlier versions enrolled such pictures."""
    rows = FaceEmbedding.objects.filter(face_image=OuterRef("pk"), face_detected=False)
    return FaceImage.objects.filter(Exists(rows), use_face_detection=True)


def gallery_is_empty() -> bool:
    """Return whether no picture is enrolled."""
    return not FaceImage.objects.exists()


@dataclass(frozen=True, slots=True)
class GalleryState:
    """Counts of what is stored, and of what needs attention."""

    persons: int
    persons_without_pictures: int
    persons_due_soon: int  # deleted within a month
    persons_expiring: int  # the same, and whose consent ends
    pictures: int
    doubtful_pictures: int
    unjudged_pictures: int  # not compared with the gallery yet
    indexed: int
    pending: int
    failed: int
    deletions: int  # vectors and files of deleted pictures that are still to be removed


def gallery_state() -> GalleryState:
    """Count the gallery's rows in SQL. `reindex --check` compares them with Milvus."""
    rows = FaceEmbedding.objects.order_by().values_list("status")
    by_status = dict(rows.annotate(count=Count("pk")))
    with_pictures = FaceImage.objects.filter(person=OuterRef("pk"))
    return GalleryState(
        persons=Person.objects.count(),
        persons_without_pictures=Person.objects.filter(~Exists(with_pictures)).count(),
        persons_due_soon=persons_due(DUE_SOON).count(),
        persons_expiring=persons_expiring(DUE_SOON).count(),
        pictures=FaceImage.objects.count(),
        doubtful_pictures=Doubt.objects.aggregate(count=Count("face_image", distinct=True))[
            "count"
        ],
        unjudged_pictures=FaceImage.objects.filter(judged_at=None).count(),
        indexed=by_status.get(FaceEmbedding.Status.INDEXED, 0),
        pending=by_status.get(FaceEmbedding.Status.PENDING, 0),
        failed=by_status.get(FaceEmbedding.Status.FAILED, 0),
        deletions=Removal.objects.count(),
    )


def removals_that_wait() -> str | None:
    """Return a warning when vectors or files of deleted pictures wait too long for removal, or
    None."""
    try:
        waiting = Removal.objects.filter(created_at__lt=timezone.now() - REMOVED_WITHIN)
        count = waiting.count()
    except DatabaseError:  # the health check reports the database by itself
        return None
    if not count:
        return None
    return ngettext(
        "%(count)d trace of deleted pictures waits to be removed. The server tries again by "
        "itself; its log names the cause, 'manage.py reindex' tries at once.",
        "%(count)d traces of deleted pictures wait to be removed. The server tries again by "
        "itself; its log names the cause, 'manage.py reindex' tries at once.",
        count,
    ) % {"count": count}


def doubt_counts() -> list[tuple[str, int]]:
    """Return how many pictures have each doubt, as (code, count), most frequent first."""
    doubts = Doubt.objects.order_by().values_list("code")
    return list(
        doubts.annotate(count=Count("face_image", distinct=True)).order_by("-count", "code")
    )


def get_person(person_id: str, *, among: QuerySet[Person] | None = None) -> Person:
    """Return the person with this id (`among` these), annotated by `with_pictures`. Raise
    `PersonNotFound`, of which `PersonMerged` says that the id stands for somebody else since.

    The exact id is preferred: version 1.0 could store two persons whose ids differ only in
    spelling.
    """
    ids = [person_id, person_id.strip(), normalised(person_id)]
    known = Person.objects.all() if among is None else among
    found = {each.person_id: each for each in with_pictures(known.filter(person_id__in=ids))}
    person = next((found[each] for each in ids if each in found), None)
    if person is None and (merged := merged_id(*ids)):
        message = gettext("'%(person_id)s' was merged into '%(taker)s'. Ask for that id.")
        taker = merged.taker.person_id
        raise PersonMerged(message % {"person_id": person_id, "taker": taker}, taker)
    if person is None:
        message = gettext("Nobody has the id '%(person_id)s'. Look for it in the list of people.")
        raise PersonNotFound(message % {"person_id": person_id})
    return person


def person_meant(person_id: str, *, among: QuerySet[Person] | None = None) -> Person:
    """Return the person with this id (`among` these), or whom that one was merged into. Raise
    `PersonNotFound`."""
    try:
        return get_person(person_id, among=among)
    except PersonMerged as merged:
        return get_person(merged.person_id, among=among)


def person_typed(person_id: str, *, among: QuerySet[Person] | None = None) -> Person:
    """Like `person_meant` for an id that somebody types without its punctuation, that of a CPF, say,
    if nobody else's id has the same letters and digits.

    One that is typed with other punctuation is another id.
    """
    try:
        return person_meant(person_id, among=among)
    except PersonNotFound:
        key = letters_and_digits(person_id)
        alike: list[Person] = list(Person.objects.filter(id_key=key)[:2])
        if not key or key != folded(person_id) or len(alike) != 1:
            raise
        if among is not None and not among.filter(pk=alike[0].pk).exists():
            raise
        return alike[0]


def person_named(text: str, *, among: QuerySet[Person] | None = None) -> Person:
    """Return the person with this id, or the only one who has these words in id or name.

    Only `among` these persons, if given. Raise `PersonNotFound`, also if several have the words.
    """
    try:
        return person_typed(text, among=among)
    except PersonNotFound:
        known = find_persons(text)
        named = list((known if among is None else known.filter(pk__in=among))[:2])
        if len(named) > 1:
            message = gettext(
                "Several people have “%(text)s” in their id or name. Give the id of the one you mean."
            )
            raise PersonNotFound(message % {"text": text}) from None
        if not named:
            raise
        return named[0]


def better_kept(persons: Sequence[Person]) -> Person:
    """Return which of these persons, annotated by `with_pictures`, a merge had best keep.

    It is the one with the most pictures, and of equal ones who was enrolled first.
    """

    def order(person: Any) -> tuple[int, datetime, int]:
        return -person.picture_count, person.created_at, person.pk

    return min(persons, key=order)


def merged_id(*ids: str) -> MergedId | None:
    """Return the first of these ids that was merged, with whom it stands for, or None."""
    return MergedId.objects.filter(person_id__in=ids).select_related("taker").first()


def pictures_of(person: Person) -> QuerySet[FaceImage]:
    """Return the person's pictures, newest first, with what `with_states` loads."""
    return with_states(person.face_images.order_by("-pk"))


def with_states(pictures: QuerySet[FaceImage]) -> QuerySet[FaceImage]:
    """Prefetch the embeddings without vectors, and the doubts with the persons that they name."""
    rows = FaceEmbedding.objects.defer("vector")
    doubts = Doubt.objects.select_related("other__person")
    return pictures.prefetch_related(Prefetch("embeddings", rows), Prefetch("doubts", doubts))


def with_doubts() -> QuerySet[FaceImage]:
    """Return the pictures with open doubts, newest first, with their doubts and persons."""
    doubts = Doubt.objects.select_related("other__person")
    pictures = FaceImage.objects.filter(pk__in=Doubt.objects.values("face_image"))
    related = pictures.select_related("person").prefetch_related(Prefetch("doubts", doubts))
    return related.order_by("-pk")


def picture_of(person: Person, picture_id: int) -> FaceImage:
    """Return one picture of the person. Raise `PictureNotFound` when it is not theirs."""
    picture: FaceImage | None = person.face_images.filter(pk=picture_id).first()
    if picture is None:
        message = gettext("%(person)s has no picture %(id)d, or not any more.")
        raise PictureNotFound(message % {"person": person, "id": picture_id})
    return picture
