"""Networks in int8 that `python -m training.quantise` made from float32 weights in advance.

A file `STEM.int8.npz` holds the quantised network in OpenVINO's format, the SHA-256 of the weights
that it was made from, and the embeddings that it gave for the trial crops where it was made. It is
a weights file of its own: its embeddings are never compared with those of float32, and its
thresholds are measured and stored for it alone.
"""

from __future__ import annotations

import logging
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from recognition.networks.runtime import (
    OpenVinoRuntime,
    agreement,
    import_openvino,
    trial_crops,
)
from recognition.threads import network_threads

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

SUFFIX: Final = ".int8.npz"
# Cosine with the embeddings of the processor that made the file, at the least. Processors with
# AVX-512 agree exactly; with AVX2 only, embeddings of faces have one of 0.998 and more.
LEAST_INT8_AGREEMENT: Final = 0.99


def is_int8(path: Path) -> bool:
    """Return whether this is the name of an int8 file."""
    return path.name.endswith(SUFFIX)


def write_int8(model: openvino.Model, path: Path, *, made_from: str) -> None:
    """Write a quantised network, which reads N×112×112×3 uint8 RGB, atomically.

    `made_from` is the full SHA-256 of the float32 weights.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as scratch:
        network = Path(scratch, "network.xml")
        import_openvino().save_model(model, network, compress_to_fp16=False)
        parts = {
            "network": np.frombuffer(network.read_bytes(), np.uint8),
            "constants": np.frombuffer(network.with_suffix(".bin").read_bytes(), np.uint8),
            "expected": OpenVinoRuntime(model, threads=network_threads()).run(trial_crops()),
            "made_from": np.array(made_from),
        }
        fresh = Path(scratch, path.name)
        np.savez_compressed(fresh, **parts)  # type: ignore[arg-type]
        fresh.replace(path)


@lru_cache(maxsize=16)
def made_from(path: Path, digest: str) -> str:
    """Return the SHA-256 of the float32 weights that the file with this digest was made from.

    It is empty if the file cannot be read; the log says why.
    """
    try:
        with np.load(path, allow_pickle=False) as parts:
            return str(parts["made_from"])
    except Exception as error:  # noqa: BLE001 (a damaged file fails in many ways)
        logger.warning("The int8 file %s, %s, cannot be read: %s", path, digest, error)
        return ""


def int8_runtime(path: Path) -> OpenVinoRuntime:
    """Return the network, ready to run. Raise an exception of any kind unless it gives, for the trial
    crops, nearly the embeddings that it gave where it was made."""
    with np.load(path, allow_pickle=False) as parts:
        network, constants, expected = (
            parts[name] for name in ("network", "constants", "expected")
        )
    openvino = import_openvino()
    model = openvino.Core().read_model(network.tobytes(), openvino.Tensor(constants))
    runtime = OpenVinoRuntime(model, threads=network_threads())
    runtime.name += ", int8"
    found = agreement(runtime.run(trial_crops()), expected)
    if found < LEAST_INT8_AGREEMENT:
        raise ValueError(f"The embeddings have a cosine of {found:.4f} with those expected.")
    return runtime
