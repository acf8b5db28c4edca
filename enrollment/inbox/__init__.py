"""The inbox: what needs a person, and what settles it."""

from enrollment.inbox.assignment import create_newcomer, discard_faces, enroll_faces
from enrollment.inbox.card import Action, Candidate, Card, Filters, Kind
from enrollment.inbox.card_contents import card, card_not_found, cards, cards_of, face_of
from enrollment.inbox.sections import count
from enrollment.inbox.settlement import Answer, Settled, settle, settle_each

__all__ = [
    "Action",
    "Answer",
    "Candidate",
    "Card",
    "Filters",
    "Kind",
    "Settled",
    "card",
    "card_not_found",
    "cards",
    "cards_of",
    "count",
    "create_newcomer",
    "discard_faces",
    "enroll_faces",
    "face_of",
    "settle",
    "settle_each",
]
