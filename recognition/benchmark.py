"""Time each step from a picture to the nearest faces on this machine.

Nothing of the installation is changed: searches use a temporary vector database.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import numpy as np
from PIL import Image

from recognition.alignment import TEMPLATE, align_face
from recognition.conf import get_settings
from recognition.detection import detect_faces
from recognition.embedding import embed_crops, embed_uploads
from recognition.evaluation import open_pictures
from recognition.exceptions import RecognitionError
from recognition.imaging import read_image
from recognition.inference import batch_size
from recognition.networks.device import choose_device
from recognition.networks.registry import EMBEDDING_DIM
from recognition.vector_store import LiteVectorStore, VectorRow, configured_index

MOST_PICTURES: Final = 20  # taken from a folder at even distances
DETECTED_SIDES: Final = (640, 1920)  # pixels of the longer side
MADE_UP_SIZE: Final = (1920, 1440)
LEAST_RUNS: Final = 3
NEAREST: Final = 10
ROWS_AT_A_TIME: Final = 10_000
PARTITION: Final = "benchmark"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one step, and its throughput at the median.

    `step` is `detect` (one picture of `size` pixels), `align` (one face), `embed` (a batch of
    `size` faces by `model`), `picture_to_embedding` (one file, all steps) or `search` (one face
    among `size` vectors).
    """

    step: str
    runs: int
    median_ms: float
    best_ms: float
    per_second: float
    size: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The pictures to measure with: their files, their pixels, and their largest faces."""

    files: list[bytes]
    images: list[np.ndarray]  # H×W×3 uint8 RGB
    landmarks: list[np.ndarray | None]  # 5×2 (x, y); None where no face is found

    @property
    def with_face(self) -> int:
        """The number of pictures with a detected face."""
        return sum(points is not None for points in self.landmarks)

    def face(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture and 5×2 landmarks to align; made-up ones if no face was detected."""
        image, points = _nth(self.images, run), _nth(self.landmarks, run)
        return image, TEMPLATE * (image.shape[1] / 224) if points is None else points


def read_sample(root: Path | None) -> Sample:
    """Return some pictures of a folder or zip archive, or one synthetic picture without a face.

    Raise `EvaluationError` or `RecognitionError` for unusable pictures.
    """
    if root is None:
        files = [_made_up_picture()]
    else:
        pictures = open_pictures(root)
        names = sorted(pictures.members)
        some = np.linspace(0, len(names) - 1, min(MOST_PICTURES, len(names))).round().astype(int)
        files = [content for _name, content in pictures.read([names[place] for place in some])]
    images = [read_image(content).pixels for content in files]
    found = [detect_faces(image) for image in images]
    return Sample(files, images, [faces[0].landmarks if faces else None for faces in found])


def _made_up_picture() -> bytes:
    spots = np.random.default_rng(0).integers(40, 200, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(spots).resize(MADE_UP_SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def measure(
    sample: Sample, models: Sequence[str], galleries: Sequence[int], seconds: float
) -> Iterator[Timing]:
    """Time every step for about `seconds` each. Raise `RecognitionError` when a step fails."""
    yield from _detection(sample, seconds)
    yield _timing("align", seconds, lambda run: align_face(*sample.face(run)))
    for model in models:
        yield from _embedding(sample, model, seconds)
    for size in galleries:
        yield _search(size, seconds)


def _detection(sample: Sample, seconds: float) -> Iterator[Timing]:
    for side in DETECTED_SIDES:
        images = [_of_side(image, side) for image in sample.images]
        yield _timing("detect", seconds, partial(_detect_in, images), size=side)


def _detect_in(images: Sequence[np.ndarray], run: int) -> None:
    detect_faces(_nth(images, run))


def _of_side(image: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(image)
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _embedding(sample: Sample, model: str, seconds: float) -> Iterator[Timing]:
    for size in sorted({1, batch_size(choose_device(get_settings().device))}):
        batch = [align_face(*sample.face(number)) for number in range(size)]
        yield _timing(
            "embed",
            seconds,
            partial(_embed_again, batch, model),
            size=size,
            model=model,
            things=size,
        )
    yield _timing(
        "picture_to_embedding",
        seconds,
        lambda run: _embed_file(_nth(sample.files, run), model),
        model=model,
    )


def _embed_again(batch: Sequence[np.ndarray], model: str, _run: int) -> None:
    embed_crops(batch, model)


def _embed_file(content: bytes, model: str) -> None:
    (outcome,), _embeddings = embed_uploads([content], model)
    if isinstance(outcome, RecognitionError):
        raise outcome


def _search(size: int, seconds: float) -> Timing:
    """Time searches in a temporary embedded database of random vectors; `MILVUS_URI` is not used."""
    chance = np.random.default_rng(size)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        store = LiteVectorStore(Path(folder) / "vectors.db", index=configured_index())
        try:
            for start in range(0, size, ROWS_AT_A_TIME):
                vectors = _unit_vectors(min(ROWS_AT_A_TIME, size - start), chance)
                rows = enumerate(vectors, start + 1)
                store.upsert(PARTITION, [VectorRow(n, v, "nobody", "", "") for n, v in rows])
            probes = list(_unit_vectors(100, chance))
            return _timing(
                "search",
                seconds,
                lambda run: store.search(PARTITION, _nth(probes, run)[None], NEAREST),
                size=size,
            )
        finally:
            store.close()


def _unit_vectors(count: int, chance: np.random.Generator) -> np.ndarray:
    vectors = chance.standard_normal((count, EMBEDDING_DIM), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _nth(items: Sequence[Item], number: int) -> Item:
    return items[number % len(items)]


def _timing(
    step: str,
    seconds: float,
    action: Callable[[int], object],
    *,
    size: int | None = None,
    model: str | None = None,
    things: int = 1,
) -> Timing:
    """Time `action(0)`, `action(1)`, … for `seconds`, after one warm-up run."""
    action(0)
    taken: list[float] = []
    while len(taken) < LEAST_RUNS or sum(taken) < seconds:
        begin = time.perf_counter()
        action(len(taken))
        taken.append(time.perf_counter() - begin)
    middle = median(taken)
    return Timing(
        step, len(taken), 1000 * middle, 1000 * min(taken), things / middle, size=size, model=model
    )
