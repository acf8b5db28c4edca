"""Aligned face crops: read from folders and zip archives, and stored decoded in one file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from recognition.networks.registry import CROP_SIZE

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
NOBODY = -1  # person number of a crop whose identity is unknown
IMAGES, INDEX = "images.u8", "index.npz"  # the files of a pack
SHAPE = (CROP_SIZE, CROP_SIZE, 3)
BYTES = CROP_SIZE * CROP_SIZE * 3


class Crop(NamedTuple):
    """A picture file: its stem, the folder that names its person ("" if unknown), suffix and bytes."""

    name: str
    folder: str
    suffix: str
    content: bytes


@dataclass(frozen=True)
class Faces:
    """N aligned crops; `people` indexes `names_of_people`, or is `NOBODY`.

    `images` is in memory, or memory-mapped from the file of a pack.
    """

    names: np.ndarray  # N file stems
    images: np.ndarray  # N×112×112×3 uint8 RGB
    people: np.ndarray  # N int64
    names_of_people: list[str]

    def __len__(self) -> int:
        return len(self.images)


def read_crops(source: str | Path) -> Iterator[Crop]:
    """Yield every picture of a folder, a zip archive, or a folder inside one, in order.

    The folder of a crop names its person; crops directly in the source have no person. Raise
    `SystemExit` if there is none.
    """
    found = False
    for path, content in _files(Path(source)):
        found = True
        yield Crop(path.stem, "/".join(path.parts[:-1]), path.suffix, content)
    if not found:
        raise SystemExit(f"{source} holds no pictures. Give a folder or zip of aligned crops.")


def decode(content: bytes) -> np.ndarray:
    """Decode a picture file to 112×112×3 uint8 RGB, resized if needed. Raise `SystemExit`."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit("A picture could not be read. Take it out, and pack again.")
    if image.shape != SHAPE:
        image = cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    return image[..., ::-1]


def open_pack(folder: Path) -> Faces:
    """Return the crops that `python -m training.pack decode` stored, memory-mapped."""
    if not (folder / INDEX).exists():
        raise SystemExit(f"{folder} holds no packed crops. Make it: python -m training.pack decode")
    with np.load(folder / INDEX) as index:
        names, owners = index["names"], index["owners"]
    known, people = np.unique(owners, return_inverse=True)
    people = people.astype(np.int64)
    if len(known) and known[0] == "":
        known, people = known[1:], people - 1  # "" sorts first and becomes NOBODY
    images = np.memmap(folder / IMAGES, np.uint8, "r", shape=(len(names), *SHAPE))
    return Faces(names, images, people, known.tolist())


def people_with_several(people: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return N booleans: the crops of a random `share` of the people with two crops or more."""
    counts = np.bincount(people[people != NOBODY], minlength=1)
    several = np.flatnonzero(counts >= 2)
    chosen = np.random.default_rng(seed).choice(several, int(len(several) * share), replace=False)
    return np.isin(people, chosen)


def read_teacher(files: Iterable[str | Path], names: Sequence[str]) -> np.ndarray:
    """Return the teacher's vectors of the crops called `names`, N×D float32 of length 1.

    Each `.npz` has `names` (file stems) and `embedding`. Raise `SystemExit` if a crop is in none of
    the files, so that nobody trains on part of the teacher by mistake.
    """
    known: dict[str, np.ndarray] = {}
    for file in files:
        with np.load(file) as content:
            known.update(zip(content["names"].tolist(), content["embedding"], strict=True))
    if missing := [name for name in names if name not in known]:
        raise SystemExit(
            f"The teacher has no vector for {len(missing)} of {len(names)} crops, "
            f"{missing[0]} among them. Compute them, or train without --teacher."
        )
    vectors = np.stack([known[name] for name in names]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield every picture's path inside the source, in order, and its bytes."""
    archive = next(
        (p for p in (source, *source.parents) if p.suffix == ".zip" and p.is_file()), None
    )
    if archive is None:
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield PurePosixPath(path.relative_to(source).as_posix()), path.read_bytes()
        return
    inside = PurePosixPath(source.relative_to(archive).as_posix())
    with zipfile.ZipFile(archive) as content:
        for name in sorted(content.namelist()):
            path = PurePosixPath(name)
            if path.suffix.lower() in SUFFIXES and path.is_relative_to(inside):
                yield path.relative_to(inside), content.read(name)
