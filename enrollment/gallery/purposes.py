"""People whose consent allows a purpose, and the exact search among few people."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

import numpy as np
from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from enrollment.models import Consent, FaceEmbedding, Person
from recognition.neighbours import as_cosine
from recognition.vector_store import VectorHit

ROWS_AT_A_TIME: Final = 5_000
DUE_SOON: Final = timedelta(days=30)  # until a person's retention period ends

# In SQL, as every search of an account asks: Django takes 1 ms for the limits that hardly anybody has.
_IS_ANYBODY_LIMITED: Final = (
    "SELECT EXISTS (SELECT 1 FROM enrollment_purpose_groups) "
    "OR EXISTS (SELECT 1 FROM enrollment_accesstoken_purposes)"
)


def is_anybody_limited() -> bool:
    """Return whether some group or token is limited to purposes."""
    with connection.cursor() as cursor:
        cursor.execute(_IS_ANYBODY_LIMITED)
        return bool(cursor.fetchone()[0])


def persons_allowing(purposes: Collection[int]) -> QuerySet[Person]:
    """Return the persons with a consent in force for one of the purposes, given by key."""
    consents = Consent.objects.in_force().filter(purposes__in=purposes, person=OuterRef("pk"))
    return Person.objects.filter(Exists(consents))


def persons_due(within: timedelta = timedelta(0)) -> QuerySet[Person]:
    """Return persons whose `keep_until` has passed, or will have within this time, in `TIME_ZONE`."""
    return Person.objects.filter(keep_until__lt=timezone.localdate() + within)


def persons_expiring(within: timedelta) -> QuerySet[Person]:
    """Return persons whose last day, or the last of whose consents, ends within this time or is over."""
    day = timezone.localdate() + within
    own = Consent.objects.filter(person=OuterRef("pk"))
    ends = Exists(own) & ~Exists(own.filter(Q(expires=None) | Q(expires__gte=day)))
    return Person.objects.filter(Q(keep_until__lt=day) | ends)


def nearest_of(
    rows: QuerySet[FaceEmbedding],
    query: np.ndarray,
    limit: int,
    threshold: float,
    group_by_person: bool,
) -> list[VectorHit]:
    """Return the `limit` rows nearest to the query (512 float32), or persons, best first.

    None is below the threshold (a cosine). It reads every vector of the rows from SQL, a few thousand at a time, and is exact.
    """
    unit = query / max(float(np.linalg.norm(query)), 1e-12)
    best: dict[int, VectorHit] = {}
    columns = rows.filter(vector__isnull=False).order_by("pk")
    found = columns.values_list("pk", "face_image__person_id", "vector").iterator(ROWS_AT_A_TIME)
    part: list[tuple[int, int, bytes]] = []

    def rank() -> None:
        cosines = np.frombuffer(b"".join(vector for _pk, _person, vector in part), "<f4")
        for (pk, person, _vector), cosine in zip(
            part, cosines.reshape(len(part), -1) @ unit, strict=True
        ):
            key, hit = person if group_by_person else pk, VectorHit(pk, as_cosine(cosine))
            if key not in best or best[key].similarity < hit.similarity:
                best[key] = hit
        for key in sorted(best, key=lambda key: -best[key].similarity)[limit:]:
            del best[key]
        part.clear()

    for pk, person, vector in found:
        part.append((pk, person, bytes(vector or b"")))
        if len(part) == ROWS_AT_A_TIME:
            rank()
    if part:
        rank()
    hits = [hit for hit in best.values() if hit.similarity >= threshold]
    return sorted(hits, key=lambda hit: (-hit.similarity, hit.id))
