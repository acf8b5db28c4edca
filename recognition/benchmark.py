"""Time each step from a picture to the nearest faces in this process, without a server.

Nothing of the installation is changed: searches use the vector store that they are given.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import numpy as np
from PIL import Image

from recognition.alignment import TEMPLATE, align_face
from recognition.conf import get_settings
from recognition.detection import detect_faces
from recognition.embedding import crop_upload, embed_crops, embed_uploads
from recognition.evaluation import open_pictures
from recognition.exceptions import RecognitionError
from recognition.imaging import read_image
from recognition.inference import batch_size
from recognition.networks import load_network
from recognition.networks.device import choose_device
from recognition.networks.registry import EMBEDDING_DIM
from recognition.vector_store import VectorRow, VectorStore

MOST_PICTURES: Final = 20  # taken from a folder at even distances
MADE_UP_SIDE: Final = 1920  # pixels of the longer side
LEAST_RUNS: Final = 3
NEAREST: Final = 10
ROWS_AT_A_TIME: Final = 10_000
PROBES: Final = 100
VECTORS_OF_PERSON: Final = 4

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one step, and its throughput at the median.

    `step` is one of:

    - `decode`: the file of a crop, and its quality;
    - `detect`, `detect_largest`: all faces of a picture of `size` pixels, or only the largest;
    - `align`: one face;
    - `network`: a batch of `size` crops through the runtime of `model` alone;
    - `embed`: the same as requests have it;
    - `picture_to_embedding`: one file, all steps;
    - `faiss`, `search`: one face among `size` vectors, in a flat FAISS index or in the vector store.
    """

    step: str
    runs: int
    median_ms: float
    best_ms: float
    per_second: float
    size: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A step that can be timed: `action(0)`, `action(1)`, … each do it with `things` crops or searches.

    The other fields are those of its `Timing`.
    """

    step: str
    action: Callable[[int], object]
    size: int | None = None
    model: str | None = None
    things: int = 1

    def times(self, seconds: float) -> list[float]:
        """Return the seconds of each of so many runs as fit in `seconds`, after a warm-up run.

        Raise `RecognitionError` when the step fails.
        """
        self.action(0)
        taken: list[float] = []
        while len(taken) < LEAST_RUNS or sum(taken) < seconds:
            begin = time.perf_counter()
            self.action(len(taken))
            taken.append(time.perf_counter() - begin)
        return taken

    def timing(self, taken: Sequence[float]) -> Timing:
        """Return what these seconds of runs say."""
        middle = median(taken)
        return Timing(
            self.step,
            len(taken),
            1000 * middle,
            1000 * min(taken),
            self.things / middle,
            size=self.size,
            model=self.model,
        )

    def timed(self, seconds: float) -> Timing:
        """Time the step for about `seconds`."""
        return self.timing(self.times(seconds))


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

    def crops(self, count: int) -> list[np.ndarray]:
        """Return aligned faces, 112×112×3 uint8 RGB, of the pictures in turn."""
        return [align_face(*self.face(number)) for number in range(count)]

    def crop_files(self) -> list[bytes]:
        """Return one aligned face of each picture as a JPEG."""
        return [as_jpeg(crop) for crop in self.crops(len(self.images))]

    def photo_files(self, side: int) -> list[bytes]:
        """Return the pictures as JPEGs with a longer side of so many pixels."""
        return [as_jpeg(_of_side(image, side)) for image in self.images]

    def face(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture and 5×2 landmarks to align; made-up ones if no face was detected."""
        image, points = _nth(self.images, run), _nth(self.landmarks, run)
        return image, TEMPLATE * (image.shape[1] / 224) if points is None else points


def read_sample(root: Path | None, side: int = MADE_UP_SIDE) -> Sample:
    """Return some pictures of a folder or zip archive, or one synthetic picture without a face.

    The synthetic picture is `side` pixels wide.

    Raise `EvaluationError` or `RecognitionError` for unusable pictures.
    """
    if root is None:
        files = [_made_up_picture(side)]
    else:
        pictures = open_pictures(root)
        names = sorted(pictures.members)
        some = np.linspace(0, len(names) - 1, min(MOST_PICTURES, len(names))).round().astype(int)
        files = [content for _name, content in pictures.read([names[place] for place in some])]
    images = [read_image(content).pixels for content in files]
    found = [detect_faces(image) for image in images]
    return Sample(files, images, [faces[0].landmarks if faces else None for faces in found])


def _made_up_picture(side: int) -> bytes:
    spots = np.random.default_rng(0).integers(40, 200, (30, 40, 3), dtype=np.uint8)
    return as_jpeg(_of_side(spots, side))


