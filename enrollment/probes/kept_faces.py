"""Keep searched faces: for a while with their answer, and for the inbox if that is switched on.

Keeping never fails a search: a database that does not answer costs what would have been kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext

from enrollment import journal
from enrollment.exceptions import AnswerNotFound, FaceGone
from enrollment.gallery import SearchHit, Weights, compared_weights
from enrollment.models import Probe, ProbeChannel, SearchAnswer
from enrollment.probes.encryption import hash_of_face, seal, unseal
from enrollment.probes.faces import FacePicture
from enrollment.probes.groups import begin_groups_alone, group_of
from recognition.conf import get_settings
from recognition.decision import Decision
from recognition.embedding import Crop, crop_again, crop_upload, embed_crops
from recognition.exceptions import RecognitionError
from recognition.inference import Embeddings

logger = logging.getLogger(__name__)

UNDO_FOR: Final = timedelta(hours=1)  # a settled face is kept so that it can come back
MOST_KEPT: Final = 50_000  # faces, of about 25 kB each; beyond that the oldest go
UNCERTAIN: Final = frozenset({Decision.REVIEW, Decision.UNKNOWN})


@dataclass(frozen=True, slots=True)
class SearchedFace:
    """A face that was searched: its crop, its small picture, its vector (512 float32 of length 1).

    `hit` is the nearest enrolled picture, if any; `decision` is that of the search.
    """

    crop: Crop
    picture: FacePicture
    vector: np.ndarray
    hit: SearchHit | None
    decision: Decision | None


def keeps(channel: str) -> bool:
    """Return whether the faces of a search by this channel are kept at all."""
    if settings.KEEP_PROBES_DAYS:
        return True
    return channel == ProbeChannel.PAGE and bool(settings.KEEP_ANSWERS_MINUTES)


def keep_answer(
    faces: Sequence[SearchedFace],
    *,
    channel: str,
    username: str,
    weights: Weights,
    content: bytes = b"",
) -> SearchAnswer | None:
    """Keep the faces of one search, in their order; return the answer, None if none is kept.

    What is uncertain of them goes into the inbox for `KEEP_PROBES_DAYS`. `content` is what else it
    takes to show the answer again; it is encrypted too.
    """
    if not faces or not keeps(channel):
        return None
    try:
        now = timezone.now()
        answer = SearchAnswer(
            created_at=now,
            expires_at=now + timedelta(minutes=settings.KEEP_ANSWERS_MINUTES),
            username=username,
            channel=channel,
            model=weights.model,
            content=seal(content) if content else None,
        )
        probes = [_probe(face, number, answer, weights) for number, face in enumerate(faces, 1)]
        if not settings.KEEP_ANSWERS_MINUTES:
            probes = [probe for probe in probes if probe.in_inbox]
            for probe in probes:
                probe.answer = None
        with journal.short_wait(), transaction.atomic():
            _group(probes, faces, weights)
            if settings.KEEP_ANSWERS_MINUTES:
                answer.save()
            Probe.objects.bulk_create(probes)
    except (DatabaseError, RecognitionError) as error:
        logger.warning("%d searched faces were not kept: %s", len(faces), error)
        return None
    return answer if answer.pk else None


def _probe(face: SearchedFace, place: int, answer: SearchAnswer, weights: Weights) -> Probe:
    waits = bool(settings.KEEP_PROBES_DAYS) and face.decision in UNCERTAIN
    last = answer.created_at + timedelta(days=settings.KEEP_PROBES_DAYS)
    probe = Probe(
        answer=answer,
        place=place,
        created_at=answer.created_at,
        username=answer.username,
        channel=answer.channel,
        model=weights.model,
        fingerprint=weights.fingerprint,
        vector=seal(face.vector.astype("<f4").tobytes()),
        picture_hash=hash_of_face(face.crop.pixels),
        person=face.hit.person if face.hit else None,
        similarity=face.hit.similarity if face.hit else None,
        decision=face.decision or "",
        kept_until=max(last, answer.expires_at) if waits else answer.expires_at,
        in_inbox=waits,
    )
    _fill(probe, face.picture)
    return probe


def _group(probes: Sequence[Probe], faces: Sequence[SearchedFace], weights: Weights) -> None:
    """Give the strangers their groups, in the transaction that stores them."""
    strangers = [each for each in probes if each.in_inbox and each.decision == Decision.UNKNOWN]
    if strangers:
        begin_groups_alone()
    for probe in strangers:
        probe.group = group_of(faces[probe.place - 1].vector, weights)


def _fill(probe: Probe, picture: FacePicture) -> None:
    probe.picture = seal(picture.jpeg)
    probe.record = seal(json.dumps(picture.record).encode()) if picture.record else None


def keep_refused(
    picture: FacePicture,
    crop: Crop | None,
    *,
    reason: str,
    until: datetime,
    username: str,
    person: Any = None,
) -> Probe:
    """Put a face or picture that an import refused into the inbox, in the caller's transaction.

    `reason` is the code of the error, `person` whom the import named, if there is one. Without a
    crop the picture shows no face: it can only be discarded.
    """
    probe = Probe(
        username=username,
        channel=ProbeChannel.IMPORT,
        picture_hash=hash_of_face(crop.pixels) if crop else "",
        person=person,
        reason=reason,
        kept_until=until,
        in_inbox=True,
    )
    _fill(probe, picture)
    probe.save()
    return probe


# Reading


def answer_of(number: str) -> SearchAnswer:
    """Return the kept answer with this number. Raise `AnswerNotFound`, also when its time is over."""
    found = SearchAnswer.objects.filter(number=number, expires_at__gt=timezone.now()).first()
    if found is None:
        raise AnswerNotFound(
            gettext(
                "There is no answer with this number, or not any more: answers are kept for "
                "%(minutes)d minutes. Search again."
            )
            % {"minutes": settings.KEEP_ANSWERS_MINUTES}
        )
    return found


def probe_of(number: str, place: int) -> Probe:
    """Return one face of a kept answer, counted from 1. Raise `AnswerNotFound` or `FaceGone`."""
    answer = answer_of(number)
    probe: Probe | None = answer.probes.filter(place=place).first()
    if probe is None:
        raise FaceGone(
            gettext("The answer %(number)s has no face %(place)d, or it is not kept any more.")
            % {"number": number, "place": place}
        )
    return probe


def read_face(probe: Probe) -> bytes:
    """Return the JPEG of the face with a margin. Raise `FaceGone` or `SealBroken`."""
    if probe.picture is None:
        raise FaceGone(gettext("This face is not kept any more."))
    return unseal(probe.picture)


def read_record(probe: Probe) -> dict[str, Any] | None:
    """Return the `Crop.face_record` of the face in pixels of its picture; None for a crop."""
    return None if probe.record is None else json.loads(unseal(probe.record))


def embeddings_of(probe: Probe) -> Embeddings:
    """Return the face's one vector by weights in use, computed anew when it was made with others.

    Raise `FaceGone`, `SealBroken`, or why it cannot be computed.
    """
    own = Weights(probe.model, probe.fingerprint)
    if probe.vector is not None and probe.model and compared_weights(probe.model) == own:
        vector = np.frombuffer(unseal(probe.vector), "<f4")
        return Embeddings(vector[None], own.model, own.fingerprint)
    jpeg, record = read_face(probe), read_record(probe)
    options: Any = {"use_face_detection": False}
    crop = crop_again(jpeg, record) if record else crop_upload(jpeg, **options)[0]
    return embed_crops([crop.pixels], probe.model or get_settings().default_model)


# Forgetting


def forget_old_faces() -> int:
    """Delete answers and faces whose time is over; return how many faces.

    Fewer days and minutes, set meanwhile, hold for what is kept already.
    """
    now, minutes = timezone.now(), timedelta(minutes=settings.KEEP_ANSWERS_MINUTES)
    days = timedelta(days=settings.KEEP_PROBES_DAYS)
    answers = SearchAnswer.objects.filter(Q(expires_at__lte=now) | Q(created_at__lte=now - minutes))
    of_answers = Probe.objects.filter(answer__in=answers, in_inbox=False, settled_at=None)
    forgotten = of_answers.delete()[0]
    answers.delete()
    longer = Probe.objects.filter(in_inbox=True, kept_until__gt=now + days)
    longer.exclude(channel=ProbeChannel.IMPORT).update(kept_until=F("created_at") + days)
    forgotten += Probe.objects.filter(kept_until__lte=now).delete()[0]
    forgotten += Probe.objects.filter(settled_at__lte=now - UNDO_FOR).delete()[0]
    if newest := Probe.objects.order_by("-pk").values_list("pk", flat=True)[MOST_KEPT:][:1]:
        forgotten += Probe.objects.filter(pk__lte=newest[0]).delete()[0]
    return forgotten
