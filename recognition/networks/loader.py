"""Find weights files and load networks, each once a process, at first use.

A user's checkpoint takes precedence over the bundled weights. A missing or unsuitable file is an
error; weights are never random or silently replaced.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from recognition.conf import get_settings
from recognition.exceptions import WeightsUnavailable
from recognition.networks.converted import find_converted, keep_converted
from recognition.networks.device import CPU, choose_device
from recognition.networks.registry import (
    CROP_SIZE,
    EMBEDDING_DIM,
    NETWORKS,
    FaceNetwork,
    get_network,
)
from recognition.networks.runtime import (
    LEAST_AGREEMENT,
    OpenVinoRuntime,
    Runtime,
    TorchRuntime,
    agreement,
    convert_to_openvino,
    openvino_version,
    trial_crops,
)
from recognition.threads import network_threads, size_threads

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DIGEST_LENGTH: Final = 16  # hexadecimal digits of the file's SHA-256
_SUFFIXES: Final = (".ckpt", ".safetensors")  # the user's file first
_STATE_DICT_KEYS: Final = ("model", "state_dict")

_loaded: dict[str, LoadedNetwork] = {}
_failed: dict[str, WeightsFile] = {}  # weights that failed to load the last time
_loading = threading.Lock()
_of_parent: list[dict[str, LoadedNetwork]] = []


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


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network that is ready to run on its device, with the weights it was loaded from."""

    network: FaceNetwork
    runtime: Runtime
    weights: WeightsFile
    fallback: str | Promise = ""  # why another runtime than the fastest runs it

    @property
    def device(self) -> str:
        """Return the device by its torch name."""
        return self.runtime.device


def weights_files(name: str) -> Iterator[WeightsFile]:
    """Yield the existing weights files of the model, the one in use first."""
    for path in _weights_paths(get_settings().weights_dir, get_network(name).weights_stem):
        if file := _weights_file(path):
            yield file


@lru_cache(maxsize=16)
def _weights_paths(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{stem}{suffix}" for suffix in _SUFFIXES]


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
    """Return the weights file in use of the model. Raise `WeightsUnavailable` when there is none."""
    for file in weights_files(name):
        return file
    raise WeightsUnavailable(
        gettext(
            "The model '%(name)s' has no weights on this server. Put its checkpoint into the weights "
            "folder as %(stem)s.ckpt or %(stem)s.safetensors, or have it fetched ('manage.py "
            "fetch_weights %(name)s' says how); then run 'manage.py reindex'."
        )
        % {"name": name, "stem": get_network(name).weights_stem}
    )


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


def loaded_networks() -> list[LoadedNetwork]:
    """Return the networks in this process's memory."""
    return [loaded for name in NETWORKS if (loaded := _loaded.get(name))]


def loaded_names() -> list[str]:
    """Return the names of the models in this process's memory."""
    return [name for name in NETWORKS if name in _loaded]


def load_network(name: str) -> LoadedNetwork:
    """Return the model, loaded once a process and again after its weights file was replaced."""
    weights = find_weights(name)
    if (loaded := _loaded.get(name)) and loaded.weights == weights:
        return loaded
    with _loading:
        if not (loaded := _loaded.get(name)) or loaded.weights != weights:
            loaded = _loaded[name] = _load(get_network(name), weights)
        return loaded


def load_failure(name: str) -> str | None:
    """Return why the current weights file failed to load the last time, or None."""
    weights = _failed.get(name)
    if weights is None or not has_weights(name) or find_weights(name) != weights:
        return None
    return _does_not_load(name, weights.path)


def _does_not_load(name: str, path: Path) -> str:
    return gettext(
        "The weights file %(file)s does not hold the model '%(name)s': it is damaged, incomplete or of "
        "another network. Put a whole one in its place ('manage.py fetch_weights %(name)s' says how to "
        "fetch one), then run 'manage.py reindex'. The log names the cause."
    ) % {"file": path.name, "name": name}


def _forget_networks() -> None:
    """Load the networks anew after a fork, as the threads of their runtimes exist in the parent only."""
    global _loading, _loaded
    _of_parent.append(_loaded)  # the end of a runtime would wait for those threads
    _loading, _loaded = threading.Lock(), {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_networks)


def unload_networks() -> None:
    """Drop all loaded networks and release their memory."""
    with _loading:
        _loaded.clear()
        _failed.clear()


@lru_cache(maxsize=16)
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]


