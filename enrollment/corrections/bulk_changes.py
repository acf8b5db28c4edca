"""Changes of many persons at once: each is one transaction, one line of the journal, one undo."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import ngettext

from enrollment import journal
from enrollment.corrections.corrections import Done, erase_person, locked_persons, undoable
from enrollment.corrections.trash import put_away
from enrollment.corrections.trash_items import Kind
from enrollment.enrolling import change_purposes
from enrollment.exceptions import TooManyPersons
from enrollment.models import (
    Consent,
    FaceImage,
    Person,
    Purpose,
    TrashedPart,
    TrashItem,
    as_lines,
    new_item,
    whom_of,
)

MOST_CHANGED: Final = 5_000  # persons in one act
MOST_DELETED: Final = 1_000
MOST_MERGED: Final = 20


def check_number(count: int, most: int) -> None:
    """Raise `TooManyPersons` for more persons than one act takes."""
    if count > most:
        message = ngettext(
            "These are %(count)d person, and at most %(most)d can be done at once. Filter the list, or "
            "tick fewer.",
            "These are %(count)d people, and at most %(most)d can be done at once. Filter the list, or "
            "tick fewer.",
            count,
        )
        raise TooManyPersons(message % {"count": count, "most": most})


def change_persons(keys: Collection[int], **changes: Any) -> Done:
    """Set `legal_basis` or `keep_until` of the persons with these primary keys.

    Tell how many it changed. Raise `ValidationError` for an invalid value, `PersonNotFound` when
    somebody is not there any more, and `TooManyPersons`.
    """
    check_number(len(keys), MOST_CHANGED)
    if unknown := changes.keys() - {"legal_basis", "keep_until"}:
        raise TypeError(f"Nothing sets {', '.join(sorted(unknown))} of many persons.")
    others = {field.name for field in Person._meta.fields} - changes.keys()
    Person(**changes).clean_fields(exclude=others)
    with journal.changes():
        locked = locked_persons(keys).values()
        persons = [each for each in locked if _values(each, changes) != changes]
        if not persons:
            return Done(0, persons=0)
        item = _changed_item(
            persons, {"after": changes}, lambda each: as_lines([each], fields=changes)
        )
        _rows_of(persons).update(**changes, updated_at=timezone.now())
        told = {each.pk: {"before": _values(each, changes), "after": changes} for each in persons}
        facts = undoable({"persons": len(persons)}, item)
        _record(persons, facts, told)
    return Done(0, item, persons=len(persons))


def _values(person: Person, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(person, name) for name in names}


def _rows_of(persons: Iterable[Person]) -> QuerySet[Person]:
    return Person.objects.filter(pk__in=[person.pk for person in persons])


def _record(persons: Sequence[Person], facts: dict[str, Any], told: dict[int, Any]) -> None:
    whom = [("", person) for person in persons]
    journal.record(journal.Action.CHANGED, persons=whom, facts=facts, changes_of=told)


def _changed_item(
    persons: Sequence[Person], facts: dict[str, Any], content: Callable[[Person], str]
) -> TrashItem | None:
    """Store an item that gives these persons back what `content` returns of each."""
    item = new_item(Kind.CHANGE, whom_of(persons), facts=facts)
    if item:
        parts = (
            TrashedPart(item=item, person_pk=person.pk, content=content(person))
            for person in persons
        )
        TrashedPart.objects.bulk_create(parts, batch_size=1000)
    return item


def set_purposes(keys: Collection[int], purposes: Collection[Purpose], *, given: bool) -> Done:
    """Give the purposes to the consents in force of the persons, or take them away.

    Tell how many persons it changed: not those who have no consent in force. Raises the errors of
    `change_persons`.
    """
    check_number(len(keys), MOST_CHANGED)
    with journal.changes():
        locked = locked_persons(keys)
        wanted = [purpose.pk for purpose in purposes]
        changed = change_purposes(keys, wanted, given=given)
        (pairs,) = changed.values()
        theirs = Consent.objects.filter(pk__in={consent for consent, _purpose in pairs})
        owners = sorted(set(theirs.values_list("person", flat=True)))
        persons = [locked[key] for key in owners]
        if not persons:
            return Done(0, persons=0)
        item = _changed_item(persons, {"after": {}, **changed}, lambda _each: "")
        facts = {"persons": len(persons), "purposes": wanted, "given": given}
        _record(persons, undoable(facts, item), {})
    return Done(0, item, persons=len(persons))


def delete_persons(keys: Collection[int]) -> Done:
    """Put the persons with all pictures into the trash as one item; with `TRASH_DAYS=0` erase them.

    Raise `PersonNotFound` when somebody is not there any more, and `TooManyPersons`.
    """
    check_number(len(keys), MOST_DELETED)
    with journal.changes():
        persons = list(locked_persons(keys).values())
        item = new_item(Kind.PERSON, whom_of(persons), persons)
        if item is None:
            return Done(sum(map(erase_person, persons)), persons=len(persons))
        pictures = FaceImage.objects.filter(person__in=keys).order_by("pk")
        facts = journal.pictures(pictures.values_list("pk", flat=True))
        facts = undoable(facts | {"persons": len(persons)}, item)
        whom = [("", person) for person in persons]
        journal.record(journal.Action.DELETED, persons=whom, facts=facts)
        put_away(item, persons, FaceImage.objects.none())
    return Done(item.pictures, item, persons=len(persons))
