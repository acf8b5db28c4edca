"""Uploaded pictures on the search and compare pages: decode and crop them, and show what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from enrollment.exceptions import AnswerNotFound, PersonNotComparable, PersonNotFound
from enrollment.gallery import SearchHit, data_uri
from enrollment.models import Feedback, Probe
from enrollment.probes import FacePicture, Remembered, SealBroken, face_pictures
from enrollment.web import found_by, picture_address
from recognition.decision import Decision, Thresholds
from recognition.detection import Face, looks_for_faces
from recognition.embedding import Crop, opened_upload
from recognition.exceptions import NoFaceDetected, RecognitionError
from recognition.imaging import DecodedImage
from recognition.liveness import load_liveness
from recognition.quality import FaceQuality

PROBLEM_TITLES: Final = {
    "invalid_image": _("This picture cannot be used"),
    "image_too_large": _("This picture is too large"),
    NoFaceDetected.code: _("No face was found"),
    "unknown_model": _("There is no such model"),
    "weights_unavailable": _("This model is not ready"),
    "liveness_unavailable": _("The search for pictures of pictures is not ready"),
    "overloaded": _("The server is busy"),
    "out_of_device_memory": _("The graphics card is too small for this"),
    PersonNotFound.code: _("There is no such person"),
    PersonNotComparable.code: _("This person cannot be compared"),
    AnswerNotFound.code: _("There is no such answer"),
    SealBroken.code: _("The answer cannot be read"),
    "vector_store_unavailable": _("The gallery cannot be searched now"),
    "vector_store_locked": _("Another program is using the gallery"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there are no results, and what to do about it."""

    title: str
    messages: list[str]
    status: int = 400
    filename: str = ""

    @classmethod
    def of(cls, error: RecognitionError, filename: str = "") -> Problem:
        title = PROBLEM_TITLES.get(error.code, _("The search failed"))
        return cls(str(title), [error.message], error.status, filename)


@dataclass(frozen=True, slots=True)
class Likeness:
    """A cosine similarity and its decision; None if no thresholds were measured."""

    similarity: float
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class ShownHit(Likeness):
    hit: SearchHit
    picture: str  # URL of the picture
    face: str  # URL of the face alone
    said: Feedback | None = None  # what somebody said of this match

    @classmethod
    def of(cls, hit: SearchHit, request: HttpRequest, said: Feedback | None = None) -> ShownHit:
        places = [picture_address(request, hit.face_image, size) for size in ("", "face")]
        return cls(hit.similarity, hit.decision, hit, *places, said=said)


@dataclass(frozen=True, slots=True)
class NumberMark:
    """The disc with a face's number on its picture, in pixels of the picture."""

    x: float
    y: float
    radius: float

    @classmethod
    def beside(cls, face: Face, width: int, height: int) -> NumberMark:
        """Return a disc outside a corner of the face's box, so that it does not hide a small face."""
        radius = (width * height) ** 0.5 / 28
        away = radius / 2**0.5
        places: list[float] = []
        for start, length, side in zip(face.box[:2], face.box[2:], (width, height), strict=True):
            before, after = start - away, start + length + away
            place = before if before >= radius or after > side - radius else after
            places.append(min(max(place, radius), side - radius))
        x, y = places
        return cls(x, y, radius)

    @property
    def font_size(self) -> float:
        return 1.25 * self.radius


@dataclass(frozen=True, slots=True)
class ShownThresholds:
    """The similarities from which match and review begin."""

    thresholds: Thresholds

    @property
    def match(self) -> float:
        return self.thresholds.match.similarity

    @property
    def review(self) -> float:
        return self.thresholds.review.similarity

    @property
    def strangers_to_one_match(self) -> int | None:
        """How many impostor pairs there are for one false match; None if none matched."""
        fmr = self.thresholds.match.fmr
        return round(1 / fmr) if fmr else None

    @classmethod
    def of(cls, thresholds: Thresholds | None) -> ShownThresholds | None:
        return cls(thresholds) if thresholds else None


