"""Look at an uploaded picture before it is enrolled: decode it, find its face, judge its quality."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any, Final, Unpack

from django.conf import settings
from django.core.files.base import ContentFile

from enrollment.exceptions import LowQuality
from enrollment.judging import quality_doubts
from enrollment.models import PATH_MAX_LENGTH, Doubt
from recognition.embedding import Crop, CropOptions, begin_embedding, opened_upload
from recognition.exceptions import RecognitionError
from recognition.imaging import storable_bytes
from recognition.sentences import joined

REFUSE: Final = "refuse"  # a value of ENROLL_QUALITY and ENROLL_IDENTITY
_PROCESS: Final = secrets.token_hex(8)  # its detector finds the same faces again


@dataclass(eq=False)
class Upload:
    """An uploaded picture, the person that it shows, and the client's names for both.

    `content` is its bytes, or a request's file with these bytes, which is read only when needed. A
    new person gets `name` and `details`: fields of a `Person`, and under `purposes` the keys of those
    that a consent of `consent_day` allows, if any; with `is_known` nobody new is made. Of uploads with the same `key` only the first is stored; the others get
    its picture. `face` is the `Crop.face_record()` of the face that somebody chose in this very
    file. `found` is what `found_face` returned of an earlier look with the same options: no face is
    looked for again, unless the file or the process is another.
    """

    person_id: str
    filename: str
    content: bytes | IO[bytes] = field(repr=False)
    original_path: str = ""
    name: str = ""
    key: str | None = None
    face: Mapping[str, Any] | None = None
    found: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    is_known: bool = False

    @property
    def shown_path(self) -> str:
        return (self.original_path or self.filename)[:PATH_MAX_LENGTH]

    def read(self) -> bytes:
        """Return the bytes of the file. It can be called repeatedly."""
        if isinstance(self.content, bytes):
            return self.content
        self.content.seek(0)
        return self.content.read()

    @cached_property
    def digest(self) -> str:
        """The SHA-256 hex digest of the file, by which an earlier enrolment is recognised."""
        return hashlib.sha256(self.read()).hexdigest()


@dataclass(slots=True)
class Look:
    """What an upload shows, and the file to store; `error` refuses it."""

    crop: Crop | None = None
    doubts: list[Doubt] = field(default_factory=list)
    error: RecognitionError | None = None
    file: ContentFile[bytes] | None = None
    width: int = 0
    height: int = 0


def look_at(
    upload: Upload,
    *,
    dry_run: bool = False,
    embed_by: Iterable[str] = (),
    **options: Unpack[CropOptions],
) -> Look:
    """Decode an upload and find its face; see `enroll_pictures` for the options.

    If it is not refused and this is no dry run, return also the file to store, and begin the
    embeddings by the models `embed_by`. Nothing is written, and SQL is not used.
    """
    look, content = Look(), upload.read()
    options["face"] = upload.face or _found_before(upload)
    options["require_face"] = options["require_face"] or options["use_face_detection"]
    try:
        with opened_upload(content, **options) as (image, (crop,)):
            look.crop, look.doubts = crop, quality_doubts(crop.quality)
            if look.doubts and settings.ENROLL_QUALITY == REFUSE:
                look.error = LowQuality(sentences(look.doubts))
            if look.error or dry_run:
                return look
            stored, extension = storable_bytes(content, image)
    except RecognitionError as error:
        look.error = error
        return look
    look.file = ContentFile(stored, f"picture.{extension}")
    look.width, look.height = image.width, image.height
    begin_embedding(crop, embed_by)
    return look


def found_face(upload: Upload, crop: Crop | None) -> dict[str, Any] | None:
    """Return the face that was found in an upload, for `Upload.found` and JSON; None without one."""
    if crop is None or crop.face is None:
        return None
    exact = {
        "box": [float(value) for value in crop.face.box],
        "score": float(crop.face.score),
        "landmarks": crop.face.landmarks.tolist(),
        "rotation": crop.face.rotation,
        "quality": crop.quality.as_record(),
    }
    return {"process": _PROCESS, "digest": upload.digest, "face": exact}


def _found_before(upload: Upload) -> Mapping[str, Any] | None:
    found = upload.found or {}
    is_same = found.get("process") == _PROCESS and found.get("digest") == upload.digest
    return found["face"] if is_same else None


def sentences(doubts: Iterable[Doubt]) -> str:
    """Return the doubts in the active language."""
    return joined(doubt.message for doubt in doubts)
