"""What operators say of matches: it is remembered, and teaches the thresholds of this gallery."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from django.utils import timezone

from enrollment import journal
from enrollment.gallery import Weights
from enrollment.models import FaceImage, Feedback, Person, Probe

Verdict = Feedback.Verdict


def give_feedback(
    probe: Probe,
    person: Person,
    verdict: str,
    *,
    similarity: float,
    face_image: FaceImage | None = None,
    decision: str | None = None,
    weights: Weights | None = None,
) -> Feedback:
    """Remember whether the searched face is the person's; the latest word counts.

    `similarity` is the cosine to `face_image`, the person's most similar picture, and `decision`
    what was shown for it; `weights` made the vectors, if not those of the probe.
    """
    model, fingerprint = weights or (probe.model, probe.fingerprint)
    with journal.changes():
        said, _is_new = Feedback.objects.update_or_create(
            picture_hash=probe.picture_hash,
            person=person,
            defaults={
                "created_at": timezone.now(),
                "username": journal.current_author().who[:150],
                "face_image": face_image,
                "model": model,
                "fingerprint": fingerprint,
                "similarity": similarity,
                "decision": decision or "",
                "verdict": verdict,
                "source": probe.channel,
            },
        )
        facts = {"verdict": verdict, "similarity": similarity, "decision": decision}
        journal.record(journal.Action.FEEDBACK, person=person, facts=facts)
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
