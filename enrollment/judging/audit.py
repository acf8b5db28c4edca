"""The gallery audit: find what makes searches return wrong results or none.

It reads only SQL, so it runs beside the server and while Milvus is down.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.utils.translation import gettext_lazy as _
from django_tasks import task

from enrollment.gallery import (
    Weights,
    compared_weights,
    faceless_pictures,
    search_thresholds,
)
from enrollment.judging.gallery_vectors import GalleryVectors, gallery_vectors
from enrollment.models import DistinctPair, Doubt, Examination, FaceEmbedding, FaceImage, Person
from recognition.decision import Thresholds
from recognition.neighbours import NOWHERE, Neighbours, as_cosine, nearest_neighbours

KEPT_CASES: Final = 100  # stored for each kind, worst first, for the report in the admin
DUPLICATE_SHARE: Final = 0.5  # duplicates: more than this share of both persons' pictures is alike

Track = Callable[[Iterable[Any], int], Iterable[Any]]


class Kind(Enum):
    """The kinds of findings."""

    NEAR_DUPLICATES = "near_duplicates"
    NEARER_TO_ANOTHER = "nearer_to_another"
    SAME_FILE = "same_file"
    NO_FACE = "no_face"
    NOT_INDEXED = "not_indexed"
    NOT_JUDGED = "not_judged"
    ONLY_DOUBTFUL = "only_doubtful"
    ONE_PICTURE = "one_picture"
    NO_PICTURE = "no_picture"

    @property
    def title(self) -> str:
        return str(_TITLES[self][0])

    @property
    def advice(self) -> str:
        return str(_TITLES[self][1])

    @property
    def is_fault(self) -> bool:
        """Whether the finding makes searches go wrong. The other kinds only suggest improvements."""
        return self not in (Kind.ONLY_DOUBTFUL, Kind.ONE_PICTURE, Kind.NO_PICTURE)


_TITLES: Final = {
    Kind.NEAR_DUPLICATES: (
        _("people who look like one and the same"),
        _("Compare them; merge them if they are one person."),
    ),
    Kind.NEARER_TO_ANOTHER: (
        _("pictures nearer to another person than to their own"),
        _("Check whom each shows; move it there, or delete it."),
    ),
    Kind.SAME_FILE: (
        _("files enrolled more than once"),
        _("Keep one of each; under two people, one of them is wrong."),
    ),
    Kind.NO_FACE: (
        _("pictures in which no face was found"),
        _(
            "They can match anybody. Delete or replace them; add aligned crops of faces again with "
            "“Find the face in the pictures” off."
        ),
    ),
    Kind.NOT_INDEXED: (
        _("pictures that searches do not find"),
        _("Have the administrator run 'manage.py reindex', which says what hinders them."),
    ),
    Kind.NOT_JUDGED: (
        _("pictures not compared with the gallery when they were enrolled"),
        _("Have the administrator run 'manage.py reindex'."),
    ),
    Kind.ONLY_DOUBTFUL: (
        _("people with doubtful pictures only"),
        _("Add a good picture."),
    ),
    Kind.ONE_PICTURE: (
        _("people with one picture"),
        _("Add a second one, from another day and in another light."),
    ),
    Kind.NO_PICTURE: (
        _("people without a picture"),
        _("Add one, or delete the person."),
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One finding, as ids of persons and pictures.

    For a pair of pictures, `similarity` is their cosine, and `own_similarity` is the cosine of the
    first and the nearest picture of the same person.
    """

    persons: tuple[int, ...] = ()
    pictures: tuple[int, ...] = ()
    similarity: float | None = None
    own_similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of an audit; the cases of each kind stand worst first."""

    weights: Weights | None
    thresholds: Thresholds | None
    pictures: int  # compared
    seconds: float
    cases: dict[Kind, list[Case]]

    @property
    def faults(self) -> int:
        return sum(len(cases) for kind, cases in self.cases.items() if kind.is_fault)


def examine_gallery(
    model: str | None = None, track: Track = lambda items, total: items
) -> Diagnosis:
    """Audit the gallery with the vectors of one model, by default the default model.

    Near-duplicate persons are only searched for when thresholds exist. `track` wraps the long loop,
    for a progress bar.
    """
    started = time.monotonic()
    weights = compared_weights(model)
    thresholds = weights and search_thresholds(weights)
    rows = weights.rows if weights else FaceEmbedding.objects.none()
    cases = _cases_of_rows(rows)
    gallery = gallery_vectors(rows)
    near = nearest_neighbours(gallery.vectors, gallery.persons, track)
    if thresholds:
        alike = _duplicates(gallery, near, thresholds.review.similarity)
        cases[Kind.NEAR_DUPLICATES] = _without_known_to_be_two(alike)
    cases[Kind.NEARER_TO_ANOTHER] = _nearer_to_another(gallery, near)
    return Diagnosis(
        weights,
        thresholds,
        pictures=len(gallery.pictures),
        seconds=time.monotonic() - started,
        cases={kind: cases[kind] for kind in Kind if cases.get(kind)},
    )


def keep_examination(diagnosis: Diagnosis) -> Examination:
    """Store the result for the report in the admin, replacing the previous one."""
    findings = {
        kind.value: {"count": len(cases), "cases": [asdict(case) for case in cases[:KEPT_CASES]]}
        for kind, cases in diagnosis.cases.items()
    }
    with transaction.atomic():
        Examination.objects.all().delete()
        return Examination.objects.create(
            model=diagnosis.weights.model if diagnosis.weights else "",
            pictures=diagnosis.pictures,
            findings=findings,
            seconds=diagnosis.seconds,
        )


@task()
def examine_and_keep() -> None:
    """Run the audit that the admin's button requests."""
    keep_examination(examine_gallery())


