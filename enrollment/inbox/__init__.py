"""The inbox: what needs a person, and what settles it; and searched faces, kept until then."""

from enrollment.inbox.card import Action, Candidate, Card, Filters, Kind
from enrollment.inbox.sealing import SealBroken, hash_of_face, seal, unseal

__all__ = [
    "Action",
    "Candidate",
    "Card",
    "Filters",
    "Kind",
    "SealBroken",
    "hash_of_face",
    "seal",
    "unseal",
]
