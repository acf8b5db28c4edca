"""What users may see who can search but not browse: the persons they found, for a limited time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest

from enrollment.gallery import SearchHit
from enrollment.models import FaceImage
from enrollment.web.permissions import Act
from recognition.api.access import may
from recognition.decision import Thresholds

MOST_HITS: Final = 20
SEEN_FOR: Final = timedelta(hours=1)
KEY: Final = "key"  # query parameter of a picture's URL

_signer = TimestampSigner(salt="enrollment.web.visibility")


def found_by(
    request: HttpRequest, found: Sequence[list[SearchHit]], thresholds: Thresholds | None
) -> list[list[SearchHit]]:
    """Return the hits of each face that the user may see.

    Users who may not browse get the first 20 hits from the review threshold on, and none without
    measured thresholds. With hits of any similarity they could list the whole gallery.
    """
    if may(request, Act.BROWSE):
        return list(found)
    return [
        [hit for hit in hits if is_found(hit.similarity, thresholds)][:MOST_HITS] for hits in found
    ]


def is_found(similarity: float, thresholds: Thresholds | None) -> bool:
    """Return whether the similarity (a cosine) reaches the review threshold."""
    return thresholds is not None and similarity >= thresholds.review.similarity


def picture_address(request: HttpRequest, picture: FaceImage, size: str = "") -> str:
    """Return the URL of the picture; for users who may not browse, with a key valid for one hour."""
    query = {"size": size} if size else {}
    if not may(request, Act.BROWSE):
        signed = _signer.sign(_grant(request, picture.pk))
        query[KEY] = signed.removeprefix(_grant(request, picture.pk))
    return f"{picture.get_absolute_url()}{'?' if query else ''}{urlencode(query)}"


def may_see(request: HttpRequest, picture_id: int) -> bool:
    """Return whether the user may see this picture: by permission to browse, or by a valid key."""
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
