"""Items of the trash: make one, find one, and when its time is over."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, time, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Prefetch, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from enrollment.exceptions import NotInTrash
from enrollment.models import Person, TrashedPart, TrashItem

PICTURES_AT_A_TIME: Final = 500  # their rows and vectors are in memory together
Kind = TrashItem.Kind
# Persons of items, without what it takes to restore them: `item.person_ids` reads them.
PERSONS_OF_ITEMS: Final = Prefetch(
    "parts", TrashedPart.objects.exclude(person_id="").defer("content"), to_attr="persons"
)


def new_item(
    kind: str, whom: str | int, persons: Iterable[Person] = (), **values: Any
) -> TrashItem | None:
    """Store an item without parts; return None when `TRASH_DAYS` is 0.

    `whom` is its label, or of how many people it is. It is kept no longer than the first last day
    (`keep_until`) of the persons whom it holds.
    """
    due = erased_at(persons)
    if due is None:
        return None
    if isinstance(whom, int):
        values["facts"] = {**values.get("facts", {}), TrashItem.PEOPLE: whom}
    else:
        values["label"] = whom[:500]
    return TrashItem.objects.create(kind=kind, erase_at=due, **values)


def erased_at(persons: Iterable[Person]) -> datetime | None:
    """Return until when the trash keeps these persons, deleted now; None when it keeps nobody."""
    if not settings.TRASH_DAYS:
        return None
    days = [person.keep_until for person in persons if person.keep_until]
    due = timezone.now() + timedelta(days=settings.TRASH_DAYS)
    # Later ones do not matter, and the day after the last of all, 9999-12-31, is none.
    if days and min(days) < timezone.localdate(due):
        midnight = datetime.combine(min(days) + timedelta(days=1), time.min)
        due = min(due, timezone.make_aware(midnight))
    return due


def whom_of(persons: Sequence[Person]) -> str | int:
    """Return what an item says of whom it is: of several persons their number, which names nobody."""
    return str(persons[0]) if len(persons) == 1 else len(persons)


def begin_import(label: str, *, key: str = "", since: datetime | None = None) -> TrashItem | None:
    """Store an item that undoes an import, for the pictures that get its `import_key`.

    For one that has enrolled pictures already, `key` is what theirs begin with, and `since` when it
    began.
    """
    facts = {"key": key or secrets.token_hex(8)}
    return new_item(Kind.IMPORT, label, facts=facts, created_at=since or timezone.now())


def import_key(item: TrashItem | None) -> str:
    """Return what the upload keys of the imported pictures begin with; empty without an item."""
    return item.facts["key"] if item else ""


def end_import(item: TrashItem | None, pictures: int) -> TrashItem | None:
    """Note how many pictures were enrolled; return the item, or None when there is none to undo."""
    if item and not pictures:
        item.delete()
    elif item:
        item.pictures = pictures
        item.save(update_fields=["pictures"])
        return item
    return None


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
    """Lock an item until the transaction ends, and return it. Raise `NotInTrash`."""
    item = in_trash().select_for_update().filter(pk=pk).first()
    if item is None:
        raise NotInTrash(
            gettext(
                "This cannot be undone any more: it was undone already, or erased when its time was over."
            )
        )
    return item


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
