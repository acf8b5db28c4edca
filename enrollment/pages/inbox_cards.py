"""Cards of the inbox as its page shows them: the answers that the user may give, each with a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from enrollment.gallery import jpeg_uri
from enrollment.inbox import Action, Candidate, Card, Kind
from enrollment.models import Probe
from enrollment.probes import read_face
from enrollment.web import allowed_actions, picture_address
from recognition.exceptions import RecognitionError

OTHERS_SHOWN: Final = 5  # faces of a group beside the first
OF_PERSONS: Final = frozenset({Action.ASSIGN, Action.MERGE})  # need a person

KINDS: Final = {
    Kind.PROBE: _("Searched face"),
    Kind.DOUBT: _("Doubtful picture"),
    Kind.PAIR: _("Two people"),
    Kind.FILE: _("Refused at an import"),
}
# The buttons without a person: the key, and what they say.
_PLAIN: Final = {
    Action.CONFIRM: ("c", _("It is right as it is")),
    Action.DISCARD: ("x", _("Of no use")),
    Action.DELETE: ("x", _("Delete the picture")),
}
_OF_PAIR: Final = {Action.CONFIRM: ("c", _("They are two people"))}


@dataclass(frozen=True, slots=True)
class Answer:
    """A button of a card: what the form sends, its key, what it says."""

    act: str
    key: str
    says: str | Promise
    is_likeliest: bool


@dataclass(frozen=True, slots=True)
class Choice(Answer):
    """A person to choose, with the address of their most similar face."""

    candidate: Candidate
    face: str


@dataclass(frozen=True, slots=True)
class ShownCard:
    """A card with what this user may answer; addresses of faces, empty where there is none."""

    card: Card
    title: str | Promise
    face: str
    choices: list[Choice]
    answers: list[Answer]
    may_assign: bool  # to whom has an id that is typed
    may_create: bool
    others: list[str] = field(default_factory=list)  # further faces of the group


def shown_cards(request: HttpRequest, cards: Iterable[Card]) -> list[ShownCard]:
    """Return the cards with faces and buttons."""
    return [_shown(request, card) for card in cards]


def _shown(request: HttpRequest, card: Card) -> ShownCard:
    actions = allowed_actions(request, card)
    return ShownCard(
        card,
        KINDS[card.kind],
        _face(request, card),
        _choices(request, card, actions),
        _answers(card, actions),
        Action.ASSIGN in actions,
        Action.NEW in actions,
        _others(card) if card.size > 1 else [],
    )


def _face(request: HttpRequest, card: Card) -> str:
    if card.picture:
        return picture_address(request, card.picture, "face")
    return _uri(card.probe) if card.probe else ""


def _uri(probe: Probe) -> str:
    """Return the face as a `data:` URI, which no cache of a browser keeps; empty if it is gone."""
    try:
        return jpeg_uri(read_face(probe))
    except RecognitionError:
        return ""


def _others(card: Card) -> list[str]:
    group = Probe.objects.waiting().filter(group=card.group)
    others = group.exclude(pk=card.probe.pk) if card.probe else group
    return [_uri(probe) for probe in others[:OTHERS_SHOWN]]


def _choices(request: HttpRequest, card: Card, actions: list[Action]) -> list[Choice]:
    action = Action.MERGE if card.kind == Kind.PAIR else Action.ASSIGN
    if action not in actions:
        return []
    says = _("Merge, keep") if action == Action.MERGE else _("It is")
    return [
        Choice(
            f"{action}:{each.person.pk}",
            str(number),
            says,
            card.likeliest == action and number == 1,
            each,
            picture_address(request, each.picture, "face") if each.picture else "",
        )
        for number, each in enumerate(card.candidates, 1)
    ]


def _answers(card: Card, actions: list[Action]) -> list[Answer]:
    plain = _PLAIN | (_OF_PAIR if card.kind == Kind.PAIR else {})
    return [
        Answer(action, *plain[action], card.likeliest == action)
        for action in actions
        if action in plain
    ]
