"""Embed the pictures of an evaluation with several models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from django.utils.translation import gettext

from recognition.embedding import (
    Crop,
    begin_embedding,
    crop_upload,
    embed_crops,
    embeddings_of,
)
from recognition.evaluation.pictures import EvaluationError, PictureSet
from recognition.exceptions import RecognitionError
from recognition.lookahead import in_order
from recognition.networks import find_weights
from recognition.networks.weights import WeightsFile

CHUNK: Final = 256  # crops collected for one call of the networks

Wrapper = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Embeddings of N pictures by every model: N×512 float32 each, rows in the order of `stems`.

    `stems` are names of the `PictureSet`. `unusable` gives the reason for each file left out.
    `crops` are the N×112×112×3 uint8 RGB that were embedded, if they were to be kept.
    """

    stems: list[str]
    vectors: dict[str, np.ndarray]
    fingerprints: dict[str, str]
    without_face: int
    unusable: dict[str, str]
    crops: np.ndarray | None = None

    def weights(self, model: str) -> WeightsFile:
        """Return the weights file that embedded the pictures; raises what `embed` does."""
        weights = find_weights(model)
        _check_weights(model, weights.fingerprint, self.fingerprints)
        return weights

    def embed(self, model: str, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return N×512 float32 of N crops, by the weights that embedded the pictures.

        Raise `EvaluationError` if these were replaced meanwhile.
        """
        embeddings = embed_crops(crops, model, bulk=True)
        _check_weights(model, embeddings.fingerprint, self.fingerprints)
        return embeddings.vectors

    @property
    def places(self) -> dict[str, int]:
        return {stem: place for place, stem in enumerate(self.stems)}


def embed_pictures(
    pictures: PictureSet,
    stems: Sequence[str],
    models: Sequence[str],
    *,
    use_face_detection: bool,
    keep_crops: bool = False,
    track: Wrapper = lambda items, total: items,
) -> Gallery:
    """Embed the pictures with each model; faces are detected only once.

    Raise `EvaluationError` when no picture can be used, or a weights file was replaced meanwhile.
    """
    used: list[str] = []
    unusable: dict[str, str] = {}
    parts: dict[str, list[np.ndarray]] = {model: [] for model in models}
    fingerprints: dict[str, str] = {}
    held: list[Crop] = []
    kept: list[np.ndarray] = []
    without_face = 0

    def embed_held() -> None:
        for model in models:
            embeddings = embeddings_of(held, model)
            _check_weights(model, embeddings.fingerprint, fingerprints)
            parts[model].append(embeddings.vectors)
        held.clear()

    def look(file: tuple[str, bytes]) -> Crop | RecognitionError:
        try:
            (crop,) = crop_upload(file[1], use_face_detection=use_face_detection)
        except RecognitionError as error:
            return error
        begin_embedding(crop, models)
        return crop

    crops = track(in_order(look, pictures.read(stems)), len(stems))
    for stem, crop in zip(stems, crops, strict=True):
        if isinstance(crop, RecognitionError):
            unusable[pictures.members[stem]] = str(crop)
            continue
        used.append(stem)
        without_face += crop.face is None
        held.append(crop)
        if keep_crops:
            kept.append(crop.pixels)
        if len(held) == CHUNK:
            embed_held()
    if not used:
        raise EvaluationError(": ".join(next(iter(unusable.items()))))
    embed_held()
    vectors = {model: np.concatenate(arrays) for model, arrays in parts.items()}
    pixels = np.stack(kept) if keep_crops else None
    return Gallery(used, vectors, fingerprints, without_face, unusable, pixels)


def _check_weights(model: str, fingerprint: str, known: dict[str, str]) -> None:
    """Note the fingerprint of the model's weights; raise `EvaluationError` if another is `known`."""
    if known.setdefault(model, fingerprint) != fingerprint:
        raise EvaluationError(
            gettext(
                "The weights file of %(model)s was replaced while it was measured, and vectors of "
                "different weights do not compare. Run it again."
            )
            % {"model": model}
        )


def read_descriptors(path: Path) -> tuple[dict[str, int], np.ndarray]:
    """Return the rows by name and the N×D float32 vectors of another system.

    The .npz has `names` and `embedding` (N×D). The vectors are centred on their mean and
    normalised, as their cosine is compared.
    """
    with np.load(path) as content:
        names, vectors = content["names"], content["embedding"].astype(np.float32)
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {str(name): place for place, name in enumerate(names)}, vectors
