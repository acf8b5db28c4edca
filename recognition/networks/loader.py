"""Weights files and the networks loaded from them: one of each a process, loaded at first use.

A user's checkpoint wins over the weights that come with the project. A file that is missing or does
not fit is an error that says so; there are no random weights and no silent substitutes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.utils.module_loading import import_string
from django.utils.translation import gettext

from recognition.conf import get_settings
from recognition.exceptions import WeightsUnavailable
from recognition.networks.registry import (
    CROP_SIZE,
    EMBEDDING_DIM,
    NETWORKS,
    FaceNetwork,
    get_network,
)

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DIGEST_LENGTH: Final = 16  # hexadecimal digits of the file's SHA-256
_SUFFIXES: Final = (".ckpt", ".safetensors")  # the user's file first
_STATE_DICT_KEYS: Final = ("model", "state_dict")

_loaded: dict[str, LoadedNetwork] = {}
_failed: dict[str, WeightsFile] = {}  # what did not load when it was last tried
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file on disk, and how it is used; `digest` tells its contents from any other's."""

    path: Path
    digest: str
    flip_tta: bool = False

    @property
    def fingerprint(self) -> str:
        """What vectors that may be compared have in common."""
        return f"{self.digest}_flip" if self.flip_tta else self.digest


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network in evaluation mode on its device, with the weights it was loaded from."""

    network: FaceNetwork
    module: torch.nn.Module
    weights: WeightsFile
    device: torch.device


def weights_files(name: str) -> list[WeightsFile]:
    """Every weights file of the model that is there, the one in use first."""
    network = get_network(name)
    folder = get_settings().weights_dir
    paths = [folder / f"{network.weights_stem}{suffix}" for suffix in _SUFFIXES]
    return [file for path in paths if (file := _weights_file(path))]


def _weights_file(path: Path) -> WeightsFile | None:
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
    """The weights file that serves the model `name`; raises `WeightsUnavailable` when there is none."""
    if files := weights_files(name):
        return files[0]
    raise WeightsUnavailable(
        gettext(
            "The model '%(name)s' has no weights on this server. Run 'manage.py fetch_weights %(name)s', "
            "or put its checkpoint into the weights folder as %(stem)s.ckpt or %(stem)s.safetensors; "
            "then run 'manage.py reindex'."
        )
        % {"name": name, "stem": get_network(name).weights_stem}
    )


def has_weights(name: str) -> bool:
    """Whether a weights file for the model is there (not whether it loads)."""
    try:
        return bool(find_weights(name))
    except WeightsUnavailable:
        return False


def usable_names() -> list[str]:
    """The models that have a weights file, the default one first."""
    names = [name for name in NETWORKS if has_weights(name)]
    return sorted(names, key=lambda name: name != get_settings().default_model)


def loaded_names() -> list[str]:
    """The models in this process's memory."""
    return [name for name in NETWORKS if name in _loaded]


def load_network(name: str) -> LoadedNetwork:
    """The model `name`, loaded once a process and again when its weights file was replaced."""
    weights = find_weights(name)
    if (loaded := _loaded.get(name)) and loaded.weights == weights:
        return loaded
    with _loading:
        if not (loaded := _loaded.get(name)) or loaded.weights != weights:
            loaded = _loaded[name] = _load(get_network(name), weights)
        return loaded


def load_failure(name: str) -> str | None:
    """Why the model did not load when it was last tried with the weights file that is there now."""
    weights = _failed.get(name)
    if weights is None or not has_weights(name) or find_weights(name) != weights:
        return None
    return _does_not_load(name, weights.path)


def _does_not_load(name: str, path: Path) -> str:
    return gettext(
        "The weights file %(file)s does not hold the model '%(name)s': it is damaged, incomplete or of "
        "another network. Replace it ('manage.py fetch_weights %(name)s' downloads a published one), "
        "then run 'manage.py reindex'. The log names the cause."
    ) % {"file": path.name, "name": name}


def unload_networks() -> None:
    """Forgets every loaded network, and with it its memory."""
    with _loading:
        _loaded.clear()
        _failed.clear()


@lru_cache(maxsize=16)
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]


def _load(network: FaceNetwork, weights: WeightsFile) -> LoadedNetwork:
    import torch

    settings = get_settings()
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = choose_device(settings.device)
    try:
        module = build(network, weights.path)
    except WeightsUnavailable:
        _failed[network.name] = weights
        raise
    module.to(device).to(memory_format=torch.channels_last)
    logger.info("Loaded %s from %s on %s", network.name, weights.path.name, device)
    return LoadedNetwork(network, module, weights, device)


def build(network: FaceNetwork, path: Path) -> torch.nn.Module:
    """The network with the weights in `path`, in evaluation mode on the processor.

    Every tensor must be there and fit, and a trial crop must come out as an embedding;
    `WeightsUnavailable` otherwise.
    """
    import torch

    module: torch.nn.Module = import_string(network.builder)()
    try:
        module.load_state_dict(_read_state_dict(path), strict=True)
    except Exception as error:  # noqa: BLE001 (a damaged file fails in many ways; all mean the same)
        logger.warning("Weights of %s at %s do not load: %s", network.name, path, error)
        raise WeightsUnavailable(_does_not_load(network.name, path)) from error
    module.eval().requires_grad_(False)
    with torch.inference_mode():
        output = module(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE))
    if output.shape != (1, EMBEDDING_DIM) or not bool(torch.isfinite(output).all()):
        raise WeightsUnavailable(
            gettext(
                "The weights file %(file)s of the model '%(name)s' gives no usable embedding. Replace it, "
                "then run 'manage.py reindex'."
            )
            % {"file": path.name, "name": network.name}
        )
    return module


def choose_device(wanted: str) -> torch.device:
    """The device to compute on: `auto` takes CUDA when present; a wish that cannot be met raises."""
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise WeightsUnavailable(
            gettext(
                "DEVICE=%(device)s is not to be had on this server. Set DEVICE to 'auto' or 'cpu' and "
                "restart; 'manage.py check' says what is wrong."
            )
            % {"device": wanted}
        ) from error
    return device


def _read_state_dict(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import argparse

    import torch

    # Published training checkpoints carry their command line; nothing else but tensors is let in.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    for key in _STATE_DICT_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
    return {key.removeprefix("module."): value for key, value in content.items()}
