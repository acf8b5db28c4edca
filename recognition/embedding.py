"""From pictures to embeddings: detect the face, align it, run the network, normalise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from recognition.alignment import align_face, is_enlarged, whole_picture
from recognition.conf import get_settings
from recognition.detection import Face, detect_faces, looks_for_faces
from recognition.exceptions import (
    NoFaceDetected,
    NoSuchFace,
    RecognitionError,
    SeveralFaces,
)
from recognition.imaging import DecodedImage, opened_image, read_image
from recognition.inference import Embeddings, get_queue
from recognition.liveness import liveness_of
from recognition.lookahead import in_order
from recognition.networks import load_network
from recognition.quality import (
    FaceQuality,
    crop_quality,
    face_quality,
    has_structure,
    is_unclear_who_is_meant,
    with_liveness,
)
from recognition.sentences import gettext


class CropOptions(TypedDict, total=False):
    """The options that choose which faces of a picture are cropped. Omitted or None: as configured."""

    use_face_detection: bool  # False: the picture is already a crop (default True)
    require_face: bool  # raise an error if there is no face
    min_score: float | None  # ignore faces with a lower score, 0 to 1
    min_face_size: float | None  # ignore faces with a smaller box side, in pixels of the picture
    check_liveness: bool  # measure the liveness of each face that is cropped (default False)
    all_faces: bool  # every face, not only the largest
    face_index: int | None  # only this face; 0 is the largest
    face: Mapping[str, Any] | None  # this face, found in this very file before: its `face_record`
    # refuse: `SeveralFaces` for any two faces; ask: `FaceNotChosen` if it is unclear which is meant
    on_several_faces: Literal["largest", "refuse", "ask"]


@dataclass(frozen=True, slots=True)
class Crop:
    """The input of a network, 112×112×3 uint8 RGB, and the face that it was cut from.

    `face` is None if none was found or detection did not run; then the crop is the whole picture.
    `begun` are its embeddings by model that `begin_embedding` asked for.
    """

    pixels: np.ndarray
    face: Face | None
    quality: FaceQuality
    begun: dict[str, Future[Embeddings]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def lacks_face(self) -> bool:
        """Whether detection ran and found no face, so that no decision is possible."""
        return self.quality.faces == 0

    def face_record(self) -> dict[str, Any] | None:
        """Return the face for storing as JSON, with codes instead of translated texts; None without
        one."""
        if self.face is None:
            return None
        return self.face.as_dict() | {"quality": self.quality.as_record()}


class FaceNotChosen(SeveralFaces):
    """Somebody must choose which of several faces is meant; `crops` are the faces, largest first."""

    def __init__(self, message: str, crops: list[Crop]) -> None:
        super().__init__(message)
        self.crops = crops


@contextmanager
def opened_upload(
    data: bytes, **options: Unpack[CropOptions]
) -> Iterator[tuple[DecodedImage, list[Crop]]]:
    """Decode an upload; yield its upright picture and its crops, largest first, at least one.

    A picture without a face gives the whole picture as a crop. The pixels count in the process's
    budget until the block ends and are released then. Raise `InvalidImage`; `NoFaceDetected` with
    `require_face` or `NO_FACE_POLICY=error`, and for a picture that is given as a crop but has no
    structure; `SeveralFaces` or `NoSuchFace` where the options say so.
    """
    with opened_image(data, side=get_settings().detection_max_side) as image:
        yield image, _wanted_crops(image, data, **options)


def crop_upload(data: bytes, **options: Unpack[CropOptions]) -> list[Crop]:
    """Return the crops of an upload like `opened_upload`, for callers that do not need the picture."""
    with opened_upload(data, **options) as (_image, crops):
        return crops


def crop_all_faces_of_upload(
    data: bytes, **options: Unpack[CropOptions]
) -> tuple[DecodedImage, list[Crop]]:
    """Return an upload's picture without its pixels, and every face, largest first."""
    with opened_image(data, side=get_settings().detection_max_side) as image:
        return image, _face_crops(image, data, **options | {"all_faces": True})


