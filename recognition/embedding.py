"""From pictures to embeddings: find the face, align it, run the network, normalise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.utils.translation import gettext

from recognition.alignment import align_face, whole_picture
from recognition.conf import get_settings
from recognition.detection import Face, detect_many
from recognition.exceptions import NoFaceDetected, OutOfDeviceMemory, RecognitionError
from recognition.imaging import DecodedImage, read_image
from recognition.networks import load_network
from recognition.networks.registry import EMBEDDING_DIM

PIXELS_AT_A_TIME: Final = 16_000_000  # decoded at once; 3 bytes each


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """What a network reads: 112×112×3 uint8 RGB, and the face it was cut from.

    `face` is None when none was found or looked for; then the crop is the whole picture.
    """

    pixels: np.ndarray
    face: Face | None

    def describe(self) -> dict[str, Any]:
        """The fields that stand beside every embedding, ready for JSON."""
        return {
            "face_detected": self.face is not None,
            "face": self.face.as_dict() if self.face else None,
        }


@dataclass(frozen=True, slots=True)
class CroppedUpload:
    """An upload that was read: its bytes, its upright pixels, and the crop of its face."""

    data: bytes
    image: DecodedImage
    crop: FaceCrop


@dataclass(frozen=True, slots=True)
class _ReadUpload:
    data: bytes
    image: DecodedImage


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors` is N×512 float32, each of length 1; vectors of other weights are not comparable."""

    vectors: np.ndarray
    model: str
    fingerprint: str


def crop_faces(
    images: Sequence[np.ndarray], *, detect: bool = True, require_face: bool = False
) -> list[FaceCrop | NoFaceDetected]:
    """The largest face of each H×W×3 uint8 RGB picture, aligned; in the order given.

    Where no face is found the whole picture stands for an aligned crop, or, with `require_face` or
    `NO_FACE_POLICY=error`, the error stands in its place.
    """
    required = require_face or (detect and get_settings().no_face_policy == "error")
    found = detect_many(images) if detect or required else [[] for _ in images]
    return [_crop(image, faces, required) for image, faces in zip(images, found, strict=True)]


def crop_uploads(
    files: Iterable[tuple[str | None, bytes]], *, detect: bool = True, require_face: bool = False
) -> Iterator[CroppedUpload | RecognitionError]:
    """Reads uploads (file name, bytes) and crops their faces; yields one entry for each, in order.

    A few are held in memory at a time, however many and however large they are.
    """
    for group in _read_in_groups(files):
        images = [item for item in group if isinstance(item, _ReadUpload)]
        crops = iter(
            crop_faces(
                [item.image.pixels for item in images], detect=detect, require_face=require_face
            )
        )
        for item in group:
            result = next(crops) if isinstance(item, _ReadUpload) else item
            if isinstance(result, FaceCrop):
                yield CroppedUpload(item.data, item.image, result)
            else:
                yield result


def _read_in_groups(
    files: Iterable[tuple[str | None, bytes]],
) -> Iterator[list[_ReadUpload | RecognitionError]]:
    group: list[_ReadUpload | RecognitionError] = []
    held = 0
    for filename, data in files:
        try:
            image = read_image(data, filename)
        except RecognitionError as error:
            group.append(error)
            continue
        group.append(_ReadUpload(data, image))
        held += image.width * image.height
        if held >= PIXELS_AT_A_TIME:
            yield group
            group, held = [], 0
    if group:
        yield group


def _crop(image: np.ndarray, faces: list[Face], required: bool) -> FaceCrop | NoFaceDetected:
    for face in faces:
        try:
            return FaceCrop(align_face(image, face.landmarks), face)
        except ValueError:  # landmarks that no face can have: not a face
            continue
    if required:
        return NoFaceDetected(
            gettext(
                "No face was found in the picture, and one is required. Send a picture in which a face "
                "is seen from the front, well lit and at least 40 pixels wide."
            )
        )
    return FaceCrop(whole_picture(image), None)


def embed_crops(crops: Sequence[np.ndarray], model: str) -> Embeddings:
    """Runs 112×112×3 uint8 RGB crops through the model, `EMBED_BATCH_SIZE` at a time."""
    loaded = load_network(model)
    size = get_settings().embed_batch_size
    parts = [_forward(loaded, crops[start : start + size]) for start in range(0, len(crops), size)]
    vectors = np.concatenate(parts) if parts else np.empty((0, EMBEDDING_DIM), np.float32)
    return Embeddings(vectors, model, loaded.weights.fingerprint)


def _forward(loaded: Any, crops: Sequence[np.ndarray]) -> np.ndarray:
    import torch

    try:
        with torch.inference_mode():
            # N×H×W×C in memory seen as N×C×H×W is what torch calls channels-last.
            batch = torch.from_numpy(np.stack(crops)).to(loaded.device).permute(0, 3, 1, 2)
            output = loaded.module(batch.float().div_(127.5).sub_(1.0))
            return torch.nn.functional.normalize(output.float()).cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            gettext(
                "The GPU has too little memory for %(count)d faces at once. Send fewer pictures, or have "
                "the administrator lower EMBED_BATCH_SIZE or set DEVICE=cpu."
            )
            % {"count": len(crops)}
        ) from error


def embed_uploads(
    files: Iterable[tuple[str | None, bytes]],
    model: str,
    *,
    detect: bool = True,
    require_face: bool = False,
) -> tuple[list[FaceCrop | RecognitionError], Embeddings]:
    """Reads, crops and embeds uploads (file name, bytes).

    Returns a crop or an error for each upload, and the embeddings of those that are crops, in order.
    """
    load_network(model)  # a model that cannot answer says so before any picture is looked at
    outcomes = [
        item.crop if isinstance(item, CroppedUpload) else item
        for item in crop_uploads(files, detect=detect, require_face=require_face)
    ]
    pixels = [item.pixels for item in outcomes if isinstance(item, FaceCrop)]
    return outcomes, embed_crops(pixels, model)