def _load(network: FaceNetwork, weights: WeightsFile) -> LoadedNetwork:
    size_threads()
    try:
        runtime, fallback = _runtime(network, weights)
    except WeightsUnavailable:
        _failed[network.name] = weights
        raise
    loaded = LoadedNetwork(network, runtime, weights, fallback)
    logger.info(
        "Loaded %s from %s on %s by %s%s",
        network.name,
        weights.path.name,
        runtime.device,
        runtime.name,
        f": {fallback}" if fallback else "",
    )
    return loaded


def _runtime(network: FaceNetwork, weights: WeightsFile) -> tuple[Runtime, str | Promise]:
    """Return the fastest runtime for the network and, if it is only a fallback, the reason."""
    device = choose_device(get_settings().device)
    if device != CPU:
        return _torch_runtime(build(network, weights.path), device), ""
    if get_settings().network_runtime == "torch":
        return _torch_runtime(build(network, weights.path)), _("NETWORK_RUNTIME is 'torch'.")
    if openvino_version() is None:
        return _torch_runtime(build(network, weights.path)), _("openvino is not installed.")
    if runtime := _kept_runtime(weights):
        return runtime, ""
    module = build(network, weights.path)
    expected = TorchRuntime(module).run(trial_crops())
    try:
        model = convert_to_openvino(module)
        runtime = OpenVinoRuntime(model, threads=network_threads())
        if agreement(runtime.run(trial_crops()), expected) >= LEAST_AGREEMENT:
            others = {other.digest for other in weights_files(network.name)}
            keep_converted(model, expected, weights.path, weights.digest, others=others)
            return runtime, ""
        logger.error("OpenVINO gives other embeddings for %s than torch", network.name)
        fallback = _("OpenVINO gives other embeddings than torch on this processor.")
    except Exception:  # noqa: BLE001 (a compiler fails in many ways; torch does what it would have done)
        logger.exception("OpenVINO does not run %s", network.name)
        fallback = _("OpenVINO does not run this network here; the log says why.")
    return _torch_runtime(module), fallback


def _kept_runtime(weights: WeightsFile) -> Runtime | None:
    """Return the form converted at an earlier start if it still gives the same embeddings."""
    found = find_converted(weights.path, weights.digest)
    if found is None:
        return None
    model, expected = found
    try:
        runtime = OpenVinoRuntime(model, threads=network_threads())
        if agreement(runtime.run(trial_crops()), expected) >= LEAST_AGREEMENT:
            return runtime
        logger.warning("The converted form of %s gives other embeddings", weights.path.name)
    except Exception:  # noqa: BLE001 (as when it is converted)
        logger.exception("The converted form of %s does not run", weights.path.name)
    return None


def _torch_runtime(module: torch.nn.Module, device: str = CPU) -> Runtime:
    import torch

    torch.set_num_threads(network_threads())
    return TorchRuntime(module, device)


def build(network: FaceNetwork, path: Path) -> torch.nn.Module:
    """Return the network with the weights in `path`, in evaluation mode on the CPU.

    Raise `WeightsUnavailable` unless every tensor fits and a trial crop gives an embedding.
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


def _read_state_dict(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import argparse

    import torch

    # Published training checkpoints contain their command line; only that and tensors are allowed.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    for key in _STATE_DICT_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
    return {key.removeprefix("module."): value for key, value in content.items()}
