"""Measures models on labelled pictures: verification of pairs, and identification of people.

The pictures take the same path as everybody's: read, detect, align, embed. The arithmetic of the
figures is in `recognition.metrics`.
"""

from __future__ import annotations

import csv
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

import numpy as np
from django.utils.translation import gettext

from recognition.conf import get_settings
from recognition.embedding import CroppedUpload, crop_uploads, embed_crops
from recognition.metrics import (
    equal_error_rate,
    rank_k_rate,
    tar_at_fmr,
    threshold_at_fmr,
    verification_accuracy,
)
from recognition.networks.descriptor import Threshold

FOLDS: Final = 10
FMRS: Final = (0.01, 0.001)
CURVE_FMRS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
REVIEW_FMR_FACTOR: Final = 10
FALSE_MATCHES: Final = 10  # that a threshold must stand on: fewer are chance
CHUNK: Final = 256  # crops held before they are embedded

Wrapper = Callable[[Iterable[Any], int], Iterable[Any]]


class EvaluationError(Exception):
    """The pictures or pairs given cannot be measured; the text says why and what to give."""


class Pair(NamedTuple):
    """Two pictures by name, and whether they show one person."""

    first: str
    second: str
    same: bool


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures of a folder or zip archive, by name; the person is the folder one is in.

    A picture's name is its file's stem, or, where several files have that one, `folder/stem`.
    """

    root: Path
    members: dict[str, str]  # name → path inside
    people: dict[str, str]  # name → person

    def read(self, stems: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """File name and bytes of each picture, in order."""
        if self.root.is_dir():
            for stem in stems:
                path = self.root / self.members[stem]
                yield path.name, path.read_bytes()
            return
        with zipfile.ZipFile(self.root) as archive:
            for stem in stems:
                yield PurePath(self.members[stem]).name, archive.read(self.members[stem])


def open_pictures(root: Path) -> PictureSet:
    """The pictures of a folder (searched deeply) or of a zip archive."""
    if root.is_dir():
        names = [str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_file()]
    elif zipfile.is_zipfile(root):
        with zipfile.ZipFile(root) as archive:
            names = sorted(archive.namelist())
    else:
        raise EvaluationError(
            gettext("%(path)s is neither a folder nor a zip archive of pictures.") % {"path": root}
        )
    allowed = get_settings().allowed_extensions
    paths = [PurePath(n) for n in names if n.lower().rsplit(".", 1)[-1] in allowed]
    stems = Counter(path.stem for path in paths)
    members: dict[str, str] = {}
    people: dict[str, str] = {}
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"
        if name in members:
            raise EvaluationError(
                gettext("Two pictures are called %(name)s; file names must differ.")
                % {"name": name}
            )
        members[name], people[name] = str(path), path.parent.name
    if not members:
        raise EvaluationError(
            gettext("There is no picture in %(path)s; expected: %(allowed)s.")
            % {"path": root, "allowed": ", ".join(allowed)}
        )
    return PictureSet(root, members, people)


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a CSV (image_a, image_b, same: 1 or 0) or of LFW's `pairs.txt`."""
    lines = path.read_text("utf-8").splitlines()
    if lines and lines[0].replace(" ", "").lower().startswith("image_a,"):
        pairs = [
            Pair(row["image_a"], row["image_b"], row["same"].strip() == "1")
            for row in csv.DictReader(lines, skipinitialspace=True)
        ]
    else:
        pairs = [
            _lfw_pair(line, number) for number, line in enumerate(lines[1:], 2) if line.strip()
        ]
    if not pairs:
        raise EvaluationError(gettext("There is no pair in %(file)s.") % {"file": path.name})
    return pairs


def _lfw_pair(line: str, number: int) -> Pair:
    match line.split("\t") if "\t" in line else line.split():
        case [name, first, second] if first.isdigit() and second.isdigit():
            return Pair(f"{name}_{int(first):04d}", f"{name}_{int(second):04d}", True)
        case [name, first, other, second] if first.isdigit() and second.isdigit():
            return Pair(f"{name}_{int(first):04d}", f"{other}_{int(second):04d}", False)
    raise EvaluationError(
        gettext(
            "Line %(number)d of the pairs is neither 'name n m' nor 'name n other m', and the file "
            "does not start with the CSV header image_a,image_b,same."
        )
        % {"number": number}
    )


