"""Converted networks on disk, so that only the first start with new weights has to convert.

A form is a folder `STEM-DIGEST-openvino-VERSION-FORM` in `converted/` beside the weights, or in
`DATA_DIR/converted/` if the former is not writable. It holds the network and what torch answered to
the trial crops; a form that does not reproduce it is discarded.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from django.conf import settings as project

from recognition.networks.runtime import import_openvino, openvino_version

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

FOLDER: Final = "converted"
FORM: Final = 1  # increased when forms of earlier versions must not be used any more
_NETWORK: Final = "network.xml"
_EXPECTED: Final = "expected.npy"


def find_converted(weights: Path, digest: str) -> tuple[openvino.Model, np.ndarray] | None:
    """Return the stored form and the float32 it must answer to the four trial crops."""
    for folder in _folders(weights):
        form = folder / _name(weights, digest)
        if not form.is_dir():
            continue
        try:
            expected = np.load(form / _EXPECTED, allow_pickle=False)
            return import_openvino().Core().read_model(form / _NETWORK), expected
        except (OSError, ValueError, EOFError, RuntimeError) as error:
            logger.warning("%s cannot be read and is made anew: %s", form, error)
    return None


def has_converted(weights: Path, digest: str) -> bool:
    """Return whether there is a stored form of the weights."""
    return any((folder / _name(weights, digest)).is_dir() for folder in _folders(weights))


def keep_converted(
    model: openvino.Model,
    expected: np.ndarray,
    weights: Path,
    digest: str,
    *,
    others: Iterable[str],
) -> None:
    """Write the form atomically, and delete those of this model that are not in use any more.

    Forms of the digests in `others` are kept. If no folder is writable, the next start converts again.
    """
    for folder in _folders(weights):
        try:
            _write(folder, _name(weights, digest), model, expected)
        except (OSError, RuntimeError) as error:
            logger.info("A converted network cannot be kept in %s: %s", folder, error)
            continue
        wanted = {_name(weights, each) for each in (digest, *others)}
        for form in folder.glob(f"{weights.stem}-*"):
            if form.name not in wanted:
                shutil.rmtree(form, ignore_errors=True)
        return


def _folders(weights: Path) -> tuple[Path, Path]:
    return weights.parent / FOLDER, Path(project.DATA_DIR) / FOLDER


def _name(weights: Path, digest: str) -> str:
    return f"{weights.stem}-{digest}-openvino-{openvino_version()}-{FORM}"


def _write(folder: Path, name: str, model: openvino.Model, expected: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as scratch:
        fresh = Path(scratch, name)
        fresh.mkdir()
        import_openvino().save_model(model, fresh / _NETWORK, compress_to_fp16=False)
        np.save(fresh / _EXPECTED, expected)
        shutil.rmtree(folder / name, ignore_errors=True)
        try:
            fresh.rename(folder / name)
        except OSError:
            if not (folder / name).is_dir():  # else another process made it meanwhile
                raise
