"""Find the weights file of each model.

A user's checkpoint takes precedence over the bundled weights. A missing file is an error; weights
are never silently replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from recognition.conf import get_settings
from recognition.exceptions import WeightsUnavailable
from recognition.networks.device import CPU, choose_device
from recognition.networks.int8 import SUFFIX, made_from
from recognition.networks.registry import NETWORKS, get_network
from recognition.networks.runtime import openvino_version
from recognition.sentences import gettext

DIGEST_LENGTH: Final = 16  # hexadecimal digits of the file's SHA-256
_SUFFIXES: Final = (".ckpt", ".safetensors")  # the user's file first


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file and how it is used; `digest` identifies its contents."""

    path: Path
    digest: str
    flip_tta: bool = False

    @property
    def fingerprint(self) -> str:
        """The identifier of comparable vectors: the digest, and whether mirror images are used."""
        return f"{self.digest}_flip" if self.flip_tta else self.digest


def weights_files(name: str) -> Iterator[WeightsFile]:
    """Yield the existing float32 weights files of the model, the one in use first."""
    for path in _weights_paths(get_settings().weights_dir, get_network(name).weights_stem):
        if file := weights_file(path):
            yield file


def is_unchanged(weights: WeightsFile) -> bool:
    """Return whether the file still has the contents that it was found with."""
    return weights_file(weights.path) == weights


def int8_file(name: str) -> WeightsFile | None:
    """Return the int8 file of the model if there is one, also if it is not in use."""
    return weights_file(get_settings().weights_dir / f"{get_network(name).weights_stem}{SUFFIX}")


@lru_cache(maxsize=16)
def _weights_paths(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{stem}{suffix}" for suffix in _SUFFIXES]


def weights_file(path: Path) -> WeightsFile | None:
    """Return the file as it is now, None if it does not exist. Raise `WeightsUnavailable` if it cannot be
    read."""
    try:
        stat = path.stat()
        digest = _digest(path, stat.st_mtime_ns, stat.st_size)
        return WeightsFile(path, digest, get_settings().flip_tta)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsUnavailable(
            gettext(
                "The weights file %(file)s cannot be read. Give the server's user the right to read it, "
                "then run 'manage.py check'."
            )
            % {"file": path.name}
        ) from error


def find_weights(name: str) -> WeightsFile:
    """Return the weights file in use of the model. Raise `WeightsUnavailable` when there is none.

    Of a model that `INT8_MODELS` names it is the int8 file that was made from the first of the
    others; without it, or where int8 cannot run, it is none.
    """
    for file in weights_files(name):
        return _int8_of(name, file) if name in get_settings().int8_models else file
    raise WeightsUnavailable(
        gettext(
            "The model '%(name)s' has no weights on this server. Put its checkpoint into the weights "
            "folder as %(stem)s.ckpt or %(stem)s.safetensors, or have it fetched ('manage.py "
            "fetch_weights %(name)s' says how); then run 'manage.py reindex'."
        )
        % {"name": name, "stem": get_network(name).weights_stem}
    )


def _int8_of(name: str, weights: WeightsFile) -> WeightsFile:
    if obstacle := _int8_obstacle():
        message = gettext(
            "INT8_MODELS names '%(name)s', and only OpenVINO on a processor computes in int8. %(reason)s "
            "Set DEVICE=cpu and NETWORK_RUNTIME=auto, or take the model out of INT8_MODELS; then run "
            "'manage.py reindex'."
        )
        raise WeightsUnavailable(message % {"name": name, "reason": obstacle})
    file = int8_file(name)
    if file is None:
        message = gettext("INT8_MODELS names '%(name)s', and its file %(file)s is missing.")
        told = {"name": name, "file": f"{get_network(name).weights_stem}{SUFFIX}"}
        raise _int8_unavailable(name, message % told)
    source = made_from(file.path, file.digest)
    if not source:
        raise int8_does_not_run(name, file.path)
    if source[:DIGEST_LENGTH] != weights.digest:
        message = gettext("The int8 file %(file)s was made from other weights than %(weights)s.")
        told = {"file": file.path.name, "weights": weights.path.name}
        raise _int8_unavailable(name, message % told)
    return file


def _int8_obstacle() -> str:
    """Return why nothing can be computed in int8 here, empty if it can."""
    device = choose_device(get_settings().device)
    if device != CPU:
        return gettext("This server computes on %(device)s.") % {"device": device}
    if get_settings().network_runtime == "torch":
        return gettext("NETWORK_RUNTIME is 'torch'.")
    return "" if openvino_version() else gettext("openvino is not installed.")


def _int8_unavailable(name: str, reason: str) -> WeightsUnavailable:
    way_out = gettext(
        "Make it with 'python -m training.quantise %(name)s' (training/README.md says how), or take the "
        "model out of INT8_MODELS; then run 'manage.py reindex'."
    )
    return WeightsUnavailable(f"{reason} {way_out % {'name': name}}")


def int8_does_not_run(name: str, path: Path) -> WeightsUnavailable:
    """Return the error for an int8 file that cannot be read or gives unexpected embeddings."""
    message = gettext(
        "The int8 file %(file)s is damaged, or gives other embeddings on this processor than where it was "
        "made; the log says which."
    )
    return _int8_unavailable(name, message % {"file": path.name})


def has_weights(name: str) -> bool:
    """Return whether a weights file of the model exists; it may still fail to load."""
    try:
        return bool(find_weights(name))
    except WeightsUnavailable:
        return False


def usable_names() -> list[str]:
    """Return the models that have a weights file, the default one first."""
    names = [name for name in NETWORKS if has_weights(name)]
    return sorted(names, key=lambda name: name != get_settings().default_model)


@lru_cache(maxsize=16)
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    return file_hash(path)[:DIGEST_LENGTH]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits; of weights, `digest` is its beginning."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
