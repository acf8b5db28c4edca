"""Changes to who is enrolled and whose pictures are whose; SQL first, the vectors follow.

Every function is one transaction. Embeddings whose person changed are `pending` from the same commit on,
so that whatever cuts the copying to Milvus off, `reindex` finds what is left to do.
Persons are locked before their pictures and in the order of their keys, so that two corrections at
once wait for each other instead of blocking each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from enrollment import index
from enrollment.enrolling.idempotency import forget_answers_about
from enrollment.enrolling.zip_import import forget_imports_of
from enrollment.exceptions import PersonExists, PersonNotFound, PictureNotFound
from enrollment.gallery import picture_of
from enrollment.models import FaceEmbedding, FaceImage, Person, SearchEntry

IDS_A_QUERY: Final = 10_000  # SQLite takes 32,766 parameters
# What people say of a person, in the order in which forms and lists ask for it.
CHANGEABLE: Final = ("person_id", "name", "notes", "legal_basis", "keep_until")


def create_person(person_id: str, **details: Any) -> Person:
    """A person without pictures, with these of the `CHANGEABLE` details.

    `ValidationError` for what they may not be, `PersonExists` for an id that is taken.
    """
    _check_known(details)
    person = Person(person_id=person_id, **details)
    person.clean_fields()
    _save(person)
    return person


def change_person(person: Person, **changes: Any) -> Person:
    """Gives the person others of the `CHANGEABLE` details; errors as of `create_person`.

    A new id reaches Milvus after the commit.
    """
    _check_known(changes)
    with transaction.atomic():
        person = _locked([person.pk])[person.pk]
        for name, value in changes.items():
            setattr(person, name, value)
        # What is not changed may be as an earlier version took it.
        person.clean_fields(exclude=set(CHANGEABLE) - changes.keys())
        _save(person)
    return person


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
    """Gives `kept` everything of `merged`, who is deleted; returns how many pictures moved.

    Name, legal basis and last day are taken over where `kept` has none; notes are joined, with the id
    that disappears.
    Nobody can add a picture to `merged` meanwhile. Raises `ValidationError` for one person given
    twice, `PersonNotFound` when one of them is gone.
    """
    if kept.pk == merged.pk:
        raise ValidationError(gettext("A person cannot be merged with themselves."), "same_person")
    with transaction.atomic():
        locked = _locked([kept.pk, merged.pk])
        kept, merged = locked[kept.pk], locked[merged.pk]
        moved = _move(FaceImage.objects.filter(person=merged), kept)
        SearchEntry.objects.filter(person=merged).update(person=kept)
        taken_over = ["name", "legal_basis", "keep_until"]
        for detail in taken_over:
            setattr(kept, detail, getattr(kept, detail) or getattr(merged, detail))
        former = gettext("Merged from: %(person)s") % {"person": merged}
        kept.notes = "\n".join(text for text in (kept.notes, former, merged.notes) if text)
        kept.save(update_fields=[*taken_over, "notes", "updated_at"])
        merged.delete()
    return moved


def move_pictures(picture_ids: Sequence[int], person: Person) -> int:
    """Gives pictures that show `person` to them; returns how many were somebody else's before.

    Raises `PersonNotFound` or `PictureNotFound` when something is gone; then nothing moves.
    """
    with transaction.atomic():
        return _move_checked(picture_ids, person)


def move_to_new_person(picture_ids: Sequence[int], person_id: str, *, name: str = "") -> Person:
    """Makes a person and gives them the pictures; errors of `create_person` and `move_pictures`."""
    with transaction.atomic():
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
    return _move(pictures.exclude(person=person), person)


def delete_person(person: Person) -> int:
    """Deletes the person with rows, files and vectors; returns how many pictures went.

    Answers to repetitions and reports of imports that name them go too.
    """
    person_id = person.person_id

    def forget_imports() -> None:  # no partial: when one fails, Django 5.2 drops the hooks after it
        forget_imports_of(person_id)

    with transaction.atomic():
        person = _locked([person.pk])[person.pk]
        _total, by_model = person.delete()
        forget_answers_about(person_id)
        transaction.on_commit(forget_imports, robust=True)
    return by_model.get(FaceImage._meta.label, 0)


def delete_pictures(person: Person, picture_ids: Sequence[int]) -> int:
    """Deletes these pictures, as far as they are still the person's; returns how many went."""
    with transaction.atomic():
        person = _locked([person.pk])[person.pk]
        _total, by_model = person.face_images.filter(pk__in=picture_ids).delete()
    return by_model.get(FaceImage._meta.label, 0)


def _move(pictures: QuerySet[FaceImage], person: Person) -> int:
    """Of pictures whose owners are locked."""
    ids = list(pictures.values_list("pk", flat=True))
    for start in range(0, len(ids), IDS_A_QUERY):
        some = ids[start : start + IDS_A_QUERY]
        FaceImage.objects.filter(pk__in=some).update(person=person)
        Person.objects.filter(cover__in=some).update(cover=None)
        index.request_upsert(FaceEmbedding.objects.filter(face_image__in=some))
    return len(ids)


def set_cover(person: Person, picture_id: int | None) -> None:
    """Has lists show this picture of the person; `PictureNotFound` when it is not theirs.

    None: the first one, as without a choice.
    """
    with transaction.atomic():
        person = _locked([person.pk])[person.pk]
        person.cover = None if picture_id is None else picture_of(person, picture_id)
        person.save(update_fields=["cover", "updated_at"])


def _locked(ids: Iterable[int]) -> dict[int, Person]:
    """These persons, whom nobody else changes until the transaction ends, by key."""
    wanted = set(ids)
    found = Person.objects.select_for_update().filter(pk__in=wanted).order_by("pk")
    persons = {person.pk: person for person in found}
    if len(persons) < len(wanted):
        raise PersonNotFound(
            gettext("This person is not there any more: deleted, or merged with another.")
        )
    return persons
