"""Aligned face crops from folders and zip archives, all held in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from recognition.networks.registry import CROP_SIZE

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
NOBODY = -1  # the person of a crop whose identity is unknown


@dataclass(frozen=True)
class Faces:
    """N aligned crops in memory; `people` indexes `names_of_people`, `NOBODY` where unknown."""

    names: np.ndarray  # N file stems
    images: np.ndarray  # N×112×112×3 uint8 RGB
    people: np.ndarray  # N int64
    names_of_people: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: np.ndarray) -> Faces:
        """The crops at `index`, with people numbered anew from 0."""
        people = self.people[index]
        present = np.unique(people[people != NOBODY])
        renumbered = np.searchsorted(present, people)
        return Faces(
            self.names[index],
            self.images[index],
            np.where(people == NOBODY, NOBODY, renumbered),
            [self.names_of_people[i] for i in present],
        )


def read_faces(sources: Sequence[str | Path]) -> Faces:
    """Reads every crop below the sources.

    A source is a folder or a zip archive, or a folder inside one (`faces.zip/train`). The folder a
    crop lies in names its person; crops directly in the source have no person. Pictures of another
    size are scaled to 112×112.
    """
    names, images, owners = [], [], []
    for source in sources:
        before = len(names)
        for path, content in _files(Path(source)):
            names.append(path.stem)
            owners.append("/".join(path.parts[:-1]))
            images.append(_decode(content))
        if len(names) == before:
            raise SystemExit(f"{source} holds no pictures. Give a folder or zip of aligned crops.")
    known = sorted(set(owners) - {""})
    numbers = {name: number for number, name in enumerate(known)} | {"": NOBODY}
    people = np.array([numbers[owner] for owner in owners], np.int64)
    return Faces(np.array(names), np.stack(images), people, known)


def split_people(faces: Faces, share: float, seed: int) -> tuple[Faces, Faces]:
    """Training faces and held-out faces: `share` of the people with two pictures or more."""
    counts = np.bincount(faces.people[faces.people != NOBODY])
    several = np.flatnonzero(counts >= 2)
    chosen = np.random.default_rng(seed).choice(several, int(len(several) * share), replace=False)
    held = np.isin(faces.people, chosen)
    return faces.subset(np.flatnonzero(~held)), faces.subset(np.flatnonzero(held))


def read_teacher(files: Iterable[str | Path], names: Sequence[str]) -> np.ndarray:
    """The teacher's N×D float32 vectors of the crops called `names`.

    Each `.npz` holds `names` (file stems) and `embedding`. A crop that none of the files knows is
    an error: training on a part of the teacher by accident would go unnoticed.
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
    return np.stack([known[name] for name in names]).astype(np.float32)


def _decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        image = image.convert("RGB")
        if image.size != (CROP_SIZE, CROP_SIZE):
            image = image.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BICUBIC)
        return np.asarray(image)


def _files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Every picture's path inside the source, in order, with its bytes."""
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