@dataclass(slots=True)
class QueryFace:
    """A face of an uploaded picture; `hits` are the most similar enrolled pictures.

    `box` is (x, y, width, height) in pixels of the picture; None if the whole picture is a crop of
    a face.
    """

    number: int  # as shown on the picture; 1 is the largest
    crop: Crop
    uri: str
    mark: NumberMark | None
    hits: list[ShownHit] = field(default_factory=list)
    aside: list[ShownHit] = field(default_factory=list)  # whom it does not show, as somebody said
    is_unlike_all: bool = False  # no hit that the user may see
    kept: FacePicture | None = None  # what is kept of it, where anything is
    probe: Probe | None = None  # as it is kept, while its answer is
    random_key: str = field(default_factory=lambda: token_hex(4))

    @property
    def key(self) -> str:
        """What is unique among results on the same page."""
        if self.probe and self.probe.answer:
            return f"{self.probe.answer.number}-{self.probe.place}"
        return self.random_key

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        return self.crop.face.box if self.crop.face else None

    @property
    def quality(self) -> FaceQuality:
        return self.crop.quality

    @property
    def doubts(self) -> list[str]:
        """The reasons against the face, as sentences."""
        return [reason.message for reason in self.quality.reasons]

    @property
    def best(self) -> ShownHit | None:
        return self.hits[0] if self.hits else None

    @property
    def decision(self) -> Decision | None:
        if self.is_unlike_all:
            return Decision.UNKNOWN
        return self.best.decision if self.best else None

    def show(self, request: HttpRequest, found: Remembered, thresholds: Thresholds | None) -> None:
        """Take over those of the hits that the user may see."""
        hits, aside = found_by(request, [found.hits, found.aside], thresholds)
        self.hits = [ShownHit.of(hit, request, found.said.get(hit.person.pk)) for hit in hits]
        self.aside = [ShownHit.of(hit, request, found.said.get(hit.person.pk)) for hit in aside]
        self.is_unlike_all = bool(thresholds) and not hits

    @property
    def likely_hits(self) -> list[ShownHit]:
        return [hit for hit in self.hits if hit.decision != Decision.UNKNOWN]

    @property
    def unlikely_hits(self) -> list[ShownHit]:
        return [hit for hit in self.hits if hit.decision == Decision.UNKNOWN]


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """An uploaded picture as the page shows it; `width` and `height` are its own pixels."""

    filename: str
    uri: str
    width: int
    height: int
    faces: list[QueryFace]

    @classmethod
    def of(cls, filename: str, image: DecodedImage, crops: Iterable[Crop]) -> QueryPicture:
        faces = [(crop, data_uri(crop.pixels)) for crop in crops]
        return cls.shown(filename, data_uri(image.pixels), (image.width, image.height), faces)

    @classmethod
    def shown(
        cls, filename: str, uri: str, size: tuple[int, int], faces: Iterable[tuple[Crop, str]]
    ) -> QueryPicture:
        """Return the picture with its faces, each a crop and its URI."""
        numbered = [
            QueryFace(
                number, crop, face, NumberMark.beside(crop.face, *size) if crop.face else None
            )
            for number, (crop, face) in enumerate(faces, 1)
        ]
        return cls(filename, uri, *size, numbered)

    @property
    def has_face(self) -> bool:
        return self.faces[0].box is not None

    @property
    def has_many_faces(self) -> bool:
        return len(self.faces) > 1


def read_pictures(
    files: Iterable[UploadedFile], *, keep: bool = False, check_liveness: bool = False
) -> list[QueryPicture | Problem]:
    """Return each picture with all its faces, or its problem, in the given order.

    A picture without a face is a problem, unless detection is disabled in the settings. With `keep`
    each face has what is to be kept of it. Raise `LivenessUnavailable` if the networks of a liveness
    check that is asked for are missing or unusable.
    """
    if check_liveness:
        load_liveness()  # report it once, before reading the pictures
    return [_read_picture(file, keep, check_liveness) for file in files]


def _read_picture(file: UploadedFile, keep: bool, check_liveness: bool) -> QueryPicture | Problem:
    name, content = file.name or "", file.read()
    upload = opened_upload(
        content,
        all_faces=True,
        require_face=looks_for_faces(),
        check_liveness=check_liveness,
    )
    try:
        with upload as (image, crops):
            picture = QueryPicture.of(name, image, crops)
            if keep:
                kept = face_pictures(image, content, crops)
                for face, its in zip(picture.faces, kept, strict=True):
                    face.kept = its
            return picture
    except RecognitionError as error:
        return Problem.of(error, name)


def asked_faces(pictures: Iterable[QueryPicture | Problem]) -> list[QueryFace]:
    """Return the faces of all usable pictures."""
    return [face for item in pictures if isinstance(item, QueryPicture) for face in item.faces]
