"""Erase persons from the journal, so that the chain still verifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models.fields.json import KT

from enrollment.journal.chain import Role, add_line, changes, waiting_subjects
from enrollment.models import Action, JournalSubject, Person, TrashedPart, TrashItem


def forget(person_pk: int, facts: Mapping[str, Any] | None = None) -> int:
    """Journal that the person is erased, and blank every name, id and changed value of theirs.

    So it is done with those who were merged into this person. What happened stays, with its numbers,
    and so do the hashes of what was blanked. Return how many lines were blanked.
    """
    erased = with_merged({person_pk})
    with changes():
        add_line(
            Action.ERASED, [JournalSubject(person_pk=pk) for pk in sorted(erased)], facts or {}
        )
        for subject in waiting_subjects():
            if subject.person_pk in erased:
                subject.personal, subject.salt = None, ""
        known = JournalSubject.objects.filter(person_pk__in=erased).exclude(salt="")
        return known.update(personal=None, salt="")


def former_ids(person_pk: int) -> set[str]:
    """Return the ids that the person had, and those who were merged into them had, of which nobody
    else has one by now."""
    known = JournalSubject.objects.filter(person_pk__in=with_merged({person_pk}))
    # As text: without KT SQLite gives the id '123' as a number.
    texts = known.exclude(salt="").values_list(KT("personal__person_id"), flat=True)
    ids = set(texts.distinct()) - {None}
    return ids - set(Person.objects.filter(person_id__in=ids).values_list("person_id", flat=True))


def with_merged(persons: set[int]) -> set[int]:
    """Return these primary keys with those of everybody who was merged into them.

    Those whose merge was undone are persons of their own again, unless they are erased themselves.
    """
    found = set(persons)
    while True:
        merged = JournalSubject.objects.filter(
            role=Role.MERGED,
            entry__action=Action.MERGED,
            entry__subjects__role="",
            entry__subjects__person_pk__in=found,
        ).values_list("person_pk", flat=True)
        more = set(merged) - found
        more -= set(Person.objects.filter(pk__in=more).values_list("pk", flat=True))
        deleted = TrashedPart.objects.filter(person_pk__in=more).exclude(person_id="")
        own = deleted.exclude(item__kind=TrashItem.Kind.MERGE)
        more -= set(own.values_list("person_pk", flat=True))
        if not more:
            return found
        found |= more
