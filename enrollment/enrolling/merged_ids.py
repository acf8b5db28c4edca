"""Ids of merged persons: they stand for who took the person over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from enrollment.exceptions import PersonNotFound
from enrollment.models import FaceImage, MergedId, Person, TrashedPart, TrashItem
from recognition.sentences import gettext


def person_for(person_id: str, details: Mapping[str, Any] | None) -> tuple[Person, bool]:
    """Return the person of the id, or whom it was merged into, or a new one with these details, and
    whether they are new.

    They are locked, so that nobody deletes them before their pictures are stored. Without details
    nobody new is made: raise `PersonNotFound`.
    """
    persons = Person.objects.select_for_update()
    person = persons.filter(person_id=person_id).first()
    if person is None:  # looked up after a merge that held the lock, if any did
        person = persons.filter(merged_ids__person_id=person_id).first()
    if person:
        return person, False
    if details is None:
        raise PersonNotFound(
            gettext("This person is not there any more: deleted, or merged with another.")
        )
    return persons.get_or_create(person_id=person_id, defaults=details)


def takers(person_ids: Iterable[str]) -> dict[str, str]:
    """Return, of these ids, those that were merged, each with the id of whom it stands for."""
    merged = MergedId.objects.filter(person_id__in=set(person_ids))
    return dict(merged.values_list("person_id", "taker__person_id"))


def lead_to(kept: Person, merged: Person) -> None:
    """Let the id of `merged`, and the ids that led to them, stand for `kept`."""
    merged.merged_ids.update(taker=kept)
    MergedId.objects.update_or_create(
        person_id=merged.person_id,
        defaults={
            "taker": kept,
            "former_pk": merged.pk,
            "former_created_at": merged.created_at,
        },
    )


def note_pictures(person_id: str, pictures: Iterable[FaceImage]) -> None:
    """Let an undone merge give back the pictures that came under the merged id since."""
    part = TrashedPart.objects.filter(person_id=person_id, item__kind=TrashItem.Kind.MERGE).last()
    if part:
        TrashedPart.objects.bulk_create(
            TrashedPart(item_id=part.item_id, person_pk=part.person_pk, picture_pk=picture.pk)
            for picture in pictures
        )
