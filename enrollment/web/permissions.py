"""Actions on the gallery and the permission that each needs, for the API and the pages."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from django.http import HttpRequest

from enrollment.inbox import Action, Card, Kind
from enrollment.models import TrashItem
from recognition.api.access import may


class Act(StrEnum):
    """An action, as the permission that it needs.

    Searching, comparing and embedding need no permission. Actions that also create a person
    (enrolling or moving pictures for a new id) need `ADD_PERSON` in addition.
    """

    BROWSE = "enrollment.view_person"  # persons with their pictures, doubts among them
    ADD_PERSON = "enrollment.add_person"
    CHANGE_PERSON = "enrollment.change_person"  # id, name, legal basis, retention, cover
    DELETE_PERSON = "enrollment.delete_person"  # and merge, restore, erase
    EXPORT_PERSON = "enrollment.export_person"  # all that is kept of them, searches among it
    ADD_PICTURES = "enrollment.add_faceimage"
    CHANGE_PICTURES = "enrollment.change_faceimage"  # move to another person; dismiss doubts
    READ_JOURNAL = "enrollment.view_journalentry"  # who did and saw what
    DELETE_PICTURES = "enrollment.delete_faceimage"


_UNDOING: Final = {
    TrashItem.Kind.PERSON: (Act.DELETE_PERSON,),
    TrashItem.Kind.PICTURES: (Act.DELETE_PICTURES,),
    TrashItem.Kind.MOVE: (Act.CHANGE_PICTURES,),
    TrashItem.Kind.MERGE: (Act.DELETE_PERSON,),
    TrashItem.Kind.CHANGE: (Act.CHANGE_PERSON,),
    TrashItem.Kind.IMPORT: (Act.DELETE_PICTURES, Act.DELETE_PERSON),
}
_OF_FACES: Final[Mapping[str, tuple[Act, ...]]] = {
    Action.ASSIGN: (Act.ADD_PICTURES,),
    Action.NEW: (Act.ADD_PICTURES, Act.ADD_PERSON),
    Action.DISCARD: (Act.ADD_PICTURES,),
}
_NEEDED: Final[Mapping[str, Mapping[str, tuple[Act, ...]]]] = {
    Kind.PROBE: _OF_FACES,
    Kind.FILE: _OF_FACES,
    Kind.DOUBT: {
        Action.CONFIRM: (Act.CHANGE_PICTURES,),
        Action.ASSIGN: (Act.CHANGE_PICTURES,),
        Action.NEW: (Act.CHANGE_PICTURES, Act.ADD_PERSON),
        Action.DELETE: (Act.DELETE_PICTURES,),
    },
    Kind.PAIR: {
        Action.MERGE: (Act.DELETE_PERSON,),
        Action.CONFIRM: (Act.CHANGE_PICTURES,),
    },
}


def acts_to_undo(item: TrashItem) -> tuple[Act, ...]:
    """Return what one must be allowed to undo the item, or to erase it: the act itself."""
    if item.kind == TrashItem.Kind.SETTLED:
        corrects = item.facts.keys() & {"doubts", "pairs"}
        return (Act.CHANGE_PICTURES,) if corrects else (Act.ADD_PICTURES,)
    return _UNDOING[TrashItem.Kind(item.kind)]


def owner_of(request: HttpRequest) -> int:
    """Return the id of the account that owns an upload; 0 when no account is needed."""
    return request.user.pk or 0


def acts_to_settle(key: str, action: str) -> tuple[Act, ...]:
    """Return what one must be allowed to settle the card with this key so, beside browsing.

    Nothing for what does not fit: `settle` refuses it.
    """
    return _NEEDED.get(key.partition("-")[0], {}).get(action, ())


def allowed_actions(request: HttpRequest, card: Card) -> list[Action]:
    """Return the actions of the card that the request may take, in their order."""
    return [
        action
        for action in card.actions
        if all(may(request, act) for act in acts_to_settle(card.key, action))
    ]
