"""The trash: put persons and pictures in, and erase them when their days are over.

What is put in is deleted from every list and search in the same transaction that keeps it in
`TrashItem`. The picture files stay in the storage until the item is erased.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DatabaseError, models, transaction
from django.db.models import CharField, Q, QuerySet
from django.db.models.functions import Cast
from django.utils.translation import gettext

from enrollment import journal
from enrollment.corrections.erasures import picture_mark, remember_erased, trashed_marks
from enrollment.corrections.trash_items import (
    PICTURES_AT_A_TIME,
    Kind,
    in_parts,
    is_due,
    trashed_person,
)
from enrollment.enrolling import (
    answers_about,
    erase_consents,
    forget_answers_about,
    forget_mentions,
    forget_waiting_for,
    mentions,
    waiting_keys,
)
from enrollment.exceptions import NotInTrash, PersonNotFound
from enrollment.imports import forget_in_imports
from enrollment.models import (
    Doubt,
    FaceEmbedding,
    FaceImage,
    Feedback,
    MergedId,
    Person,
    Probe,
    SearchEntry,
    TrashedPart,
    TrashItem,
    as_lines,
    forget_in_history,
    from_lines,
    lock_rows,
    note_removals,
)
from recognition.exceptions import RecognitionError

Item = TypeVar("Item")


def put_away(item: TrashItem, persons: Sequence[Person], pictures: QuerySet[FaceImage]) -> None:
    """Delete these persons with their pictures, and these pictures, into the item.

    The caller has locked the persons of all of them, in the transaction that made the item.
    """
    keys = [person.pk for person in persons]
    pictures = FaceImage.objects.filter(Q(person__in=keys) | Q(pk__in=pictures.values("pk")))
    ids = list(pictures.order_by("pk").values_list("pk", flat=True))
    TrashedPart.objects.bulk_create(person_part(item, person) for person in persons)
    for some in in_parts(ids):
        TrashedPart.objects.bulk_create(_picture_parts(item, some))
    covered = Person.objects.filter(cover__in=ids).exclude(pk__in=keys)
    item.facts |= {
        "searches": searches_of(keys),
        "covers": list(covered.values_list("pk", "cover")),
    }
    item.pictures = len(ids)
    item.save(update_fields=["facts", "pictures"])
    Person.objects.filter(pk__in=keys).delete_into_trash()
    FaceImage.objects.filter(pk__in=ids).delete_into_trash()
    for person in persons:
        forget_answers_about(person.person_id)


def keep_owners(item: TrashItem, pictures: QuerySet[FaceImage]) -> None:
    """Note in the item whose the pictures are, and whom they resemble, before they are moved."""
    owners = list(pictures.order_by("pk").values_list("pk", "person"))
    TrashedPart.objects.bulk_create(
        TrashedPart(item=item, picture_pk=picture, person_pk=owner) for picture, owner in owners
    )
    covers = Person.objects.filter(cover__in=pictures.values("pk")).values_list("pk", "cover")
    ids = [picture for picture, _owner in owners]
    named = Doubt.with_dismissed.filter(Q(face_image__in=ids) | Q(other__in=ids))
    doubts = named.filter(code__in=Doubt.Resemblance).order_by("pk")
    item.facts |= {"covers": list(covers), "resemblances": as_lines(doubts)}
    item.pictures = len(owners)
    item.save(update_fields=["facts", "pictures"])


def keep_merged(item: TrashItem, persons: Sequence[Person]) -> None:
    """Keep in the item persons who are about to be merged."""
    keep_owners(item, FaceImage.objects.filter(person__in=persons))
    TrashedPart.objects.bulk_create(person_part(item, person) for person in persons)
    theirs = {
        person.pk: {
            "consents": list(person.consents.values_list("pk", flat=True)),
            "feedback": list(person.feedback.values_list("pk", flat=True)),
            "merged_ids": list(person.merged_ids.values_list("former_pk", flat=True)),
            "waiting": waiting_keys(person.pk),
        }
        for person in persons
    }
    del item.facts["covers"]
    item.facts |= {"searches": searches_of(theirs), "of": theirs}


def searches_of(persons: Iterable[int]) -> list[list[Any]]:
    """Return the ids of the log's entries about each person, as [person, [ids]]."""
    entries = defaultdict(list)
    found = SearchEntry.objects.filter(person__in=persons).order_by("pk")
    for person, pk in found.values_list("person", "pk"):
        entries[person].append(pk)
    return [[person, ids] for person, ids in entries.items()]


def person_part(item: TrashItem, person: Person) -> TrashedPart:
    """Return the unsaved part with the person, their merged ids and the answers about them."""
    rows = [person, *person.merged_ids.all(), *answers_about(person.person_id)]
    return TrashedPart(
        item=item, person_pk=person.pk, person_id=person.person_id, content=as_lines(rows)
    )


