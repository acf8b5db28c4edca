"""Keep the answer of the search page for a while, so that it survives a reload and can be acted on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from enrollment.models import ProbeChannel, SearchAnswer
from enrollment.pages.query_pictures import QueryPicture
from enrollment.probes import Remembered
from enrollment.web import keep_search
from recognition.decision import Thresholds
from recognition.inference import Embeddings


def keep(
    request: HttpRequest,
    pictures: Sequence[QueryPicture],
    probe: Embeddings,
    found: Sequence[Remembered],
    thresholds: Thresholds | None,
) -> SearchAnswer | None:
    """Keep the answer, encrypted, and give its faces what is kept of them.

    `found` are the hits of all faces, those of each vector of the probe. Return None when nothing
    is kept, or only for the inbox.
    """
    faces = [face for picture in pictures for face in picture.faces]
    hits = iter(found)
    content = {
        "pictures": [_packed(picture, hits) for picture in pictures],
        "thresholds": thresholds
        and [astuple(each) for each in (thresholds.match, thresholds.review)],
    }
    answer = keep_search(
        request,
        ProbeChannel.PAGE,
        [(face.crop, face.kept) for face in faces],
        probe,
        [each.hits for each in found],
        thresholds,
        json.dumps(content).encode() if settings.KEEP_ANSWERS_MINUTES else b"",
    )
    if answer is None or not settings.KEEP_ANSWERS_MINUTES:
        return None
    for face, kept in zip(faces, answer.probes.order_by("place"), strict=True):
        face.probe = kept
    return answer


def _packed(picture: QueryPicture, hits: Iterable[Remembered]) -> dict[str, Any]:
    return {
        "filename": picture.filename,
        "uri": picture.uri,
        "size": [picture.width, picture.height],
        "faces": [
            {
                "uri": face.uri,
                "face": face.crop.face and face.crop.face.as_dict(),
                "quality": face.crop.quality.as_record(),
                "hits": [[hit.id, hit.similarity] for hit in its.all_hits],
            }
            for face, its in zip(picture.faces, hits, strict=False)
        ],
    }
