"""Search the gallery for the faces of uploaded pictures, and keep the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest

from enrollment.gallery import Weights, gallery_is_empty, search_gallery, search_thresholds
from enrollment.models import ProbeChannel
from enrollment.pages.keeping import keep
from enrollment.pages.query_pictures import (
    QueryPicture,
    ShownThresholds,
    asked_faces,
    read_pictures,
)
from enrollment.probes import Remembered, keeps, remember
from enrollment.web import searchable_by
from recognition.decision import Thresholds
from recognition.embedding import embed_crops
from recognition.networks import find_weights


def identify(
    request: HttpRequest,
    files: Iterable[UploadedFile],
    model: str,
    top_k: int,
    *,
    group_by_person: bool,
) -> dict[str, Any]:
    """Search the gallery for every face of the pictures; return the template context.

    Raise `RecognitionError` for an error that concerns all pictures; a problem of one picture is in
    its place.
    """
    find_weights(model)  # report an unusable model before reading the pictures
    pictures = read_pictures(files, keep=keeps(ProbeChannel.PAGE))
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
