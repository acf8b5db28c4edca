"""What operators say of matches: it is remembered, and teaches the thresholds of this gallery."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from enrollment import journal
from enrollment.gallery import Weights
from enrollment.models import FaceImage, Feedback, Person, Probe

Verdict = Feedback.Verdict
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
    username = journal.current_author().who[:150]
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


def rejections(hashes: Iterable[str]) -> dict[str, dict[int, Feedback]]:
    """Return who was said not to be on which picture, by the picture's hash and the person's key."""
    found: defaultdict[str, dict[int, Feedback]] = defaultdict(dict)
    wanted = set(hashes) - {""}
    if wanted:
        rows = Feedback.objects.filter(picture_hash__in=wanted, verdict=Verdict.REJECTED)
        for row in rows:
            found[row.picture_hash][row.person_id] = row
    return dict(found)
