"""What operators say of matches: remembered when the same picture is searched again, it teaches the
thresholds of this gallery."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.models import QuerySet

from enrollment import journal
from enrollment.gallery import SearchHit, Weights, search_gallery
from enrollment.installation_key import KeyRefused
from enrollment.models import FaceImage, Feedback, Person, Probe
from enrollment.probes.encryption import hash_of_face
from recognition.embedding import Crop
from recognition.inference import Embeddings

logger = logging.getLogger(__name__)

Verdict = Feedback.Verdict
WITHDRAWN: Final = "withdrawn"  # instead of a verdict: nothing is remembered any more
Said = Mapping[int, Feedback]  # by the person's key
_SAID_ANEW: Final = (
    "created_at",
    "username",
    "face_image",
    "model",
    "fingerprint",
    "similarity",
    "decision",
    "verdict",
    "source",
)


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says of a match: whether the searched face is the person's.

    `similarity` is the cosine to `face_image`, the person's most similar picture, and `decision`
    what was shown for it; `weights` made the vectors, if not those of the probe.
    """

    probe: Probe
    person: Person
    verdict: str
    similarity: float
    face_image: FaceImage | None = None
    decision: str | None = None
    weights: Weights | None = None

    def as_row(self, username: str) -> Feedback:
        """Return the unsaved row that remembers it."""
        model, fingerprint = self.weights or (self.probe.model, self.probe.fingerprint)
        return Feedback(
            username=username,
            person=self.person,
            face_image=self.face_image,
            model=model,
            fingerprint=fingerprint,
            similarity=self.similarity,
            decision=self.decision or "",
            verdict=self.verdict,
            picture_hash=self.probe.picture_hash,
            source=self.probe.channel,
        )


def give_feedback(words: Iterable[Word]) -> list[Feedback]:
    """Remember what was said; the latest word for a picture and a person counts."""
    latest = {(word.probe.picture_hash, word.person.pk): word for word in words}
    username = journal.current_author().who
    with journal.changes():
        said = Feedback.objects.bulk_create(
            [word.as_row(username) for word in latest.values()],
            update_conflicts=True,
            unique_fields=["picture_hash", "person"],
            update_fields=_SAID_ANEW,
        )
        for word in latest.values():
            facts = {
                "verdict": word.verdict,
                "similarity": word.similarity,
                "decision": word.decision,
            }
            journal.record(journal.Action.FEEDBACK, person=word.person, facts=facts)
    return said


@dataclass(frozen=True, slots=True)
class Remembered:
    """The hits of a searched face, best first. `aside` are persons whom it does not show, as
    somebody said, each with the most similar picture; they are not among `hits`.

    `said` is what was said of this picture, by the person's key.
    """

    hits: list[SearchHit]
    aside: list[SearchHit] = field(default_factory=list)
    said: Said = field(default_factory=dict)

    @classmethod
    def of(cls, hits: Iterable[SearchHit], said: Said) -> Remembered:
        """Part the hits by what was said."""
        not_these = rejected(said)
        rest: list[SearchHit] = []
        aside: dict[int, SearchHit] = {}
        for hit in hits:
            if hit.person.pk in not_these:
                aside.setdefault(hit.person.pk, hit)
            else:
                rest.append(hit)
        return cls(rest, [*aside.values()], said)

    @property
    def all_hits(self) -> list[SearchHit]:
        """The hits with those set aside, best first."""
        return sorted([*self.hits, *self.aside], key=lambda hit: -hit.similarity)


def remember(
    probe: Embeddings,
    crops: Sequence[Crop | None],
    found: Sequence[list[SearchHit]],
    top_k: int,
    *,
    persons: QuerySet[Person] | None = None,
    **options: Any,
) -> list[Remembered]:
    """Set aside whom a picture does not show, as somebody said of the same picture before.

    `found` are the hits of each vector of the probe, as `search_gallery` answered them with the same
    options; `crops` are the searched faces, None for a vector without a picture. Others take the
    places of those set aside.
    """
    remembered = []
    for place, (hits, said) in enumerate(zip(found, said_of(crops), strict=True)):
        each = Remembered.of(hits, said)
        if each.aside and len(hits) >= top_k:
            one = Embeddings(probe.vectors[place : place + 1], probe.model, probe.fingerprint)
            others = Person.objects.all() if persons is None else persons
            others = others.exclude(pk__in=rejected(each.said))
            (rest,) = search_gallery(one, top_k, persons=others, **options)
            each = Remembered(rest, each.aside, each.said)
        remembered.append(each)
    return remembered


def said_of(crops: Sequence[Crop | None]) -> list[Said]:
    """Return what was said of the picture of each face, by the person's key."""
    hashes = [_hash_of(crop) for crop in crops]
    said = feedback_on(hashes)
    return [said.get(known, {}) for known in hashes]


def feedback_on(hashes: Iterable[str]) -> dict[str, dict[int, Feedback]]:
    """Return what was said of these pictures, by their hash and the person's key."""
    said: dict[str, dict[int, Feedback]] = {}
    if wanted := set(hashes) - {""}:
        for row in Feedback.objects.filter(picture_hash__in=wanted):
            said.setdefault(row.picture_hash, {})[row.person_id] = row
    return said


def take_back_feedback(picture_hash: str, person: Person) -> None:
    """Forget what was said of this picture and this person, if anything."""
    with journal.changes():
        for said in Feedback.objects.filter(picture_hash=picture_hash, person=person):
            facts = {"verdict": WITHDRAWN, "similarity": said.similarity, "decision": said.decision}
            journal.record(journal.Action.FEEDBACK, person=person, facts=facts)
            said.delete()


def rejected(said: Said) -> set[int]:
    """Return the keys of the persons of whom it was said that the picture does not show them."""
    return {pk for pk, row in said.items() if row.verdict == Verdict.REJECTED}


def _hash_of(crop: Crop | None) -> str:
    """Return the hash of the face; empty where there is none, and where the key cannot be read."""
    if crop is None:
        return ""
    try:
        return hash_of_face(crop.pixels)
    except KeyRefused as error:  # a search does not fail for it
        logger.warning("What was said of searched faces is not known: %s", error)
        return ""
