"""Corrections: change, merge and delete persons, and move and delete pictures.

Every function is one transaction. It marks embeddings whose person changed as `pending`, so
`reindex` can finish the copy to Milvus after a crash. Persons are locked before their pictures and
in the order of their keys, so two corrections at once wait for each other and never deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.enrolling.idempotency import forget_answers_about
from enrollment.enrolling.waiting import forget_waiting_for, move_waiting
from enrollment.enrolling.zip_import import forget_imports_of
from enrollment.exceptions import PersonExists, PersonNotFound, PictureNotFound
from enrollment.gallery import picture_of
from enrollment.models import FaceEmbedding, FaceImage, Person, SearchEntry

IDS_A_QUERY: Final = 10_000  # SQLite takes 32,766 parameters
# The fields of a person that users edit, in the order of forms and lists.
CHANGEABLE: Final = ("person_id", "name", "notes", "legal_basis", "keep_until")


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
        person = _locked([person.pk])[person.pk]
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
    try:
        with transaction.atomic():
            person.save()
    except IntegrityError as error:
        message = gettext(
            "There is already a person with the id '%(person_id)s'. Give another id, or add the "
            "pictures to that person."
        )
        raise PersonExists(message % {"person_id": person.person_id}) from error


def merge_persons(kept: Person, merged: Person) -> int:
    """Move everything of `merged` to `kept` and delete `merged`; return how many pictures moved.

    `kept` takes over name, legal basis and last day where it has none. Notes are joined, with the
    id of `merged`. Both persons are locked, so nobody can add a picture to `merged` meanwhile.
    Raise `ValidationError` when both are one person and `PersonNotFound` when one no longer exists.
    """
    if kept.pk == merged.pk:
        raise ValidationError(gettext("A person cannot be merged with themselves."), "same_person")
    with journal.changes():
        locked = _locked([kept.pk, merged.pk])
        kept, merged = locked[kept.pk], locked[merged.pk]
        stored = _values_of(kept.pk)
        moved = _move(FaceImage.objects.filter(person=merged), kept)
        SearchEntry.objects.filter(person=merged).update(person=kept)
        taken_over = ["name", "legal_basis", "keep_until"]
        for detail in taken_over:
            setattr(kept, detail, getattr(kept, detail) or getattr(merged, detail))
        former = gettext("Merged from: %(person)s") % {"person": merged}
        kept.notes = "\n".join(text for text in (kept.notes, former, merged.notes) if text)
        kept.save(update_fields=[*taken_over, "notes", "updated_at"])
        gone = merged.pk
        journal.record(
            journal.Action.MERGED,
            person=kept,
            persons=[(journal.Role.MERGED, merged)],
            facts=journal.pictures(moved),
            **_changed(kept, stored),
        )

        def hand_waiting_over() -> None:
            move_waiting(gone, kept.pk)

        transaction.on_commit(hand_waiting_over, robust=True)
        merged.delete()
    return len(moved)


def move_pictures(picture_ids: Sequence[int], person: Person) -> int:
    """Move the pictures to `person`; return how many belonged to another person before.

    Raise `PersonNotFound` or `PictureNotFound` when a row no longer exists; then nothing is moved.
    """
    with journal.changes():
        return _move_checked(picture_ids, person)


def move_to_new_person(picture_ids: Sequence[int], person_id: str, *, name: str = "") -> Person:
    """Create a person and move the pictures there; raise what both functions raise."""
    with journal.changes():
        person = create_person(person_id, name=name)
        _move_checked(picture_ids, person)
    return person


def _move_checked(picture_ids: Sequence[int], person: Person) -> int:
    pictures = FaceImage.objects.filter(pk__in=picture_ids)
    locked = _locked({person.pk, *pictures.order_by().values_list("person_id", flat=True)})
    if pictures.filter(person__in=locked).count() < len(set(picture_ids)):
        raise PictureNotFound(
            gettext("Some of these pictures are not there any more. Reload and choose again.")
        )
    moved = 0
    for pk, former in locked.items():
        if pk != person.pk and (ids := _move(pictures.filter(person=former), person)):
            journal.record(
                journal.Action.PICTURES_MOVED,
                person=person,
                persons=[(journal.Role.FROM, former)],
                facts=journal.pictures(ids),
            )
            moved += len(ids)
    return moved


def delete_person(person: Person) -> int:
    """Delete the person with all rows, files and vectors; return the number of deleted pictures.

    Stored answers to idempotent requests, import reports that name the person, and pictures that wait for
    a choice of face are deleted too.
    """
    pk, person_id = person.pk, person.person_id

    def forget_imports() -> None:  # no partial: when one fails, Django 5.2 drops the hooks after it
        forget_waiting_for(pk)
        forget_imports_of(person_id)

    with journal.changes():
        person = _locked([pk])[pk]
        _total, by_model = person.delete()
        count = by_model.get(FaceImage._meta.label, 0)
        journal.forget(pk, {"count": count})
        forget_answers_about(person_id)
        transaction.on_commit(forget_imports, robust=True)
    return count


def delete_pictures(person: Person, picture_ids: Sequence[int]) -> int:
    """Delete those of the pictures that still belong to the person; return how many."""
    with journal.changes():
        person = _locked([person.pk])[person.pk]
        pictures = person.face_images.filter(pk__in=picture_ids)
        facts = journal.pictures(pictures.values_list("pk", flat=True))
        _total, by_model = pictures.delete()
        if facts["count"]:
            journal.record(journal.Action.PICTURES_DELETED, person=person, facts=facts)
    return by_model.get(FaceImage._meta.label, 0)


def _move(pictures: QuerySet[FaceImage], person: Person) -> list[int]:
    """Move the pictures and return their ids. The caller has locked their persons."""
    ids = list(pictures.values_list("pk", flat=True))
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
        person = _locked([person.pk])[person.pk]
        person.cover = None if picture_id is None else picture_of(person, picture_id)
        person.save(update_fields=["cover", "updated_at"])
        journal.record(journal.Action.CHANGED, person=person, facts={"cover": picture_id})


def _locked(ids: Iterable[int]) -> dict[int, Person]:
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
