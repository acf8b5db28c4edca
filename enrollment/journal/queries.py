"""Read the journal: filtered lines, and the history of a person."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Prefetch, Q, QuerySet

from enrollment.journal.erasure import with_merged
from enrollment.journal.words import subjects_of
from enrollment.models import Action, JournalEntry, JournalSubject, Person

SUBJECTS_NAMED: Final = 20  # more than `in_words` names, of each role
LOOKS: Final = (Action.SEARCHED, Action.VERIFIED, Action.VIEWED)


def find_lines(
    *,
    person_id: str = "",
    who: str = "",
    action: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[JournalEntry]:
    """Return the lines, newest first, to which everything given applies; their persons are loaded.

    `person_id` is an id that the person has or had; `who` an account, or the name of a token or
    command. `until` itself is not included.
    """
    lines = JournalEntry.objects.prefetch_related("subjects")
    if person_id:
        lines = lines.filter(about(_primary_keys(person_id)))
    if who:
        lines = lines.filter(Q(who=who) | Q(via=who))
    if action:
        lines = lines.filter(action=action)
    if since:
        lines = lines.filter(at__gte=_in_utc(since))
    return lines.filter(at__lt=_in_utc(until)) if until else lines


def _in_utc(moment: datetime) -> datetime:
    """Return the time in UTC; of one that is before or after all that UTC can name, the nearest."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        nearest = datetime.min if moment.year == datetime.min.year else datetime.max
        return nearest.replace(tzinfo=UTC)


def history_of(person: Person, *, with_looks: bool) -> QuerySet[JournalEntry]:
    """Return the lines about the person and those merged into them, newest first.

    Of a line about many persons only the first are loaded, as many as a sentence names.
    """
    first = JournalSubject.objects.order_by("pk")[:SUBJECTS_NAMED]
    named = Prefetch("subjects", first, to_attr="first_subjects")
    lines = JournalEntry.objects.filter(about({person.pk})).prefetch_related(named)
    return lines if with_looks else lines.exclude(action__in=LOOKS)


def _primary_keys(person_id: str) -> set[int]:
    known = set(Person.objects.filter(person_id=person_id).values_list("pk", flat=True))
    # An id of somebody who is deleted, or was renamed since.
    former = JournalSubject.objects.filter(personal__person_id=person_id)
    return known or set(former.values_list("person_pk", flat=True))


def about(persons: Iterable[int]) -> Q:
    """Return a filter for the lines about these persons and those merged into them, by primary key."""
    pks = with_merged(set(persons))
    of_them = JournalSubject.objects.filter(person_pk__in=pks)
    return Q(pk__in=of_them.values("entry"))


def names_of(lines: Iterable[JournalEntry]) -> dict[int, dict[str, Any]]:
    """Return id and name of the persons of these lines who are enrolled, by primary key."""
    pks = {subject.person_pk for line in lines for subject in subjects_of(line)}
    rows = Person.objects.filter(pk__in=pks).values("pk", "person_id", "name")
    return {row.pop("pk"): row for row in rows}
