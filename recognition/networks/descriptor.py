"""What is known of a weights file: where it is from, how well it recognises, when a match is one.

It stands beside the file as `<file name>.json`, and speaks only for the contents whose SHA-256 it
names: other weights under the same name have no descriptor until they are measured.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from recognition.networks.loader import DIGEST_LENGTH, WeightsFile


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cosine similarity, and the false-match rate it was measured to have."""

    similarity: float
    fmr: float  # share of impostor pairs at or above it
    impostor_pairs: int  # on how many it was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDescriptor:
    """`match` and `review` part hits into match, review and unknown; None where not measured.

    `flip_tta` says how they were measured, and `measured` with them.
    """

    sha256: str
    source: str = ""
    trained_on: str = ""
    licence: str = ""
    match: Threshold | None = None
    review: Threshold | None = None
    curve: list[Threshold] = field(default_factory=list)  # at other rates, for larger galleries
    measured: dict[str, Any] = field(default_factory=dict)  # figures, data and command
    flip_tta: bool = False


def full_hash(weights: WeightsFile) -> str:
    """The SHA-256 of a weights file, whole; the digest is its beginning."""
    with weights.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def descriptor_path(weights_path: Path) -> Path:
    """Where the descriptor of a weights file stands."""
    return weights_path.with_name(f"{weights_path.name}.json")


def read_descriptor(weights: WeightsFile) -> WeightsDescriptor | None:
    """The descriptor of exactly these weights; None when there is none, or it speaks of others.

    What was measured with another `FLIP_TTA` than the one in force is left out: the mean of two
    embeddings has other similarities.
    """
    try:
        content = json.loads(descriptor_path(weights.path).read_text("utf-8"))
        known = {item.name for item in fields(WeightsDescriptor)}
        values = {key: value for key, value in content.items() if key in known}
        for name in ("match", "review"):
            if values.get(name):
                values[name] = _threshold(values[name])
        values["curve"] = [_threshold(point) for point in values.get("curve", [])]
        descriptor = WeightsDescriptor(**values)
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


def _threshold(stored: dict[str, Any]) -> Threshold:
    """As it is stored; version 1.0 wrote the rate as `far`."""
    return Threshold(**{"fmr" if key == "far" else key: value for key, value in stored.items()})


def write_descriptor(weights: WeightsFile, descriptor: WeightsDescriptor) -> Path:
    """Puts the descriptor beside its file, whole or not at all, as measured with this `FLIP_TTA`."""
    descriptor = replace(descriptor, flip_tta=weights.flip_tta)
    path = descriptor_path(weights.path)
    fresh = path.with_name(f"{path.name}.part")
    fresh.write_text(json.dumps(asdict(descriptor), indent=1, ensure_ascii=False) + "\n", "utf-8")
    fresh.replace(path)
    return path


def update_descriptor(weights: WeightsFile, **changes: Any) -> tuple[WeightsDescriptor, Path]:
    """Writes what has become known of a file beside what is known already."""
    known = read_descriptor(weights) or WeightsDescriptor(sha256=full_hash(weights))
    descriptor = replace(known, **changes)
    return descriptor, write_descriptor(weights, descriptor)
