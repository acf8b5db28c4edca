"""Corrections: change, merge, delete and erase persons, and move, delete and erase pictures.

Every function is one transaction. It marks embeddings whose person changed as `pending`, so
`reindex` can finish the copy to Milvus after a crash. Persons are locked before their pictures and
in the order of their keys, so two corrections at once wait for each other and never deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.corrections.erasures import marks_of, picture_mark, remember_erased
from enrollment.corrections.trash import (
    erase_trash_of,
    forget_person,
    former_keys,
    keep_merged,
    keep_owners,
    put_away,
)
from enrollment.corrections.trash_items import Kind
from enrollment.enrolling import lead_to, move_waiting
from enrollment.exceptions import PersonExists, PersonNotFound, PictureNotFound
from enrollment.gallery import picture_of
from enrollment.models import (
    Consent,
    FaceEmbedding,
    FaceImage,
    Feedback,
    Person,
    Probe,
    SearchEntry,
    TrashItem,
    id_is_merged,
    lock_rows,
    new_item,
    whom_of,
)

IDS_A_QUERY: Final = 10_000  # SQLite takes 32,766 parameters
# The fields of a person that users edit, in the order of forms and lists.
CHANGEABLE: Final = ("person_id", "name", "notes", "legal_basis", "keep_until")
_TAKEN_OVER: Final = ("name", "legal_basis", "keep_until")  # by whom a merge keeps


@dataclass(frozen=True, slots=True)
class Done:
    """How many pictures and persons an act changed, whose the pictures are since, and what undoes
    it, if anything."""

    pictures: int
    undo: TrashItem | None = None
    person: Person | None = None
    persons: int = 1

    @property
    def owner(self) -> Person:
        """`person` of a move or merge. Raises `ValueError` for a deletion."""
        if self.person is None:
            raise ValueError("What was deleted belongs to nobody.")
        return self.person


def create_person(person_id: str, **details: Any) -> Person:
    """Create a person without pictures; `details` are `CHANGEABLE` fields.

    Raise `ValidationError` for invalid values and `PersonExists` when the id is taken.
    """
    _check_known(details)
    person = Person(person_id=person_id, **details)
    person.clean_fields()
    save_person(person)
    return person


def change_person(person: Person, **changes: Any) -> Person:
    """Change `CHANGEABLE` fields of the person; raises the errors of `create_person`.

    A new id is copied to Milvus after the commit.
    """
    _check_known(changes)
    with journal.changes():
        person = locked_persons([person.pk])[person.pk]
        for name, value in changes.items():
            setattr(person, name, value)
        # Unchanged fields are not validated: an earlier version may have stored other values.
        person.clean_fields(exclude=set(CHANGEABLE) - changes.keys())
        save_person(person)
    return person


def save_person(person: Person) -> None:
    """Save a new or changed person whose fields are validated, and journal what changed.

    Raise `PersonExists` when the id is taken.
    """
    with journal.changes():
        stored = _values_of(person.pk)
        _save(person)
        changed = _changed(person, stored)
        if not stored:
            journal.record(journal.Action.CREATED, person=person, **changed)
        elif changed["after"]:
            journal.record(journal.Action.CHANGED, person=person, **changed)


def _values_of(pk: int | None) -> dict[str, Any]:
    """Return the stored values that users edit; nothing of a person who is not stored yet."""
    stored = Person.objects.filter(pk=pk).values(*CHANGEABLE) if pk else Person.objects.none()
    return dict(stored.first() or {})


def _changed(person: Person, stored: dict[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the stored ones, `before` and `after`, for the journal."""
    values = {name: getattr(person, name) for name in CHANGEABLE}
    after = {
        name: value
        for name, value in values.items()
        if (value != stored[name] if stored else value)
    }
    return {"before": {name: stored[name] for name in after if stored}, "after": after}


def _check_known(details: dict[str, Any]) -> None:
    if unknown := details.keys() - set(CHANGEABLE):
        raise TypeError(f"A person has no {', '.join(sorted(unknown))} to change.")


def _save(person: Person) -> None:
    if taker := person.taker_of_id():
        raise PersonExists(id_is_merged(person.person_id, taker))
    try:
        with transaction.atomic():
            person.save()
    except IntegrityError as error:
        message = gettext(
            "There is already a person with the id '%(person_id)s'. Give another id, or add the "
            "pictures to that person."
        )
        raise PersonExists(message % {"person_id": person.person_id}) from error