# Findings from SQL columns


def _cases_of_rows(rows: QuerySet[FaceEmbedding]) -> dict[Kind, list[Case]]:
    of_picture = rows.filter(face_image=OuterRef("pk"))
    indexed = of_picture.filter(status=FaceEmbedding.Status.INDEXED)
    pictures = FaceImage.objects.all()
    of_person = FaceImage.objects.filter(person=OuterRef("pk"))
    trusted = of_person.filter(~Exists(Doubt.objects.filter(face_image=OuterRef("pk"))))
    persons = Person.objects.annotate(count=Count("face_images"))
    return {
        Kind.SAME_FILE: _same_files(),
        Kind.NO_FACE: _of_pictures(faceless_pictures()),
        Kind.NOT_INDEXED: _of_pictures(pictures.filter(~Exists(indexed))),
        Kind.NOT_JUDGED: _of_pictures(pictures.filter(judged_at=None)),
        Kind.ONLY_DOUBTFUL: _of_persons(persons.filter(~Exists(trusted), count__gt=0)),
        Kind.ONE_PICTURE: _of_persons(persons.filter(count=1)),
        Kind.NO_PICTURE: _of_persons(persons.filter(count=0)),
    }


def _of_pictures(pictures: QuerySet[FaceImage]) -> list[Case]:
    ids = pictures.order_by("pk").values_list("pk", "person_id")
    return [Case((person,), (pk,)) for pk, person in ids.iterator()]


def _of_persons(persons: QuerySet[Person]) -> list[Case]:
    return [Case((pk,)) for pk in persons.order_by("pk").values_list("pk", flat=True).iterator()]


def _same_files() -> list[Case]:
    hashes = FaceImage.objects.exclude(content_hash="").order_by().values("content_hash")
    repeated = hashes.annotate(count=Count("pk")).filter(count__gt=1)
    copies = FaceImage.objects.filter(content_hash__in=repeated.values("content_hash"))
    files = defaultdict(list)
    for content_hash, pk, person in copies.order_by("pk").values_list(
        "content_hash", "pk", "person_id"
    ):
        files[content_hash].append((pk, person))
    return [
        Case(
            tuple(dict.fromkeys(person for _pk, person in file)), tuple(pk for pk, _person in file)
        )
        for file in files.values()
    ]


# Findings from the vectors


def _nearer_to_another(gallery: GalleryVectors, near: Neighbours) -> list[Case]:
    """Return pictures nearer to another person than to their own, largest difference first.

    A misfiled picture also makes correct pictures look misfiled: one of Ana under Bia makes Ana's
    other pictures nearer to Bia. Only the misfiled picture is returned.
    """
    margin = np.full(len(near.own), -np.inf, np.float32)
    has_own = near.own != NOWHERE  # where neither is, the difference of two infinities is no number
    margin[has_own] = near.other_similarity[has_own] - near.own_similarity[has_own]
    order = np.argsort(-margin, kind="stable")[: int((margin > 0).sum())]
    nearest: dict[int, int] = {}  # place → the person whom the picture there is near to
    for place, other in zip(order.tolist(), near.other[order].tolist(), strict=True):
        if nearest.get(other) != gallery.persons[place]:
            nearest[place] = gallery.persons[other]
    return [
        Case(
            *_pair(gallery, place, near.other[place]),
            similarity=float(near.other_similarity[place]),
            own_similarity=float(near.own_similarity[place]),
        )
        for place in nearest
    ]


def _duplicates(gallery: GalleryVectors, near: Neighbours, limit: float) -> list[Case]:
    """Return pairs of persons most of whose pictures are alike, most similar first."""
    linked = np.flatnonzero(near.other_similarity >= limit)
    pairs = np.stack([gallery.persons[linked], gallery.persons[near.other[linked]]], axis=1)
    cases = [
        case
        for first, second in np.unique(np.sort(pairs, axis=1), axis=0)
        if (case := _duplicate(gallery, first, second, limit))
    ]
    return sorted(cases, key=lambda case: case.similarity or 0, reverse=True)


def _without_known_to_be_two(cases: list[Case]) -> list[Case]:
    """Leave out the pairs of whom somebody said that they are two persons."""
    apart = set(DistinctPair.objects.values_list("first", "second"))
    return [case for case in cases if tuple(sorted(case.persons)) not in apart]


def _duplicate(gallery: GalleryVectors, first: int, second: int, limit: float) -> Case | None:
    """Return the pair of persons as a case if most pictures of both are alike, else None.

    A single misfiled picture does not make two persons duplicates.
    """
    own, other = (
        slice(*np.searchsorted(gallery.persons, [person, person + 1])) for person in (first, second)
    )
    similarities = gallery.vectors[own] @ gallery.vectors[other].T
    shares = ((similarities.max(axis) >= limit).mean() for axis in (0, 1))
    if min(shares) <= DUPLICATE_SHARE:
        return None
    best = np.unravel_index(similarities.argmax(), similarities.shape)
    both = _pair(gallery, own.start + best[0], other.start + best[1])
    return Case(*both, similarity=as_cosine(similarities[best]))


def _pair(
    gallery: GalleryVectors, first: int, second: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the persons and the pictures at two positions of the gallery arrays."""
    places = [first, second]
    return tuple(gallery.persons[places].tolist()), tuple(gallery.pictures[places].tolist())
