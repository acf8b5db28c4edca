"""The faces of an import's files: whom they resemble, and those that wait in the inbox."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from django.db import transaction
from django.utils.translation import gettext

from enrollment import probes
from enrollment.exceptions import PictureNotFound
from enrollment.gallery import compared_weights, jpeg, search_gallery, thumbnail
from enrollment.imports.batch_enrolment import FileResult
from enrollment.imports.found_files import FileStatus
from enrollment.imports.staging import face_of, file_of, found_in
from enrollment.models import ImportFile, Person, Probe
from recognition.embedding import Crop, crop_upload, embeddings_of
from recognition.exceptions import RecognitionError

logger = logging.getLogger(__name__)

CANDIDATES: Final = 3
SIDE: Final = 320  # pixels of a small picture


def note_faces(rows: Sequence[ImportFile], results: Sequence[FileResult] = ()) -> None:
    """Store a small picture of each file beside it, the face that was found in it, and up to three
    persons whom it resembles most.

    It is the face, or the whole picture where there is none. What was refused before its face was
    looked for is looked at now.
    """
    known = [result.crop for result in results] or [None] * len(rows)
    found: list[tuple[ImportFile, Crop]] = []
    for row, seen in zip(rows, known, strict=True):
        crop = seen or (_look(row) if row.status == FileStatus.REFUSED else None)
        small = jpeg(crop.pixels) if crop else _small(row)
        if small is not None:
            face_of(row).write_bytes(small)
            row.has_face = True
        if crop is not None:
            found.append((row, crop))
    for row, result in zip(rows, results, strict=False):  # none of results, or of each
        if result.found:
            found_in(row).write_text(json.dumps(result.found))
    _note_candidates(found)
    ImportFile.objects.bulk_update(rows, ["has_face", "candidates"], batch_size=100)


def _look(row: ImportFile) -> Crop | None:
    with suppress(RecognitionError, OSError):
        return crop_upload(file_of(row).read_bytes(), require_face=True)[0]
    return None


def _note_candidates(found: list[tuple[ImportFile, Crop]]) -> None:
    weights = compared_weights()
    if not weights or not found:
        return
    try:
        probe = embeddings_of([crop for _row, crop in found], weights.model)
        hits = search_gallery(probe, CANDIDATES, group_by_person=True)
    except RecognitionError as error:  # the faces are shown without candidates
        logger.warning("No candidates for files of an import: %s", error)
        return
    for (row, _crop), similar in zip(found, hits, strict=True):
        row.candidates = [
            [hit.person.pk, round(hit.similarity, 4), hit.decision] for hit in similar
        ]


def offer_refused(rows: Sequence[ImportFile], until: datetime, username: str) -> None:
    """Put refused pictures into the inbox, sealed, until that time; their files can go then."""
    ids = {row.person_id for row in rows} - {""}
    persons = {each.person_id: each for each in Person.objects.filter(person_id__in=ids)}
    offered = [(row, _look(row), _small(row)) for row in rows]
    with transaction.atomic():
        for row, crop, small in offered:
            row.is_kept = False
            if small is not None:
                row.probe_pk = _put_into_inbox(row, crop, small, persons, until, username)
        ImportFile.objects.bulk_update(rows, ["is_kept", "probe_pk"], batch_size=100)


def _put_into_inbox(
    row: ImportFile,
    crop: Crop | None,
    small: bytes,
    persons: Mapping[str, Person],
    until: datetime,
    username: str,
) -> int:
    picture = probes.FacePicture(small, None)
    if crop is not None:
        (picture,) = probes.face_pictures_of(file_of(row).read_bytes(), [crop])
    probe = probes.keep_refused(
        picture,
        crop,
        reason=row.code,
        until=until,
        username=username,
        person=persons.get(row.person_id),
    )
    return probe.pk


def _small(row: ImportFile) -> bytes | None:
    """Return the picture as a small JPEG, None where the file is no picture."""
    with suppress(RecognitionError, OSError):
        return thumbnail(file_of(row).read_bytes(), SIDE)
    return None


def small_picture(row: ImportFile) -> bytes:
    """Return the face of the file as a JPEG, or the whole picture if none was found.

    Raise `PictureNotFound` when neither is kept.
    """
    with suppress(RecognitionError, OSError):
        if row.has_face:
            return face_of(row).read_bytes()
        if row.is_kept:
            return thumbnail(file_of(row).read_bytes(), SIDE)
        if probe := Probe.objects.waiting().filter(pk=row.probe_pk or 0).first():
            return probes.read_face(probe)
    raise PictureNotFound(gettext("This file is kept no more, or is no picture."))