def as_jpeg(image: np.ndarray) -> bytes:
    """Return an H×W×3 uint8 RGB picture as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def steps_of(
    sample: Sample, models: Sequence[str], sides: Sequence[int], batches: Sequence[int]
) -> Iterator[Step]:
    """Yield every step but the search, ready to be timed.

    `sides` are the sizes of the pictures to find faces in, in pixels, `batches` the numbers of crops
    to give a network at once.
    """
    files = sample.crop_files()
    yield Step("decode", lambda run: _decode(_nth(files, run)))
    yield from _detection(sample, sides)
    yield Step("align", lambda run: align_face(*sample.face(run)))
    for model in models:
        yield from _network(sample, model, batches)
        yield from _embedding(sample, model)


def _decode(file: bytes) -> None:
    crop_upload(file, use_face_detection=False)


def _network(sample: Sample, model: str, batches: Sequence[int]) -> Iterator[Step]:
    run = load_network(model).runtime.run
    for size in batches:
        action = partial(_run_again, run, np.stack(sample.crops(size)))
        yield Step("network", action, size=size, model=model, things=size)


def _run_again(run: Callable[[np.ndarray], object], batch: np.ndarray, _run: int) -> None:
    run(batch)


def _detection(sample: Sample, sides: Sequence[int]) -> Iterator[Step]:
    for side in sides:
        images = [_of_side(image, side) for image in sample.images]
        yield Step("detect", partial(_detect_in, images), size=side)
        yield Step("detect_largest", partial(_detect_in, images, all_faces=False), size=side)


def _detect_in(images: Sequence[np.ndarray], run: int, *, all_faces: bool = True) -> None:
    detect_faces(_nth(images, run), all_faces=all_faces)


def _of_side(image: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(image)
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _embedding(sample: Sample, model: str) -> Iterator[Step]:
    for size in sorted({1, batch_size(choose_device(get_settings().device))}):
        action = partial(_embed_again, sample.crops(size), model)
        yield Step("embed", action, size=size, model=model, things=size)
    yield Step(
        "picture_to_embedding",
        lambda run: _embed_file(_nth(sample.files, run), model),
        model=model,
    )


def _embed_again(batch: Sequence[np.ndarray], model: str, _run: int) -> None:
    embed_crops(batch, model)


def _embed_file(content: bytes, model: str) -> None:
    (outcome,), _embeddings = embed_uploads([content], model)
    if isinstance(outcome, RecognitionError):
        raise outcome


def measure_search(
    store: VectorStore, partition: str, size: int, seconds: float
) -> Iterator[Timing]:
    """Time searches among `size` vectors, by a flat FAISS index and in the store, which has them."""
    import faiss

    probes = list(made_up_probes())
    flat = faiss.IndexFlatIP(EMBEDDING_DIM)
    for _first, vectors in made_up_vectors(0, size):
        flat.add(vectors)
    yield Step("faiss", partial(_search_flat, flat, probes), size=size).timed(seconds)
    del flat  # a gigabyte and more
    yield Step(
        "search", lambda run: store.search(partition, _nth(probes, run)[None], NEAREST), size=size
    ).timed(seconds)


def _search_flat(index: Any, probes: Sequence[np.ndarray], run: int) -> None:
    index.search(_nth(probes, run)[None], NEAREST)


def made_up_rows(start: int, end: int) -> Iterator[list[VectorRow]]:
    """Yield the rows of the made-up vectors from number `start` to `end` (exclusive), many at a time.

    The id is the number plus one; four vectors belong to a person.
    """
    for first, vectors in made_up_vectors(start, end):
        yield [
            VectorRow(
                n + 1, vector, f"made-up-{n // VECTORS_OF_PERSON + 1}", f"made-up/{n}.jpg", ""
            )
            for n, vector in enumerate(vectors, first)
        ]


def made_up_vectors(start: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of the first, and N×512 float32 vectors of length 1 in random directions.

    A number has the same vector at every call.
    """
    for first in range(0, end, ROWS_AT_A_TIME):
        if first + ROWS_AT_A_TIME > start:
            count = min(ROWS_AT_A_TIME, end - first)
            vectors = _unit_vectors(count, np.random.default_rng(first))
            yield max(first, start), vectors[max(0, start - first) :]


def made_up_probes() -> np.ndarray:
    """Return 100×512 float32 vectors to search with, none of which is in a gallery."""
    return _unit_vectors(PROBES, np.random.default_rng((1, 1)))


def _unit_vectors(count: int, chance: np.random.Generator) -> np.ndarray:
    vectors = chance.standard_normal((count, EMBEDDING_DIM), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _nth(items: Sequence[Item], number: int) -> Item:
    return items[number % len(items)]
