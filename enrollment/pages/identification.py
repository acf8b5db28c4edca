"""Search the gallery for the faces of uploaded pictures, and keep the answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest

from enrollment.gallery import Weights, gallery_is_empty, search_gallery, search_thresholds
from enrollment.models import ProbeChannel, SearchAnswer
from enrollment.pages.query_pictures import (
    QueryPicture,
    ShownThresholds,
    asked_faces,
    read_pictures,
)
from enrollment.probes import Remembered, keeps, remember
from enrollment.web import keep_search, searchable_by
from recognition.decision import Thresholds
from recognition.embedding import embed_crops
from recognition.inference import Embeddings
from recognition.networks import find_weights


def identify(
    request: HttpRequest,
    files: Iterable[UploadedFile],
    model: str,
    top_k: int,
    *,
    group_by_person: bool,
    check_liveness: bool = False,
) -> dict[str, Any]:
    """Search the gallery for every face of the pictures; return the template context.

    Raise `RecognitionError` for an error that concerns all pictures; a problem of one picture is in
    its place.
    """
    find_weights(model)  # report an unusable model before reading the pictures
    pictures = read_pictures(files, keep=keeps(ProbeChannel.PAGE), check_liveness=check_liveness)
    faces = asked_faces(pictures)
    shown: dict[str, Any] = {"pictures": pictures, "model": model}
    if gallery_is_empty():
        return shown | {"gallery_is_empty": bool(faces)}
    thresholds: Thresholds | None = None
    found: list[Remembered] = []
    if faces:
        probe = embed_crops([face.crop.pixels for face in faces], model)
        thresholds = search_thresholds(Weights.of(probe))
        options: dict[str, Any] = {
            "group_by_person": group_by_person,
            "thresholds": thresholds,
            "persons": searchable_by(request),
        }
        hits = search_gallery(probe, top_k, **options)
        found = remember(probe, [face.crop for face in faces], hits, top_k, **options)
        for face, its in zip(faces, found, strict=True):
            face.show(request, its, thresholds)
        if any(hits):
            usable = [item for item in pictures if isinstance(item, QueryPicture)]
            shown["answer"] = keep(request, usable, probe, found, thresholds)
    has_found = any(each.all_hits for each in found)
    return shown | {
        "thresholds": ShownThresholds.of(thresholds),
        "nothing_indexed": bool(faces) and not has_found,
        "compared": has_found,
    }


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
