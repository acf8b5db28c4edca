"""Restore what the trash holds: the same rows with the same keys, and their vectors.

No network runs: the vectors are in the trash, and are only copied to Milvus again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.db import IntegrityError, models
from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.corrections.trash_items import PICTURES_AT_A_TIME, held, in_parts
from enrollment.enrolling import clean_person_id
from enrollment.exceptions import NotUndoable, PersonExists
from enrollment.models import (
    Doubt,
    FaceEmbedding,
    FaceImage,
    IdempotentRequest,
    MergedId,
    Person,
    SearchEntry,
    TrashedPart,
    TrashItem,
    from_lines,
    judge_again,
)

# What a part of the trash can hold.
RESTORABLE: Final = (Person, MergedId, IdempotentRequest, FaceImage, FaceEmbedding, Doubt)


@dataclass(slots=True)
class Restored:
    """The persons who are there again, or whose pictures are, and how many pictures came back."""

    persons: list[Person]
    pictures: list[int] = field(default_factory=list)


def restore(item: TrashItem, *, person_id: str | None = None) -> Restored:
    """Restore a deleted person, or deleted pictures, whole; the item is gone then.

    `person_id` is another id for the person. Raise `NotInTrash` when the item is gone,
    `PersonExists` when somebody else has the id by now, and `NotUndoable` when whom the pictures
    belonged to is not there.
    """
    try:
        with journal.changes():
            item = held(item.pk)
            return _restore(item, person_id)
    except IntegrityError as error:
        raise NotUndoable(
            gettext(
                "This cannot be restored now: something that it refers to was just deleted. Try again; if "
                "that changes nothing, others have its keys since a backup was restored."
            )
        ) from error


def _restore(item: TrashItem, person_id: str | None) -> Restored:
    deleted = item.parts.filter(picture_pk=None).order_by("pk")
    if person_id is not None and deleted.count() > 1:
        raise NotUndoable(several_persons())
    persons = [restore_person(part, person_id) for part in deleted]
    pictures = item.parts.exclude(picture_pk=None).order_by("pk")
    owners = present_owners(pictures.order_by().values_list("person_pk", flat=True).distinct())
    restored = Restored(persons or [*owners.values()])
    doubts: dict[int, Doubt] = {}
    for some in index.batches(pictures.iterator(PICTURES_AT_A_TIME), PICTURES_AT_A_TIME):
        restored.pictures += _restore_pictures(some, owners, doubts)
    _restore_doubts(doubts)
    relink(item)
    facts = journal.pictures(restored.pictures)
    whose = [("", person) for person in restored.persons]
    journal.record(journal.Action.RESTORED, persons=whose, facts=facts)
    item.delete()
    # Compared with the gallery without these pictures: the server compares them again.
    judge_again(FaceImage.objects.filter(created_at__gte=item.created_at))
    for ids in in_parts(restored.pictures):
        make_searchable(ids)
    return restored


def several_persons() -> str:
    """Return the message that nobody of several persons can come back under another id."""
    return gettext("This restores several people. Restore them with their own ids.")


def restore_person(part: TrashedPart, person_id: str | None = None) -> Person:
    """Restore the person of the part with their merged ids. Raise `PersonExists`.

    A merged id that somebody has by now gets the former key behind it, as it stays with who has it.
    """
    rows = _by_class(from_lines(part.content))
    person: Person = rows[Person][0]
    if person_id is not None:
        person.person_id = clean_person_id(person_id)
        person.compute()
    taken = Person.objects.filter(person_id=person.person_id).exists()
    if taken or MergedId.objects.filter(person_id=person.person_id).exists():
        message = gettext(
            "Somebody else has the id '%(person_id)s' by now. Give another id for the person from the "
            "trash."
        )
        raise PersonExists(message % {"person_id": person.person_id})
    if person.cover_id and not _is_coming(part.item, person.cover_id):
        person.cover_id = None
    person.save_base(raw=True, force_insert=True)  # with the times that it had
    for merged in rows[MergedId]:
        if Person.objects.filter(pk=merged.former_pk).exists():  # taken out of the merge meanwhile
            continue
        if Person.objects.filter(person_id=merged.person_id).exists():  # it cannot stand for two
            merged.person_id = f"{merged.person_id[:180]} #{merged.former_pk}"
        MergedId.objects.get_or_create(
            person_id=merged.person_id,
            defaults={
                "taker": person,
                "former_pk": merged.former_pk,
                "former_created_at": merged.former_created_at,
                "created_at": merged.created_at,
            },
        )
    if person_id is None:
        for row in rows[IdempotentRequest]:
            waiting = IdempotentRequest.objects.filter(pk=row.pk, owner=row.owner, key=row.key)
            waiting.update(status=row.status, answer=row.answer)
    return person


def _is_coming(item: TrashItem, picture: int) -> bool:
    """Return whether the picture is there, or comes back with the item."""
    trashed = item.parts.filter(picture_pk=picture).exclude(content="")
    return trashed.exists() or FaceImage.objects.filter(pk=picture).exists()


def present_owners(keys: Iterable[int]) -> dict[int, Person]:
    """Lock the persons with these keys, or whom they were merged into; return them by key.

    Raise `NotUndoable` when one of them is not there.
    """
    wanted = set(keys)
    merged = dict(MergedId.objects.filter(former_pk__in=wanted).values_list("former_pk", "taker"))
    persons = Person.objects.select_for_update().filter(pk__in={*wanted, *merged.values()})
    there = {person.pk: person for person in persons.order_by("pk")}
    owners = {key: there.get(key) or there.get(merged.get(key, 0)) for key in wanted}
    for key, owner in owners.items():
        if owner is None:
            raise NotUndoable(_owner_missing(key))
    return {key: owner for key, owner in owners.items() if owner}


def _owner_missing(key: int) -> str:
    part = TrashedPart.objects.filter(person_pk=key).exclude(person_id="").first()
    if part is None:
        return gettext("Whom the pictures belonged to is not there any more, and not in the trash.")
    message = gettext("%(person_id)s is in the trash, too. Restore them first, then this.")
    return message % {"person_id": part.person_id}


def _restore_pictures(
    parts: Sequence[TrashedPart], owners: Mapping[int, Person], doubts: dict[int, Doubt]
) -> list[int]:
    """Restore the pictures with their embeddings, and collect their doubts; return their ids."""
    rows = _by_class(row for part in parts for row in from_lines(part.content))
    pictures: list[FaceImage] = rows[FaceImage]
    keys = [picture.upload_key for picture in pictures if picture.upload_key]
    taken = set(FaceImage.objects.filter(upload_key__in=keys).values_list("upload_key", flat=True))
    for picture in pictures:
        picture.person = owners[picture.person_id]
        if picture.upload_key in taken:
            picture.upload_key = None
    FaceImage.objects.bulk_create(pictures)
    embeddings: list[FaceEmbedding] = rows[FaceEmbedding]
    made_at = [row.created_at for row in embeddings]
    for row in embeddings:
        row.status = FaceEmbedding.Status.PENDING
    FaceEmbedding.objects.bulk_create(embeddings)  # which sets the time anew
    for row, time in zip(embeddings, made_at, strict=True):
        row.created_at = time
    FaceEmbedding.objects.bulk_update(embeddings, ["created_at"])
    doubts.update((doubt.pk, doubt) for doubt in rows[Doubt])
    return [picture.pk for picture in pictures]


def _restore_doubts(doubts: Mapping[int, Doubt]) -> None:
    """Restore the doubts whose pictures are both there."""
    named = {doubt.face_image_id for doubt in doubts.values()}
    named |= {doubt.other_id for doubt in doubts.values() if doubt.other_id}
    there: set[int | None] = {None}
    for ids in in_parts(sorted(named)):
        there.update(FaceImage.objects.filter(pk__in=ids).values_list("pk", flat=True))
    Doubt.objects.bulk_create(
        doubt for doubt in doubts.values() if {doubt.face_image_id, doubt.other_id} <= there
    )


def restore_resemblances(item: TrashItem) -> None:
    """Restore the doubts that a move or merge settled: of pictures that had come to one person."""
    rows = [row for row in from_lines(item.facts.get("resemblances", "")) if isinstance(row, Doubt)]
    pictures = {row.face_image_id for row in rows}
    there = list(Doubt.with_dismissed.filter(face_image__in=pictures))
    _restore_doubts(
        {
            row.pk: row
            for row in rows
            if not any(
                each.face_image_id == row.face_image_id and each.has_evidence_of(row)
                for each in there
            )
        }
    )


def relink(item: TrashItem) -> None:
    """Give persons who are there again the log's entries about them, and covers that are."""
    for person, entries in item.facts.get("searches", ()):
        if Person.objects.filter(pk=person).exists():
            for ids in in_parts(entries):
                SearchEntry.objects.filter(pk__in=ids).update(person=person)
    for person, picture in item.facts.get("covers", ()):
        if FaceImage.objects.filter(pk=picture, person=person).exists():
            Person.objects.filter(pk=person, cover=None).update(cover=picture)


def make_searchable(ids: Sequence[int]) -> None:
    """Copy the vectors of these pictures to Milvus after the commit.

    Only what the weights in use have not computed yet is computed.
    """
    index.complete_rows(list(FaceImage.objects.filter(pk__in=ids)))
    rows = FaceEmbedding.objects.filter(face_image__in=ids)
    index.request_upsert(rows, same_persons=True)


def _by_class(rows: Iterable[models.Model]) -> defaultdict[type[models.Model], list[Any]]:
    by_class: defaultdict[type[models.Model], list[Any]] = defaultdict(list)
    for row in rows:
        by_class[type(row)].append(row)
    return by_class


def highest_keys() -> dict[type[models.Model], int]:
    """Return the highest key of each model whose rows the trash holds: new rows must stay above."""
    highest: dict[type[models.Model], int] = {}
    contents = TrashedPart.objects.exclude(content="").values_list("content", flat=True)
    for content in contents.iterator(PICTURES_AT_A_TIME):
        for line in filter(None, content.split("\n")):
            row = json.loads(line)
            model = apps.get_model(row["model"])
            highest[model] = max(highest.get(model, 0), row["pk"])
    return highest
