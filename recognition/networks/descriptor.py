"""Descriptors of weights files: origin, measured accuracy and decision thresholds.

A descriptor is stored beside its file as `<file name>.json` and is valid only for the contents with
its SHA-256. Other weights under the same name have no descriptor until they are measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from recognition.networks.weights import DIGEST_LENGTH, WeightsFile, file_hash
from recognition.private_file import AS_USUAL, whole_file


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cosine similarity and its measured false-match rate."""

    similarity: float
    fmr: float  # share of impostor pairs at or above it
    impostor_pairs: int  # number of impostor pairs measured


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDescriptor:
    """What is known of a weights file.

    `match` and `review` are the decision thresholds, None if not measured. `flip_tta` says whether
    they and `measured` were measured with mirror images.
    """

    sha256: str
    source: str = ""
    trained_on: str = ""
    licence: str = ""
    match: Threshold | None = None
    review: Threshold | None = None
    curve: list[Threshold] = field(default_factory=list)  # at further rates, for larger galleries
    measured: dict[str, Any] = field(default_factory=dict)  # figures, data and command
    flip_tta: bool = False


def descriptor_path(weights_path: Path) -> Path:
    """Return the path of the descriptor of a weights file."""
    return weights_path.with_name(f"{weights_path.name}.json")


def read_descriptor(weights: WeightsFile) -> WeightsDescriptor | None:
    """Return the descriptor of exactly these weights, or None.

    Thresholds measured with another `FLIP_TTA` than the current one are left out, because averaging
    two embeddings changes the similarities.
    """
    path = descriptor_path(weights.path)
    try:
        stat = path.stat()
        descriptor = _read(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if descriptor.sha256[:DIGEST_LENGTH] != weights.digest:
        return None
    if descriptor.flip_tta != weights.flip_tta:
        flip_tta = weights.flip_tta
        return replace(
            descriptor, match=None, review=None, curve=[], measured={}, flip_tta=flip_tta
        )
    return descriptor


@lru_cache(maxsize=16)
def _read(path: Path, _mtime_ns: int, _size: int) -> WeightsDescriptor:
    """Return what the file says, which is read once for each state of it: every search asks."""
    content = json.loads(path.read_text("utf-8"))
    known = {item.name for item in fields(WeightsDescriptor)}
    values = {key: value for key, value in content.items() if key in known}
    for name in ("match", "review"):
        if values.get(name):
            values[name] = _threshold(values[name])
    values["curve"] = [_threshold(point) for point in values.get("curve", [])]
    return WeightsDescriptor(**values)


def _threshold(stored: dict[str, Any]) -> Threshold:
    """Return a stored threshold; version 1.0 stored the rate as `far`."""
    return Threshold(**{"fmr" if key == "far" else key: value for key, value in stored.items()})


def write_descriptor(weights: WeightsFile, descriptor: WeightsDescriptor) -> Path:
    """Write the descriptor beside its file atomically, with the current `FLIP_TTA`; return its
    path."""
    descriptor = replace(descriptor, flip_tta=weights.flip_tta)
    path = descriptor_path(weights.path)
    content = json.dumps(asdict(descriptor), indent=1, ensure_ascii=False) + "\n"
    with whole_file(path, AS_USUAL) as file:
        file.write(content.encode())
    return path


def update_descriptor(weights: WeightsFile, **changes: Any) -> tuple[WeightsDescriptor, Path]:
    """Change fields of the descriptor, or create it; return it and its path."""
    known = read_descriptor(weights) or WeightsDescriptor(sha256=file_hash(weights.path))
    descriptor = replace(known, **changes)
    return descriptor, write_descriptor(weights, descriptor)
