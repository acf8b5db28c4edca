"""What they see who may search but not browse: whom they found, with the pictures, for a while."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest

from enrollment.gallery import SearchHit
from enrollment.models import FaceImage
from enrollment.web.acts import Act
from recognition.api.access import may
from recognition.decision import Thresholds

MOST_HITS: Final = 20
SEEN_FOR: Final = timedelta(hours=1)
KEY: Final = "key"  # of the query of a picture's address

_signer = TimestampSigner(salt="enrollment.web.sight")


def found_by(
    request: HttpRequest, found: Sequence[list[SearchHit]], thresholds: Thresholds | None
) -> list[list[SearchHit]]:
    """Of each face's hits those that the asker may know of: who may not browse, only what is worth a look.

    That is the first 20 from the review threshold on, and nothing where none was measured: with hits
    of any likeness the whole gallery could be listed.
    """
    if may(request, Act.BROWSE):
        return list(found)
    return [
        [hit for hit in hits if is_found(hit.similarity, thresholds)][:MOST_HITS] for hits in found
    ]


def is_found(similarity: float, thresholds: Thresholds | None) -> bool:
    """Whether a likeness (a cosine) is worth a look."""
    return thresholds is not None and similarity >= thresholds.review.similarity


def picture_address(request: HttpRequest, picture: FaceImage, size: str = "") -> str:
    """Where the asker sees the picture; who may not browse, with a key for them that ends in an hour."""
    query = {"size": size} if size else {}
    if not may(request, Act.BROWSE):
        signed = _signer.sign(_grant(request, picture.pk))
        query[KEY] = signed.removeprefix(_grant(request, picture.pk))
    return f"{picture.get_absolute_url()}{'?' if query else ''}{urlencode(query)}"


def may_see(request: HttpRequest, picture_id: int) -> bool:
    """Whether the asker may see this picture: all who may browse, others what they found lately."""
    if may(request, Act.BROWSE):
        return True
    try:
        signed = _grant(request, picture_id) + request.GET.get(KEY, "")
        _signer.unsign(signed, max_age=SEEN_FOR)
    except BadSignature:
        return False
    return True


def _grant(request: HttpRequest, picture_id: int) -> str:
    return f"{picture_id} {request.user.pk}"
