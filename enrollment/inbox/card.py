"""What a card of the inbox says; pages and API show it, `settle` acts on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from enrollment.models import FaceImage, Person, Probe
from recognition.decision import Decision


class Kind(StrEnum):
    """What a card is about."""

    PROBE = "probe"  # a searched face, kept
    DOUBT = "doubt"  # an enrolled picture that is doubted
    PAIR = "pair"  # two persons who look like one
    FILE = "file"  # a face or picture that an import refused


class Action(StrEnum):
    """What settles a card; `Card.actions` says which do."""

    ASSIGN = "assign"  # the face is this person's: enrolled, or the picture moved there
    NEW = "new"  # the face is somebody new's, who is enrolled with it, or given the picture
    DISCARD = "discard"  # of no use: not a face, nobody to be known
    CONFIRM = "confirm"  # all is well: the doubts are dismissed, the two persons are two
    MERGE = "merge"  # the two persons are one; `person` is kept
    DELETE = "delete"  # the doubted picture


@dataclass(frozen=True, slots=True)
class Filters:
    """Which cards are wanted; what is empty does not limit."""

    kind: str = ""
    person: int | None = None  # key: nearest, doubted, or one of the pair
    day: date | None = None  # of the search or of the enrolment, in `TIME_ZONE`
    who: str = ""  # who searched


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who it may be: `picture` is their most similar one, `similarity` the cosine (-1 to 1)."""

    person: Person
    picture: FaceImage | None
    similarity: float
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One thing that needs a person.

    `key` names it (`probe-12`, `doubt-7` by the picture's key, `pair-3-9` by the persons' keys,
    `file-5`); `why` is one sentence in the active language. The face is `probe`'s (`read_face`
    gives the JPEG) or an enrolled `picture`'s; a pair has its two persons as candidates.
    """

    key: str
    kind: Kind
    why: str
    at: datetime
    actions: tuple[Action, ...]
    likeliest: Action | None = None  # for `candidates[0]`, where it needs a person
    candidates: list[Candidate] = field(default_factory=list)  # best first, at most three
    probe: Probe | None = None
    picture: FaceImage | None = None
    person: Person | None = None  # whose the doubted picture is
    who: str = ""  # who searched
    group: int | None = None  # the same for faces that look like one stranger
    size: int = 1  # of the group: acts settle all of it unless told not to
    problem: str = ""  # why the face could not be compared: who it may be is not known then


def is_number(text: str) -> bool:
    """Return whether the text, of a card's key that anybody may have typed, is a number of a row."""
    return text.isdecimal() and len(text) < 19