def merge_persons(kept: Person, *others: Person) -> Done:
    """Move everything of the others to `kept` and delete them; their ids stand for `kept` since.

    `kept` takes over name, legal basis and last day where it has none. Notes are joined, with the
    ids of the others. All are locked, so nobody can add a picture to the others meanwhile.
    Raise `ValidationError` when `kept` is among the others and `PersonNotFound` when one no longer
    exists.
    """
    keys = [other.pk for other in others]
    if kept.pk in keys:
        raise ValidationError(gettext("A person cannot be merged with themselves."), "same_person")
    with journal.changes():
        locked = locked_persons([kept.pk, *keys])
        kept, gone = locked[kept.pk], [locked[key] for key in dict.fromkeys(keys)]
        stored = _values_of(kept.pk)
        item = new_item(Kind.MERGE, whom_of(gone), gone, taker_pk=kept.pk)
        if item:
            keep_merged(item, gone)
        lock_rows(FaceImage.objects.filter(person__in=gone))  # in one order, whosever they are
        moved = [picture for other in gone for picture in _take_over(kept, other)]
        kept.save(update_fields=[*_TAKEN_OVER, "notes", "updated_at"])
        changed = _changed(kept, stored)
        journal.record(
            journal.Action.MERGED,
            person=kept,
            persons=[(journal.Role.MERGED, other) for other in gone],
            facts=undoable(journal.pictures(moved), item),
            **changed,
        )
        if item is None:
            for other in gone:
                other.delete()
        else:
            item.facts["kept"] = changed
            item.save(update_fields=["facts"])
            Person.objects.filter(pk__in=keys).delete_into_trash()
    return Done(len(moved), item, kept, len(gone))


def _take_over(kept: Person, merged: Person) -> list[int]:
    """Give `kept`, which the caller saves, all that hangs on `merged`; return ids of the pictures."""
    moved = move(FaceImage.objects.filter(person=merged), kept)
    SearchEntry.objects.filter(person=merged).update(person=kept)
    Consent.objects.filter(person=merged).update(person=kept)
    Probe.objects.filter(person=merged).update(person=kept)
    said = Feedback.objects.filter(person=kept).values_list("picture_hash", flat=True)
    Feedback.objects.filter(person=merged, picture_hash__in=list(said)).delete()
    Feedback.objects.filter(person=merged).update(person=kept)
    for detail in _TAKEN_OVER:
        setattr(kept, detail, getattr(kept, detail) or getattr(merged, detail))
    # In no language: whoever reads it later may read another than whoever merges.
    kept.notes = "\n".join(text for text in (kept.notes, f"+ {merged}", merged.notes) if text)
    lead_to(kept, merged)
    gone = merged.pk

    def hand_waiting_over() -> None:
        move_waiting(gone, kept.pk)

    transaction.on_commit(hand_waiting_over, robust=True)
    return moved


def move_pictures(picture_ids: Sequence[int], person: Person) -> Done:
    """Move the pictures to `person`; tell how many belonged to another person before.

    Raise `PersonNotFound` or `PictureNotFound` when a row no longer exists; then nothing is moved.
    """
    with journal.changes():
        return _move_checked(picture_ids, person)


def move_to_new_person(picture_ids: Sequence[int], person_id: str, *, name: str = "") -> Done:
    """Create a person and move the pictures there; raise what both functions raise."""
    with journal.changes():
        person = create_person(person_id, name=name)
        return _move_checked(picture_ids, person, is_new=True)


def _move_checked(picture_ids: Sequence[int], person: Person, is_new: bool = False) -> Done:
    pictures = FaceImage.objects.filter(pk__in=picture_ids)
    locked = locked_persons({person.pk, *pictures.order_by().values_list("person_id", flat=True)})
    if len(lock_rows(pictures.filter(person__in=locked))) < len(set(picture_ids)):
        raise PictureNotFound(
            gettext("Some of these pictures are not there any more. Reload and choose again.")
        )
    moved, item = 0, None
    if pictures.exclude(person=person).exists():
        item = new_item(Kind.MOVE, str(person), taker_pk=person.pk, facts={"is_new": is_new})
    if item:
        keep_owners(item, pictures.exclude(person=person))
    for pk, former in locked.items():
        if pk != person.pk and (ids := move(pictures.filter(person=former), person)):
            journal.record(
                journal.Action.PICTURES_MOVED,
                person=person,
                persons=[(journal.Role.FROM, former)],
                facts=undoable(journal.pictures(ids), item),
            )
            moved += len(ids)
    return Done(moved, item, person)


