"""Load networks, each once a process, at first use.

An unsuitable weights file is an error; weights are never random or silently replaced.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from recognition.conf import get_settings
from recognition.exceptions import WeightsUnavailable
from recognition.networks.converted import find_converted, has_converted, keep_converted
from recognition.networks.device import CPU, choose_device
from recognition.networks.int8 import int8_runtime, is_int8
from recognition.networks.registry import NETWORKS, FaceNetwork, Network, get_network
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
from recognition.networks.weights import (
    WeightsFile,
    find_weights,
    has_weights,
    int8_does_not_run,
    is_unchanged,
    weights_files,
)
from recognition.sentences import gettext
from recognition.sentences import gettext_lazy as _
from recognition.threads import network_threads, size_threads

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_STATE_DICT_KEYS: Final = ("model", "state_dict")

_loaded: dict[str, LoadedNetwork] = {}
_failed: dict[str, WeightsFile] = {}  # weights that failed to load the last time
_loading = threading.Lock()
_of_parent: list[dict[str, LoadedNetwork]] = []

AnyNetwork = TypeVar("AnyNetwork", bound=Network)
Agree = Callable[[np.ndarray, np.ndarray], bool]  # whether one answer is the same as another
Running = tuple[Runtime, str | Promise]  # and, if it is only a fallback, why


class _Replaced(Exception):
    """The weights file was replaced while it was read: its vectors would bear the wrong fingerprint."""


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network that is ready to run on its device, with the weights it was loaded from."""

    network: Network
    runtime: Runtime
    weights: WeightsFile
    fallback: str | Promise = ""  # why another runtime than the fastest runs it

    @property
    def device(self) -> str:
        """Return the device by its torch name."""
        return self.runtime.device


def loaded_networks() -> list[LoadedNetwork]:
    """Return the networks in this process's memory, those of the liveness check among them."""
    return list(_loaded.values())


def loaded_names() -> list[str]:
    """Return the names of the models in this process's memory."""
    return [name for name in NETWORKS if name in _loaded]


def load_network(name: str) -> LoadedNetwork:
    """Return the model, loaded once a process and again after its weights file was replaced."""
    return load_once(get_network(name), partial(find_weights, name), _run_model)


def load_once(
    network: AnyNetwork,
    find: Callable[[], WeightsFile],
    run: Callable[[AnyNetwork, WeightsFile], Running],
) -> LoadedNetwork:
    """Return the network, loaded once a process and again after its weights file was replaced.

    `find` returns the weights file in use, and `run` what runs the network with it.
    """
    name, weights = network.name, find()
    if (loaded := _loaded.get(name)) and loaded.weights == weights:
        return loaded
    with _loading:
        while not (loaded := _loaded.get(name)) or loaded.weights != weights:
            try:
                _loaded[name] = _load(network, weights, run)
            except _Replaced:
                weights = find()
        return loaded


def is_unconverted(name: str) -> bool:
    """Return whether the model's first use converts it, which takes long and happens once for its weights."""
    weights, settings = find_weights(name), get_settings()
    return (
        not is_int8(weights.path)
        and settings.network_runtime != "torch"
        and openvino_version() is not None
        and choose_device(settings.device) == CPU
        and not has_converted(weights.path, weights.digest)
    )


def load_failure(name: str) -> str | None:
    """Return why the current weights file failed to load the last time, or None."""
    if not has_weights(name) or not has_failed(name, weights := find_weights(name)):
        return None
    error = int8_does_not_run if is_int8(weights.path) else _does_not_load
    return str(error(name, weights.path))


def has_failed(name: str, weights: WeightsFile) -> bool:
    """Return whether the network failed to load the last time, and that from this weights file."""
    return _failed.get(name) == weights


def _does_not_load(name: str, path: Path) -> WeightsUnavailable:
    message = gettext(
        "The weights file %(file)s does not hold the model '%(name)s': it is damaged, incomplete or of "
        "another network. Put a whole one in its place ('manage.py fetch_weights %(name)s' says how to "
        "fetch one), then run 'manage.py reindex'. The log names the cause."
    )
    return WeightsUnavailable(message % {"file": path.name, "name": name})


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


def _load(
    network: AnyNetwork, weights: WeightsFile, run: Callable[[AnyNetwork, WeightsFile], Running]
) -> LoadedNetwork:
    size_threads()
    try:
        runtime, fallback = run(network, weights)
    except WeightsUnavailable:
        _failed[network.name] = weights
        raise
    _failed.pop(network.name, None)
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


def _run_model(network: FaceNetwork, weights: WeightsFile) -> Running:
    """Return the fastest runtime for the model and, if it is only a fallback, the reason."""
    if is_int8(weights.path):
        runtime = run_int8(network, weights.path)
        _check_unchanged(weights)
        return runtime, ""
    device = choose_device(get_settings().device)
    if device != CPU:
        return _torch_runtime(_build(network, weights), device), ""
    others = {other.digest for other in weights_files(network.name)}
    return run_on_processor(network, weights, _same_embeddings, others)