def _wanted_crops(image: DecodedImage, data: bytes, **options: Unpack[CropOptions]) -> list[Crop]:
    """Return the faces that the options ask for, or the whole picture. Raise `NoFaceDetected`."""
    if known := options.get("face"):
        return [_known_crop(image, data, known)]
    look = options.get("use_face_detection", True) and looks_for_faces()
    required = options.get("require_face", False)
    required = required or (look and get_settings().no_face_policy == "error")
    crops = _face_crops(image, data, **options) if look or required else []
    if not crops and required:
        raise _no_face()
    return crops or [_whole_picture(image.pixels, looked_for_face=look)]


def _face_crops(image: DecodedImage, data: bytes, **options: Unpack[CropOptions]) -> list[Crop]:
    """Return the faces that can be aligned, largest first; only the largest unless `all_faces`."""
    all_faces = options.get("all_faces", False)
    # Whoever enrols must know of every face that may be meant.
    counted = options.get("face_index") is not None or "on_several_faces" in options
    faces = detect_faces(
        image.pixels,
        min_score=options.get("min_score"),
        min_face_size=options.get("min_face_size"),
        scale=image.scale,
        all_faces=all_faces or counted,
    )
    if options.get("on_several_faces") == "ask" and is_unclear_who_is_meant(faces):
        _ask(list(_cut(image, data, faces)))
    faces, among = _meant(faces, **options)
    cut = _cut(image, data, faces, among)
    crops = list(cut) if all_faces else list(islice(cut, 1))
    return _with_liveness(image, crops) if options.get("check_liveness") else crops


def _with_liveness(image: DecodedImage, crops: Sequence[Crop]) -> list[Crop]:
    faces = [crop.face.scaled(image.scale) for crop in crops if crop.face]
    return [
        replace(crop, quality=with_liveness(crop.quality, liveness))
        for crop, liveness in zip(crops, liveness_of(image.pixels, faces), strict=True)
    ]


def _cut(
    image: DecodedImage, data: bytes, faces: Iterable[Face], among: Sequence[Face] = ()
) -> Iterator[Crop]:
    """Yield the crops of the faces that can be aligned, judged among the others.

    If the picture was decoded at a reduced scale and a face is too small there, it is cut from the
    full picture, which is only then decoded from `data`.
    """
    pixels, scale = image.pixels, image.scale
    for face in faces:
        seen = face if scale == 1 else face.scaled(scale)
        if scale != 1 and is_enlarged(seen.landmarks):
            pixels, scale, seen = read_image(data).pixels, 1.0, face
        try:
            crop = align_face(pixels, seen.landmarks)
        except ValueError:  # impossible landmarks, so this is no face
            continue
        yield Crop(crop, face, face_quality(crop, face, among))


def _ask(crops: list[Crop]) -> None:
    """Raise `FaceNotChosen` for two crops or more: a face that cannot be aligned is no choice."""
    if len(crops) > 1:
        message = gettext("There are %(count)d faces in the picture. Choose the one that is meant.")
        raise FaceNotChosen(message % {"count": len(crops)}, crops)


def _meant(faces: list[Face], **options: Unpack[CropOptions]) -> tuple[list[Face], Sequence[Face]]:
    """Return the faces that may be cropped, and the faces among which the first one is judged."""
    index = options.get("face_index")
    if index is None:
        if options.get("on_several_faces") == "refuse" and len(faces) > 1:
            message = gettext(
                "There are %(count)d faces in the picture, and one was expected. Give a picture of this "
                "person alone."
            )
            which = gettext(
                "Or say by face_index which is meant, from 0 for the largest to %(last)d."
            )
            raise SeveralFaces(
                message % {"count": len(faces)}, for_programs=which % {"last": len(faces) - 1}
            )
        return faces, () if options.get("all_faces") else faces
    if faces and index >= len(faces):
        message = gettext(
            "Face %(index)d was asked for, and the picture has %(count)d: they are counted from 0, the "
            "largest first, as /api/detect answers them."
        )
        raise NoSuchFace(message % {"index": index, "count": len(faces)})
    return faces[index : index + 1], ()