def undoable(facts: dict[str, Any], item: TrashItem | None) -> dict[str, Any]:
    """Return the facts of a line of the journal with the item of the trash that undoes it."""
    return facts | {"undo": item.pk} if item else facts


def delete_person(person: Person) -> Done:
    """Put the person with all pictures into the trash; with `TRASH_DAYS=0` erase them.

    Stored answers to idempotent requests say that the person was deleted.
    """
    with journal.changes():
        person = locked_persons([person.pk])[person.pk]
        item = new_item(Kind.PERSON, str(person), [person])
        if item is None:
            return Done(erase_person(person))
        facts = journal.pictures(person.face_images.values_list("pk", flat=True))
        journal.record(journal.Action.DELETED, person=person, facts=undoable(facts, item))
        put_away(item, [person], FaceImage.objects.none())
    return Done(item.pictures, item)


def erase_person(person: Person) -> int:
    """Erase the person for good, with all rows, files and vectors; return how many pictures.

    What the trash holds of them goes too, and so do stored answers to idempotent requests, import
    reports that name the person, pictures that wait for a choice of face, and names in the journal.
    """
    with journal.changes():
        person = locked_persons([person.pk])[person.pk]
        pk, keys = person.pk, former_keys(person)
        remember_erased(marks_of(person))
        _total, by_model = person.delete()
        count = by_model.get(FaceImage._meta.label, 0)
        forget_person(pk, person.person_id, count)
        trashed = erase_trash_of(keys, person.person_id)
    return count + trashed


def delete_pictures(person: Person, picture_ids: Sequence[int]) -> Done:
    """Put those of the pictures that still belong to the person into the trash.

    With `TRASH_DAYS=0` erase them.
    """
    return _delete_pictures(person, picture_ids, erase=not settings.TRASH_DAYS)


def erase_pictures(person: Person, picture_ids: Sequence[int]) -> int:
    """Erase those of the pictures that still belong to the person for good; return how many."""
    return _delete_pictures(person, picture_ids, erase=True).pictures


def _delete_pictures(person: Person, picture_ids: Sequence[int], erase: bool) -> Done:
    with journal.changes():
        person = locked_persons([person.pk])[person.pk]
        pictures = person.face_images.filter(pk__in=picture_ids)
        facts = journal.pictures(pictures.values_list("pk", flat=True))
        if not facts["count"]:
            return Done(0)
        item = None if erase else new_item(Kind.PICTURES, str(person))
        facts = undoable(facts, item) | {"erased": erase}
        journal.record(journal.Action.PICTURES_DELETED, person=person, facts=facts)
        if item:
            put_away(item, [], pictures)
        else:
            remember_erased(map(picture_mark, pictures.values_list("image", flat=True)))
            pictures.delete()
    return Done(facts["count"], item)


def move(pictures: QuerySet[FaceImage], person: Person) -> list[int]:
    """Move the pictures and return their ids. The caller has locked their persons."""
    ids = lock_rows(pictures)
    for start in range(0, len(ids), IDS_A_QUERY):
        some = ids[start : start + IDS_A_QUERY]
        FaceImage.objects.filter(pk__in=some).update(person=person)
        Person.objects.filter(cover__in=some).update(cover=None)
        index.request_upsert(FaceEmbedding.objects.filter(face_image__in=some))
    return ids


def set_cover(person: Person, picture_id: int | None) -> None:
    """Choose the picture of the person that lists show; None goes back to the first one.

    Raise `PictureNotFound` when the picture is not the person's.
    """
    with journal.changes():
        person = locked_persons([person.pk])[person.pk]
        person.cover = None if picture_id is None else picture_of(person, picture_id)
        person.save(update_fields=["cover", "updated_at"])
        journal.record(journal.Action.CHANGED, person=person, facts={"cover": picture_id})


def locked_persons(ids: Iterable[int]) -> dict[int, Person]:
    """Lock these persons until the transaction ends; return them by key.

    Raise `PersonNotFound` when one of them no longer exists.
    """
    wanted = set(ids)
    found = Person.objects.select_for_update().filter(pk__in=wanted).order_by("pk")
    persons = {person.pk: person for person in found}
    if len(persons) < len(wanted):
        raise PersonNotFound(
            gettext("This person is not there any more: deleted, or merged with another.")
        )
    return persons