def _same_embeddings(given: np.ndarray, expected: np.ndarray) -> bool:
    return agreement(given, expected) >= LEAST_AGREEMENT


def run_on_processor(
    network: Network,
    weights: WeightsFile,
    agree: Agree,
    others: Iterable[str] = (),
) -> Running:
    """Return OpenVINO with the network, or torch and the reason where OpenVINO does not do.

    `agree` tells whether what OpenVINO answers to the trial crops is what torch does. Converted forms
    of the digests in `others` are kept.
    """
    reason: str | Promise = ""
    if get_settings().network_runtime == "torch":
        reason = _("NETWORK_RUNTIME is 'torch'.")
    elif openvino_version() is None:
        reason = _("openvino is not installed.")
    elif kept := _kept_runtime(network, weights, agree):
        return kept, ""
    module = _build(network, weights)
    if reason:
        return _torch_runtime(module), reason
    trial = trial_crops(network.side)
    expected = TorchRuntime(module).run(trial)
    try:
        model = convert_to_openvino(module, network.side)
        runtime = OpenVinoRuntime(model, threads=network_threads())
        if agree(runtime.run(trial), expected):
            keep_converted(model, expected, weights.path, weights.digest, others=others)
            return runtime, ""
        logger.error("OpenVINO gives other answers for %s than torch", network.name)
        fallback = _("OpenVINO gives other answers than torch on this processor.")
    except Exception:  # noqa: BLE001 (a compiler fails in many ways; torch does what it would have done)
        logger.exception("OpenVINO does not run %s", network.name)
        fallback = _("OpenVINO does not run this network here; the log says why.")
    return _torch_runtime(module), fallback


def _build(network: Network, weights: WeightsFile) -> torch.nn.Module:
    module = build(network, weights.path)
    _check_unchanged(weights)
    return module


def _check_unchanged(weights: WeightsFile) -> None:
    """Raise `_Replaced` unless what was read is what was found: the form that is kept bears its digest."""
    if not is_unchanged(weights):
        raise _Replaced


def run_int8(network: FaceNetwork, path: Path) -> Runtime:
    """Return the network in int8. Raise `WeightsUnavailable` if the file does not run as it should."""
    try:
        return int8_runtime(path)
    except Exception as error:  # noqa: BLE001 (as when a network is converted)
        logger.warning("%s at %s does not run in int8: %s", network.name, path, error)
        raise int8_does_not_run(network.name, path) from error


def _kept_runtime(network: Network, weights: WeightsFile, agree: Agree) -> Runtime | None:
    """Return the form converted at an earlier start if it still gives the same answers."""
    found = find_converted(weights.path, weights.digest)
    if found is None:
        return None
    model, expected = found
    try:
        runtime = OpenVinoRuntime(model, threads=network_threads())
        if agree(runtime.run(trial_crops(network.side)), expected):
            return runtime
        logger.warning("The converted form of %s gives other answers", weights.path.name)
    except Exception:  # noqa: BLE001 (as when it is converted)
        logger.exception("The converted form of %s does not run", weights.path.name)
    return None


def _torch_runtime(module: torch.nn.Module, device: str = CPU) -> Runtime:
    import torch

    torch.set_num_threads(network_threads())
    return TorchRuntime(module, device)


def build(network: Network, path: Path) -> torch.nn.Module:
    """Return the network with the weights in `path`, in evaluation mode on the CPU.

    Raise `WeightsUnavailable` unless every tensor fits and a trial crop gives an answer of its length.
    """
    import torch

    module: torch.nn.Module = import_string(network.builder)()
    try:
        module.load_state_dict(_read_state_dict(path), strict=True)
    except Exception as error:  # noqa: BLE001 (a damaged file fails in many ways; all mean the same)
        logger.warning("Weights of %s at %s do not load: %s", network.name, path, error)
        raise _does_not_load(network.name, path) from error
    module.eval().requires_grad_(False)
    with torch.inference_mode():
        output = module(torch.zeros(1, 3, network.side, network.side))
    if output.shape != (1, network.outputs) or not bool(torch.isfinite(output).all()):
        raise no_embedding(network.name, path)
    return module


def no_embedding(name: str, path: Path) -> WeightsUnavailable:
    """Return the error for a network that gives something else than 512 finite numbers."""
    message = gettext(
        "The weights file %(file)s of the model '%(name)s' gives no usable embedding. Replace it, "
        "then run 'manage.py reindex'."
    )
    return WeightsUnavailable(message % {"file": path.name, "name": name})


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