def crop_again(data: bytes, record: Mapping[str, Any]) -> Crop:
    """Crop a face that was found in this same file before; `record` is its `face_record`."""
    with opened_image(data, side=get_settings().detection_max_side) as image:
        return _known_crop(image, data, record)


def _known_crop(image: DecodedImage, data: bytes, record: Mapping[str, Any]) -> Crop:
    (crop,) = _cut(image, data, [Face.of_record(record)])
    return replace(crop, quality=FaceQuality.from_record(record["quality"]))


def _whole_picture(image: np.ndarray, *, looked_for_face: bool) -> Crop:
    """Return the picture as a crop. Raise `NoFaceDetected` if it is given as a crop but cannot be
    one."""
    pixels = whole_picture(image)
    if not looked_for_face and not has_structure(pixels):
        raise NoFaceDetected(
            gettext(
                "The picture is no crop of a face: it is of one colour, a gradient, or noise without "
                "contrast. Send a picture of a face."
            )
        )
    return Crop(pixels, None, crop_quality(pixels, looked_for_face=looked_for_face))


def _no_face() -> NoFaceDetected:
    return NoFaceDetected(
        gettext(
            "No face was found in the picture. Give one in which a face is seen from the front, well lit "
            "and at least 40 pixels wide."
        ),
        for_programs=gettext(
            "If it is an aligned crop of a face already, turn face detection off "
            "(use_face_detection=false)."
        ),
    )


def embed_crops(
    crops: Sequence[np.ndarray] | np.ndarray, model: str, *, bulk: bool = False
) -> Embeddings:
    """Return the embeddings of 112×112×3 uint8 RGB crops, which wait in the queue of the device.

    Errors, and what `bulk` means, are as in `recognition.inference.InferenceQueue.submit`.
    """
    return get_queue().submit(crops, model, bulk=bulk).result()


def begin_embedding(crop: Crop, models: Iterable[str]) -> None:
    """Ask for the crop's embeddings by these models, as bulk work, for `embeddings_of`.

    A model that does not load is left out: `embeddings_of` raises its error.
    """
    for model in models:
        with suppress(RecognitionError):
            crop.begun[model] = get_queue().submit([crop.pixels], model, bulk=True)


def embeddings_of(crops: Sequence[Crop], model: str) -> Embeddings:
    """Return the embeddings of the crops, as bulk work, with what was begun.

    Errors are as in `recognition.inference.InferenceQueue.submit`.
    """
    if crops and all(model in crop.begun for crop in crops):
        parts = [crop.begun[model].result() for crop in crops]
        if len({part.fingerprint for part in parts}) == 1:
            vectors = np.concatenate([part.vectors for part in parts])
            return replace(parts[0], vectors=vectors)
    return embed_crops([crop.pixels for crop in crops], model, bulk=True)


def embed_uploads(
    contents: Iterable[bytes], model: str, **options: Unpack[CropOptions]
) -> tuple[list[Crop | RecognitionError], Embeddings]:
    """Decode uploads, given as bytes, and embed the largest face of each.

    Return a crop or an error for each upload, and the embeddings of the crops, in order.
    """
    load_network(model)  # report an unusable model before reading the pictures
    outcomes = list(in_order(partial(_largest_face, **options), contents))
    pixels = [item.pixels for item in outcomes if isinstance(item, Crop)]
    return outcomes, embed_crops(pixels, model)


def _largest_face(data: bytes, **options: Unpack[CropOptions]) -> Crop | RecognitionError:
    try:
        return crop_upload(data, **options)[0]
    except RecognitionError as error:
        return error