def _picture_parts(item: TrashItem, ids: Sequence[int]) -> list[TrashedPart]:
    rows: defaultdict[int, list[models.Model]] = defaultdict(list)
    for row in FaceEmbedding.objects.filter(face_image__in=ids).order_by("pk"):
        rows[row.face_image_id].append(row)
    named = Doubt.with_dismissed.filter(Q(face_image__in=ids) | Q(other__in=ids))
    wanted = set(ids)
    for doubt in named.order_by("pk"):
        whose = doubt.face_image_id if doubt.face_image_id in wanted else doubt.other_id
        rows[whose or 0].append(doubt)
    return [
        TrashedPart(
            item=item,
            person_pk=picture.person_id,
            picture_pk=picture.pk,
            file=picture.image.name or "",
            content=as_lines([picture, *rows[picture.pk]]),
        )
        for picture in FaceImage.objects.filter(pk__in=ids).order_by("pk")
    ]


# Erasing


def empty_trash(stopped: Callable[[], bool] = lambda: False) -> int:
    """Erase every item whose time is over; return how many. `stopped` is asked between two."""
    due = TrashItem.objects.filter(is_due()).order_by("pk").values_list("pk", flat=True)
    return erase_each(list(due), erase_item, stopped)


def erase_each(
    items: Iterable[Item], erase: Callable[[Item], object], stopped: Callable[[], bool]
) -> int:
    """Erase one after the other; return how many. `stopped` is asked between two.

    One that fails for a reason of its own does not keep the others from being erased in time; its
    error is raised at the end.
    """
    erased, own_errors = 0, []
    for item in items:
        if stopped():
            break
        try:
            erase(item)
        except (NotInTrash, PersonNotFound):  # another process was faster
            continue
        except (DatabaseError, RecognitionError):  # all others would meet it, too
            raise
        except Exception as error:  # noqa: BLE001 (see above)
            own_errors.append(error)
        else:
            erased += 1
    if own_errors:
        raise own_errors[0]
    return erased


def erase_item(pk: int) -> None:
    """Erase an item for good: rows, files, and everything that names its persons.

    With a deleted person goes all that the trash holds of them. Raise `NotInTrash` when it is gone.
    """
    with journal.changes():
        rows = deleted_rows(item=pk)
        _lock_items(keys_of(rows), pk)
        if not TrashItem.objects.filter(pk=pk).exists():
            raise NotInTrash(gettext("The trash does not hold this any more."))
        _erase_all_of(keys_of(rows))
        _erase(TrashedPart.objects.filter(item=pk))
        Probe.objects.filter(settled_in=pk).delete()
        TrashItem.objects.filter(pk=pk).delete()
        for person in rows:
            if isinstance(person, Person) and not _is_anybodys(person.person_id):
                _forget_labels(person.person_id)


def _is_anybodys(person_id: str) -> bool:
    enrolled = Person.objects.filter(person_id=person_id)
    return enrolled.exists() or deleted_persons(person_id=person_id).exists()


def erase_trashed_person(person_id: str) -> int:
    """Erase a deleted person for good; return how many pictures. Raise `NotInTrash`."""
    trashed_person(person_id)
    return erase_trash_of([], person_id)


def erase_trash_of(persons: Iterable[int], person_id: str = "") -> int:
    """Erase what the trash holds of these persons, by key, and of a deleted one with this id.

    Acts that gave them pictures cannot be undone any more. Return the number of erased pictures.
    """
    if not TrashItem.objects.exists():
        return 0
    with journal.changes():
        count = _erase_all_of({*persons, *keys_of(deleted_rows(person_id=person_id))})
        _forget_labels(person_id)
    return count


def _erase_all_of(keys: set[int]) -> int:
    """Erase what the trash holds of the persons with these keys; return how many pictures."""
    _lock_items(keys)
    theirs, whole = trash_of(keys), TrashItem.objects.filter(taker_pk__in=keys)
    items = list(theirs.order_by().values_list("item", flat=True).distinct())
    count = _erase(theirs)
    theirs.delete()
    Probe.objects.filter(settled_in__in=whole.values("pk")).delete()
    whole.delete()
    TrashItem.objects.filter(pk__in=items, parts=None).delete()
    return count


def _lock_items(keys: Collection[int], *items: int) -> None:
    """Lock these items and all about the persons with these keys, in the order of their own keys."""
    about = Q(taker_pk__in=keys) | Q(pk__in=trash_of(keys).values("item"))
    lock_rows(TrashItem.objects.filter(about | Q(pk__in=items)))


def trash_of(keys: Collection[int]) -> QuerySet[TrashedPart]:
    """Return the parts about the persons with these keys, and of acts that gave them pictures."""
    whole = TrashItem.objects.filter(taker_pk__in=keys)
    return TrashedPart.objects.filter(Q(person_pk__in=keys) | Q(item__in=whole))


