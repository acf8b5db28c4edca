"""Keep the faces of a search, for the pages and the API, and say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from enrollment.gallery import SearchHit, Weights
from enrollment.models import SearchAnswer
from enrollment.probes import FacePicture, SearchedFace, keep_answer
from recognition.decision import Decision, Thresholds
from recognition.embedding import Crop
from recognition.inference import Embeddings


def keep_search(
    request: HttpRequest,
    channel: str,
    faces: Sequence[tuple[Crop | None, FacePicture | None]],
    probe: Embeddings,
    found: Sequence[Sequence[SearchHit]],
    thresholds: Thresholds | None,
    content: bytes = b"",
) -> SearchAnswer | None:
    """Keep the searched faces that have a picture, with their vectors in `probe` and all hits `found`.

    Return the answer, None when nothing is kept.
    """
    searched = [
        SearchedFace(
            crop, picture, vector, next(iter(hits), None), _decision(crop, hits, thresholds)
        )
        for (crop, picture), vector, hits in zip(faces, probe.vectors, found, strict=True)
        if crop and picture
    ]
    return keep_answer(
        searched,
        channel=channel,
        username=request.user.get_username(),
        weights=Weights.of(probe),
        content=content,
    )


def _decision(
    crop: Crop, hits: Sequence[SearchHit], thresholds: Thresholds | None
) -> Decision | None:
    if thresholds is None or crop.lacks_face:
        return None
    return hits[0].decision if hits else Decision.UNKNOWN


def kept_for() -> dict[str, Any]:
    """Return for how long searched faces are kept, for templates: `minutes` and `days`."""
    return {"minutes": settings.KEEP_ANSWERS_MINUTES, "days": settings.KEEP_PROBES_DAYS}