@dataclass(frozen=True, slots=True)
class Gallery:
    """Embeddings of pictures by every model: N×512 float32 each, rows in the order of `stems`.

    `stems` are the names that `PictureSet` gives; `unusable` says by file why it is left out.
    """

    stems: list[str]
    vectors: dict[str, np.ndarray]
    fingerprints: dict[str, str]
    without_face: int
    unusable: dict[str, str]

    @property
    def places(self) -> dict[str, int]:
        return {stem: place for place, stem in enumerate(self.stems)}


def embed_pictures(
    pictures: PictureSet,
    stems: Sequence[str],
    models: Sequence[str],
    *,
    detect: bool,
    track: Wrapper = lambda items, total: items,
) -> Gallery:
    """Embeds the pictures by each of the models; faces are looked for once for all of them.

    Raises `EvaluationError` when none of them can be used.
    """
    used: list[str] = []
    unusable: dict[str, str] = {}
    parts: dict[str, list[np.ndarray]] = {model: [] for model in models}
    fingerprints: dict[str, str] = {}
    held: list[np.ndarray] = []
    without_face = 0

    def embed_held() -> None:
        for model in models:
            embeddings = embed_crops(held, model)
            parts[model].append(embeddings.vectors)
            fingerprints[model] = embeddings.fingerprint
        held.clear()

    items = crop_uploads(pictures.read(stems), detect=detect)
    for stem, item in zip(stems, track(items, len(stems)), strict=True):
        if not isinstance(item, CroppedUpload):
            unusable[pictures.members[stem]] = str(item)
            continue
        used.append(stem)
        without_face += item.crop.face is None
        held.append(item.crop.pixels)
        if len(held) == CHUNK:
            embed_held()
    if not used:
        raise EvaluationError(": ".join(next(iter(unusable.items()))))
    embed_held()
    vectors = {model: np.concatenate(arrays) for model, arrays in parts.items()}
    return Gallery(used, vectors, fingerprints, without_face, unusable)


@dataclass(frozen=True, slots=True)
class Verification:
    """Scores of pairs and the figures drawn from them; rates are shares, thresholds cosines."""

    similarities: np.ndarray
    same: np.ndarray

    @property
    def is_enough(self) -> bool:
        """Whether each of the folds gets a pair of one person and one of different people."""
        return min(self.same.sum(), (~self.same).sum()) >= FOLDS

    def figures(self, fmr: float) -> dict[str, Any]:
        """Raises `EvaluationError` when there are fewer pairs of a kind than folds."""
        if not self.is_enough:
            raise EvaluationError(
                gettext(
                    "There are %(genuine)d pairs of one person and %(impostors)d of different people; "
                    "at least %(least)d of each are needed. Give more pairs or pictures."
                )
                % {
                    "genuine": self.same.sum(),
                    "impostors": (~self.same).sum(),
                    "least": FOLDS,
                }
            )
        accuracy = verification_accuracy(self.similarities, self.same, FOLDS)
        error = equal_error_rate(self.similarities, self.same)
        return {
            "genuine_pairs": int(self.same.sum()),
            "impostor_pairs": int((~self.same).sum()),
            "accuracy": accuracy.mean,
            "accuracy_standard_error": accuracy.standard_error,
            "accuracy_threshold": accuracy.threshold,
            "eer": error.rate,
            **{
                f"tar_at_fmr_{rate:g}": tar_at_fmr(self.similarities, self.same, rate)
                for rate in FMRS
            },
            "fmr": fmr,
            "threshold_at_fmr": threshold_at_fmr(self.similarities, self.same, fmr),
            "tar_at_threshold": tar_at_fmr(self.similarities, self.same, fmr),
        }


def verify_pairs(
    vectors: np.ndarray, places: dict[str, int], pairs: Sequence[Pair]
) -> Verification:
    """The similarity of every pair; vectors are N×D of length 1, `places` finds a stem's row."""
    first = vectors[[places[pair.first] for pair in pairs]]
    second = vectors[[places[pair.second] for pair in pairs]]
    return Verification((first * second).sum(1), np.array([pair.same for pair in pairs]))


def verify_all(vectors: np.ndarray, people: Sequence[str]) -> Verification:
    """The similarity of every picture with every other; vectors are N×D float32 of length 1."""
    labels = np.asarray(people)
    following = range(1, len(labels))
    scores = [vectors[place:] @ vectors[place - 1] for place in following]
    same = [labels[place:] == labels[place - 1] for place in following]
    return Verification(
        np.concatenate([np.empty(0, np.float32), *scores]),
        np.concatenate([np.empty(0, bool), *same]),
    )