@dataclass(slots=True)
class Trashed:
    """What the trash holds of somebody: files and keys of embeddings, and how much of the rest."""

    files: list[str]
    embeddings: list[int]
    vectors: int = 0
    doubts: int = 0
    searches: int = 0


def trashed_of(keys: Collection[int]) -> Trashed:
    """Return what the trash holds of the persons with these keys."""
    parts = trash_of(keys)
    held = Trashed(list(parts.exclude(file="").values_list("file", flat=True)), [])
    with_rows = parts.exclude(picture_pk=None).exclude(content="")
    for part in with_rows.iterator(PICTURES_AT_A_TIME):
        for row in from_lines(part.content):
            if isinstance(row, FaceEmbedding):
                held.embeddings.append(row.pk)
                held.vectors += row.vector is not None
            elif isinstance(row, Doubt):
                held.doubts += row.dismissed_at is None
    # Those of a merge are noted with who was deleted after it, too.
    items = TrashItem.objects.filter(pk__in=parts.values("item")).exclude(kind=Kind.MERGE)
    for facts in items.values_list("facts", flat=True):
        for person, searches in facts.get("searches", ()):
            if person in keys:
                for some in in_parts(searches):
                    held.searches += SearchEntry.objects.filter(pk__in=some).count()
    return held


def deleted_persons(**where: Any) -> QuerySet[TrashedPart]:
    """Return the parts that hold a deleted person, which a merged one is not."""
    return TrashedPart.objects.exclude(person_id="").exclude(item__kind=Kind.MERGE).filter(**where)


def deleted_rows(**where: Any) -> list[models.Model]:
    """Return the rows of deleted persons: themselves, and who was merged into them."""
    return [row for part in deleted_persons(**where) for row in from_lines(part.content)]


def keys_of(rows: Iterable[models.Model]) -> set[int]:
    """Return the keys of the persons among the rows, and of those who were merged into them."""
    persons = {row.pk for row in rows if isinstance(row, Person)}
    return persons | {row.former_pk for row in rows if isinstance(row, MergedId)}


def _forget_labels(person_id: str) -> None:
    """Blank labels that name the person: an imported file may be called by them."""
    labels = TrashItem.objects.filter(label__contains=person_id).exclude(label="")
    named = [pk for pk, label in labels.values_list("pk", "label") if mentions(label, person_id)]
    if person_id and named:
        TrashItem.objects.filter(pk__in=named).update(label="")


def _erase(parts: QuerySet[TrashedPart]) -> int:
    """Record the files of the parts for removal and forget their persons; return how many files.

    A merged person is not forgotten: they live on in who took them over. Who was changed is there.
    """
    files = list(parts.exclude(file="").values_list("file", flat=True))
    note_removals(files=files)
    remember_erased(map(picture_mark, files))
    kept = parts.exclude(content="").exclude(item__kind=Kind.CHANGE)
    forget_in_history(
        {
            FaceImage: _texts(kept.exclude(picture_pk=None), "picture_pk"),
            Person: _texts(kept.filter(picture_pk=None), "person_pk"),
        }
    )
    deleted = kept.exclude(person_id="").exclude(item__kind=Kind.MERGE)
    for part in list(deleted):
        remember_erased(trashed_marks(part.content))
        theirs = parts.filter(person_pk=part.person_pk).exclude(file="")
        forget_person(part.person_pk, part.person_id, theirs.count())
    return len(files)


def _texts(parts: QuerySet[TrashedPart], field: str) -> Any:
    return parts.annotate(text=Cast(field, CharField())).values("text")


def forget_person(pk: int, person_id: str, pictures: int) -> None:
    """Forget what names an erased person apart from their rows, and journal that they are erased.

    These are consents, what was said of matches, kept faces that were nearest to them, stored answers
    to idempotent requests, imports and the journal now, and pictures that wait for a choice of face
    after the commit.
    """

    def forget_files() -> None:  # no partial: when one fails, Django 5.2 drops the hooks after it
        forget_waiting_for(pk)

    ids = {person_id, *journal.former_ids(pk)}
    journal.forget(pk, {"count": pictures})
    erase_consents(pk)
    Feedback.objects.filter(person=pk).delete()
    Probe.objects.filter(person=pk).delete()
    forget_answers_about(*ids)
    forget_mentions(ids)
    forget_in_imports(pk, person_id)
    transaction.on_commit(forget_files, robust=True)


def former_keys(person: Person) -> set[int]:
    """Return the keys of the person and of everybody who was merged into them."""
    merged = MergedId.objects.filter(taker=person)
    return {person.pk, *merged.values_list("former_pk", flat=True)}
