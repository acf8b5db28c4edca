"""What one must be allowed to settle a card of the inbox, for the pages and the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from django.http import HttpRequest

from enrollment.inbox import Action, Card, Kind
from enrollment.web.acts import Act
from recognition.api.access import may

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