def missing_pictures(pairs: Iterable[Pair], known: Iterable[str]) -> list[str]:
    """The pictures that pairs name and nobody has."""
    return sorted({stem for pair in pairs for stem in pair[:2]} - set(known))


def review_fmr(fmr: float) -> float:
    """`review` starts where ten times as many strangers would come through as at `match`."""
    return min(fmr * REVIEW_FMR_FACTOR, 0.5)


def impostor_scores(vectors: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """The similarities of all pairs of different people; `vectors` is N×D float32 of length 1."""
    pairs = verify_all(vectors, people)
    return pairs.similarities[~pairs.same]


def impostor_curve(scores: np.ndarray) -> list[Threshold]:
    """The thresholds at the rates of `CURVE_FMRS` that so many scores can tell."""
    measurable = [fmr for fmr in CURVE_FMRS if len(scores) * fmr >= FALSE_MATCHES]
    return [threshold_of_impostors(scores, fmr) for fmr in measurable]


def threshold_of_impostors(scores: np.ndarray, fmr: float) -> Threshold:
    """The lowest similarity, in steps of 0.0001, that at most the share `fmr` of the scores reach."""
    if len(scores) * fmr < FALSE_MATCHES:
        raise EvaluationError(
            gettext(
                "A threshold for a false-match rate of %(fmr)g needs at least %(least)d pairs of "
                "different people; these pictures make %(given)d. Give more pictures or a larger rate."
            )
            % {"fmr": fmr, "least": int(FALSE_MATCHES / fmr), "given": len(scores)}
        )
    allowed = int(len(scores) * fmr)
    value = float(np.partition(scores, -allowed - 1)[-allowed - 1])
    return Threshold(round(float(np.nextafter(value, 2)) + 5e-5, 4), fmr, len(scores))


def identification(vectors: np.ndarray, people: Sequence[str]) -> dict[str, Any]:
    """Closed-set identification: each person's first picture is the gallery, the others are probes."""
    labels = np.asarray(people)
    _names, first = np.unique(labels, return_index=True)
    gallery = np.zeros(len(labels), bool)
    gallery[first] = True
    if gallery.all():
        raise EvaluationError(gettext("Identification needs persons with two pictures or more."))
    scores = vectors[~gallery] @ vectors[gallery].T
    rates = {f"rank_{k}": rank_k_rate(scores, labels[~gallery], labels[gallery], k) for k in (1, 5)}
    return {"persons": int(gallery.sum()), "probes": int((~gallery).sum()), **rates}


def read_descriptors(path: Path) -> tuple[dict[str, int], np.ndarray]:
    """Ready-made vectors to measure beside the models: an .npz of `names` and `embedding` (N×D).

    They are centred on their mean and normalised, as their cosine is compared.
    """
    with np.load(path) as content:
        names, vectors = content["names"], content["embedding"].astype(np.float32)
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {str(name): place for place, name in enumerate(names)}, vectors


def plot(
    results: dict[str, Verification],
    path: Path,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Draws ROC curves (false-match rate on a logarithmic axis) and score histograms as a PNG.

    `thresholds` are similarities to mark in the histogram of each result, by their names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * (1 + len(results)), 5), layout="constrained")
    FigureCanvasAgg(figure)
    roc, *histograms = figure.subplots(1, 1 + len(results), squeeze=False)[0]
    for (name, result), axes in zip(results.items(), histograms, strict=True):
        scores, same = result.similarities, result.same
        order = np.argsort(-scores)
        accepted = np.cumsum(~same[order]) / (~same).sum()
        roc.plot(accepted, np.cumsum(same[order]) / same.sum(), label=name)
        bins = np.linspace(scores.min(), scores.max(), 60)
        # By shares: there are many more pairs of different people than of the same person.
        axes.hist(scores[~same], bins, density=True, alpha=0.6, label="different people")
        axes.hist(scores[same], bins, density=True, alpha=0.6, label="same person")
        for label, value in (thresholds or {}).get(name, {}).items():
            axes.axvline(value, linestyle="--", color="black", alpha=0.6)
            axes.text(value, axes.get_ylim()[1], f"{label} ", rotation=90, ha="right", va="top")
        axes.set(title=name, xlabel="cosine similarity", ylabel="density of pairs")
        axes.legend()
    roc.set(
        xscale="log",
        xlim=(1e-4, 1),
        ylim=(0, 1.01),
        xlabel="false-match rate (FMR)",
        ylabel="true accept rate (TAR)",
        title="ROC",
    )
    roc.grid(alpha=0.3)
    roc.legend()
    figure.savefig(path, dpi=110)
