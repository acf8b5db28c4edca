"""Items of the trash: find one, and when its time is over."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Prefetch, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from enrollment.exceptions import NotInTrash
from enrollment.models import FaceImage, Person, TrashedPart, TrashItem, lock_rows, new_item

PICTURES_AT_A_TIME: Final = 500  # their rows and vectors are in memory together
Kind = TrashItem.Kind
# Persons of items, without what it takes to restore them: `item.person_ids` reads them.
PERSONS_OF_ITEMS: Final = Prefetch(
    "parts", TrashedPart.objects.exclude(person_id="").defer("content"), to_attr="persons"
)


def new_settlement(label: str, **values: Any) -> TrashItem | None:
    """Store an item that takes back what was settled in the inbox; return None with `TRASH_DAYS=0`.

    `facts` are keys: the `pictures` enrolled for faces (with `is_new`: of somebody new), dismissed
    `doubts` (of the `doubted` pictures, all `dismissed_at` one time), `pairs` said to be two, and `feedback` remembered with it. Faces name the item
    themselves.
    """
    return new_item(Kind.SETTLED, label, **values)


def in_parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the ids in batches whose rows fit into memory."""
    for start in range(0, len(ids), PICTURES_AT_A_TIME):
        yield ids[start : start + PICTURES_AT_A_TIME]


def held(pk: int) -> TrashItem:
    """Lock an item until the transaction ends, its persons, and its pictures that are in use; return it.

    Raise `NotInTrash`.
    """
    lock_persons_of([pk])
    item = in_trash().select_for_update().filter(pk=pk).first()
    if item is None:
        raise _gone()
    lock_rows(FaceImage.objects.filter(pk__in=item.parts.values("picture_pk")))
    return item


def trash_item(pk: int) -> TrashItem:
    """Return the item, also one whose time is over and that is not erased yet. Raise `NotInTrash`."""
    item = TrashItem.objects.filter(pk=pk).first()
    if item is None:
        raise _gone()
    return item


def _gone() -> NotInTrash:
    return NotInTrash(
        gettext(
            "This cannot be undone any more: it was undone already, or erased when its time was over."
        )
    )


def lock_persons_of(items: Collection[int]) -> None:
    """Lock the persons of the items until the transaction ends.

    Before the items and in the order of their keys, as whoever erases a person does: so that neither ever
    waits for the other.
    """
    takers = TrashItem.objects.filter(pk__in=items).values("taker_pk")
    of_parts = TrashedPart.objects.filter(item__in=items).values("person_pk")
    lock_rows(Person.objects.filter(Q(pk__in=takers) | Q(pk__in=of_parts)))


def in_trash() -> QuerySet[TrashItem]:
    """Return the items whose time is not over, newest first."""
    return TrashItem.objects.exclude(is_due())


def trashed_person(person_id: str) -> TrashItem:
    """Return the newest item that holds a deleted person with this id. Raise `NotInTrash`."""
    item = in_trash().filter(_deleted(person_id)).first()
    if item is None:
        message = gettext("The trash holds nobody with the id '%(person_id)s'.")
        raise NotInTrash(message % {"person_id": person_id})
    return item


def _deleted(person_id: str) -> Q:
    return Q(parts__person_id=person_id) & ~Q(kind=Kind.MERGE)


def is_due() -> Q:
    now = timezone.now()
    # Fewer days, set meanwhile, hold for what is in the trash already.
    return Q(erase_at__lte=now) | Q(created_at__lte=now - timedelta(days=settings.TRASH_DAYS))
