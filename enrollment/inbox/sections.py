"""What waits in the inbox, in the order of use: what settles most comes first.

Every section is a query by which a page reads a few keys; none grows with the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from django.core.cache import cache
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from enrollment.inbox.card import Filters, Kind, is_number
from enrollment.judging import Kind as Found
from enrollment.models import (
    DistinctPair,
    Doubt,
    Examination,
    FaceImage,
    Person,
    Probe,
    ProbeChannel,
)
from recognition.decision import Decision

MOST_COUNTED: Final = 1_000  # cards; more are told as so many and more
COUNTED_AGAIN: Final = 10  # seconds until the cards are counted again
COUNT: Final = "inbox-count"  # in the cache

Keys = set[str]  # keys of cards to leave out
_RESEMBLANCES: Final = Doubt.Resemblance.values


def _waiting(filters: Filters) -> QuerySet[Probe]:
    probes = Probe.objects.waiting()
    if filters.person:
        probes = probes.filter(person=filters.person)
    if filters.day:
        probes = probes.filter(created_at__date=filters.day)
    return probes.filter(username=filters.who) if filters.who else probes


def _searched(filters: Filters) -> QuerySet[Probe]:
    return _waiting(filters).exclude(channel=ProbeChannel.IMPORT)


def _strangers(filters: Filters, left_out: Keys) -> Any:
    """Return the groups of unknown faces, with their `size` and the key of the `newest` one."""
    unknown = _searched(filters).filter(decision=Decision.UNKNOWN, group__isnull=False)
    groups = unknown.order_by().values("group").annotate(size=Count("pk"), newest=Max("pk"))
    return groups.exclude(newest__in=_numbers("probe", left_out)).values_list("newest", flat=True)


def _strangers_who_came_often(filters: Filters, left_out: Keys) -> Any:
    return _strangers(filters, left_out).filter(size__gt=1).order_by("-size", "-newest")


def _to_review(filters: Filters, left_out: Keys) -> Any:
    probes = _searched(filters).filter(decision=Decision.REVIEW)
    return _keys(probes.exclude(pk__in=_numbers("probe", left_out)))


def _other_strangers(filters: Filters, left_out: Keys) -> Any:
    return _strangers(filters, left_out).filter(size=1).order_by("-newest")


def _refused(filters: Filters, left_out: Keys) -> Any:
    probes = _waiting(filters).filter(channel=ProbeChannel.IMPORT, decision="")
    return _keys(probes.exclude(pk__in=_numbers("file", left_out)))


def _keys(probes: QuerySet[Probe]) -> QuerySet[Any]:
    return probes.order_by("-pk").values_list("pk", flat=True)


def _whom_it_shows(filters: Filters, left_out: Keys) -> Any:
    return _doubted(filters, left_out, Doubt.objects.filter(code__in=_RESEMBLANCES))


def _how_good_it_is(filters: Filters, left_out: Keys) -> Any:
    same = Doubt.objects.filter(face_image=OuterRef("face_image"), code__in=_RESEMBLANCES)
    return _doubted(
        filters, left_out, Doubt.objects.exclude(code__in=_RESEMBLANCES).filter(~Exists(same))
    )


def _doubted(filters: Filters, left_out: Keys, doubts: QuerySet[Doubt]) -> Any:
    """Return the keys of the pictures with these doubts, newest first."""
    if filters.who:
        return []
    if filters.person:
        own, other = Q(face_image__person=filters.person), Q(other__person=filters.person)
        doubts = doubts.filter(own | other)
    if filters.day:
        doubts = doubts.filter(face_image__created_at__date=filters.day)
    doubts = doubts.exclude(face_image__in=_numbers("doubt", left_out))
    return doubts.order_by("-face_image").values_list("face_image", flat=True).distinct()


def _nearer_to_another(filters: Filters, left_out: Keys) -> list[int]:
    left_out_pictures = _numbers("doubt", left_out)
    return [
        picture
        for picture, (_case, day, persons) in nearer_cases().items()
        if picture not in left_out_pictures
        and not filters.who
        and (not filters.day or filters.day == day)
        and (not filters.person or filters.person in persons)
    ]


def _pairs(filters: Filters, left_out: Keys) -> list[str]:
    if filters.who or filters.day:
        return []
    return [
        key
        for key, (pair, _case) in pair_cases().items()
        if f"pair-{key}" not in left_out and (not filters.person or filters.person in pair)
    ]


Section = tuple[str, Kind, Callable[[Filters, Keys], Any]]
# The beginning of a card's key, its kind, and what reads the rest of it.
SECTIONS: Final[Sequence[Section]] = (
    ("probe", Kind.PROBE, _strangers_who_came_often),
    ("probe", Kind.PROBE, _to_review),
    ("doubt", Kind.DOUBT, _whom_it_shows),
    ("doubt", Kind.DOUBT, _nearer_to_another),
    ("pair", Kind.PAIR, _pairs),
    ("probe", Kind.PROBE, _other_strangers),
    ("doubt", Kind.DOUBT, _how_good_it_is),
    ("file", Kind.FILE, _refused),
)


def keys(filters: Filters, left_out: Collection[str], offset: int, limit: int) -> list[str]:
    """Return the keys of the cards from `offset` on, at most `limit`."""
    found: list[str] = []
    for name, kind, section in SECTIONS:
        if filters.kind not in ("", kind):
            continue
        rows = section(filters, set(left_out))
        some = list(rows[offset : offset + limit - len(found)])
        found += [f"{name}-{key}" for key in some]
        if len(found) == limit:
            break
        offset = 0 if some else max(offset - len(rows[:offset]), 0)
    return found


def count(filters: Filters | None = None) -> int:
    """Return how many cards wait, at most `MOST_COUNTED`; without filters, seconds old."""
    if filters is None and (known := cache.get(COUNT)) is not None:
        return int(known)
    total = 0
    for _name, kind, section in SECTIONS:
        if filters is None or filters.kind in ("", kind):
            rows = section(filters or Filters(), set())
            total += len(rows[: MOST_COUNTED - total])
        if total == MOST_COUNTED:
            break
    if filters is None:
        cache.set(COUNT, total, COUNTED_AGAIN)
    return total


def _numbers(kind: str, left_out: Keys) -> set[int]:
    """Return the numbers of the keys of this kind."""
    parts = (key.partition("-") for key in left_out)
    return {int(number) for name, _dash, number in parts if name == kind and is_number(number)}


# What the last audit found


def _cases(kind: Found) -> list[dict[str, Any]]:
    last = Examination.objects.order_by("-pk").values_list("pk", "created_at").first()
    return list(_findings(*last).get(kind.value, {}).get("cases", ())) if last else []


@lru_cache(maxsize=1)
def _findings(pk: int, _created_at: datetime) -> dict[str, Any]:
    """Return what an audit found: up to a megabyte of JSON, which never changes."""
    found = Examination.objects.filter(pk=pk).values_list("findings", flat=True)
    return found.first() or {}


def pair_cases() -> dict[str, tuple[tuple[int, int], dict[str, Any]]]:
    """Return the pairs of persons that look like one, by key, without those said to be two."""
    cases = _cases(Found.NEAR_DUPLICATES)
    if not cases:
        return {}
    named = {person for case in cases for person in case["persons"]}
    there = set(Person.objects.filter(pk__in=named).values_list("pk", flat=True))
    apart = set(
        DistinctPair.objects.filter(first__in=named, second__in=named).values_list(
            "first", "second"
        )
    )
    found = {}
    for case in cases:
        first, second = sorted(case["persons"])
        if {first, second} <= there and (first, second) not in apart:
            found[f"{first}-{second}"] = ((first, second), case)
    return found


def nearer_cases() -> dict[int, tuple[dict[str, Any], Any, set[int]]]:
    """Return the pictures nearer to somebody else, by key: the case, the picture's day, both persons.

    Left out is what changed since, and what is or was doubted for the same reason.
    """
    cases = {case["pictures"][0]: case for case in _cases(Found.NEARER_TO_ANOTHER)}
    if not cases:
        return {}
    named = {picture for case in cases.values() for picture in case["pictures"]}
    rows = FaceImage.objects.filter(pk__in=named).values_list("pk", "person_id", "created_at")
    there = {pk: (person, at) for pk, person, at in rows}
    doubted = Doubt.with_dismissed.filter(
        face_image__in=cases, code=Doubt.Resemblance.LOOKS_LIKE_SOMEONE_ELSE
    )
    known = set(doubted.values_list("face_image", "other__person"))
    resembled = set(
        Doubt.objects.filter(face_image__in=cases, code__in=_RESEMBLANCES).values_list(
            "face_image", flat=True
        )
    )
    found = {}
    for picture, case in cases.items():
        now = [there[pk][0] for pk in case["pictures"] if pk in there]
        if now == case["persons"] and picture not in resembled and (picture, now[1]) not in known:
            found[picture] = (case, timezone.localdate(there[picture][1]), set(now))
    return found
