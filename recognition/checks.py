"""System checks of the recognition settings. They open no connection and do not import torch."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Info, Warning, register
from django.core.exceptions import ImproperlyConfigured

from recognition.conf import RecognitionSettings, get_settings
from recognition.detection.choice import AUTO, DETECTORS
from recognition.detection.yunet import yunet_file
from recognition.exceptions import WeightsUnavailable
from recognition.extras import EXTRAS
from recognition.networks.device import has_nvidia_driver
from recognition.networks.registry import KNOWN_NETWORKS, NETWORKS, FaceNetwork
from recognition.setting import Setting, settings_of

SERVER_SCHEMES: Final = ("http", "https", "tcp", "unix")


@register("recognition")
def check_recognition(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    try:
        settings = get_settings()
    except (ImproperlyConfigured, TypeError) as error:
        hint = "Correct RECOGNITION in faceproject/settings.py."
        return [Error(str(error), hint=hint, id="recognition.E008")]
    return [
        *check_model_names(settings),
        *check_device(settings.device),
        *check_values(
            RecognitionSettings, lambda item: getattr(settings, item.field), "recognition.E006"
        ),
        *check_milvus(settings),
    ]


@register("models")
def check_models(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check the files and packages that embedding needs; a command that embeds nothing does without."""
    if (settings := _usable_settings()) is None:
        return []
    return [
        *check_weights(settings),
        *check_int8(settings),
        *check_detector(settings.detector),
        *check_liveness(settings),
    ]


def _usable_settings() -> RecognitionSettings | None:
    """Return the settings; None where they are unusable, which check_recognition reports."""
    try:
        return get_settings()
    except (ImproperlyConfigured, TypeError):
        return None


def check_model_names(settings: RecognitionSettings) -> Iterator[CheckMessage]:
    extra = {name: network for name, network in KNOWN_NETWORKS.items() if network.is_extra}
    named = {
        "DEFAULT_MODEL": ([settings.default_model], NETWORKS),
        "PRELOAD_MODELS": (settings.preload_models, NETWORKS),
        "INT8_MODELS": (settings.int8_models, NETWORKS),
        "EXTRA_NETWORKS": (settings.extra_networks, extra),
    }
    for setting, (names, known) in named.items():
        for name in names:
            if name not in known:
                yield Error(
                    f"{setting} names the model {name!r}, which does not exist.",
                    hint=f"Set {setting} to one of: {', '.join(known)}.",
                    id="recognition.E002",
                )


def check_weights(settings: RecognitionSettings) -> Iterator[CheckMessage]:
    for network in NETWORKS.values():
        found = _weights_files(network, settings)
        if found and not _is_readable(found[0]):
            yield Error(
                f"The weights file {found[0]} of the model {network.name} is empty or cannot be read.",
                hint="Replace it, or give the user who runs the server the right to read it.",
                id="recognition.E009",
            )
        elif not found and network.name == settings.default_model:
            message, hint = _missing_weights(network, settings)
            yield Error(message, hint=hint, id="recognition.E001")
        elif not found and network.name in settings.preload_models:
            message, hint = _missing_weights(network, settings)
            hint = f"Take it out of PRELOAD_MODELS. Or: {hint}"
            yield Warning(message, hint=hint, id="recognition.W003")


def check_int8(settings: RecognitionSettings) -> Iterator[CheckMessage]:
    """Check that the models of `INT8_MODELS` can be computed so here. Only then look at their files."""
    from recognition.networks.weights import find_weights, weights_files

    for name in settings.int8_models:
        if name not in NETWORKS or not any(weights_files(name)):
            continue  # reported by the checks above
        try:
            find_weights(name)
        except WeightsUnavailable as error:
            hint = "Until then the model answers 503; float32 does not take its place by itself."
            yield Error(str(error), hint=hint, id="recognition.E013")


@register("recognition_notes")
def note_weights(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return notes that explain which weights are used; they are no errors."""
    if (settings := _usable_settings()) is None:
        return []
    notes: list[CheckMessage] = []
    for network in NETWORKS.values():
        found = _weights_files(network, settings)
        if not found and network.name not in (settings.default_model, *settings.preload_models):
            message, hint = _missing_weights(network, settings)
            notes.append(Info(message, hint=f"To use it: {hint}", id="recognition.I001"))
        if len(found) > 1:
            message = f"{found[0].name} serves the model {network.name}, not {found[1].name}."
            hint = f"To go back: rm {found[0]}, then 'manage.py reindex'."
            notes.append(Info(message, hint=hint, id="recognition.I002"))
    return notes


def _weights_files(network: FaceNetwork, settings: RecognitionSettings) -> list[Path]:
    """Return the existing weights files of a model; the first one is used."""
    names = (f"{network.weights_stem}.ckpt", f"{network.weights_stem}.safetensors")
    return [path for name in names if (path := settings.weights_dir / name).exists()]


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK) and path.stat().st_size > 0


def _missing_weights(network: FaceNetwork, settings: RecognitionSettings) -> tuple[str, str]:
    """Return the message and the hint for a model without a weights file."""
    target = settings.weights_dir / f"{network.weights_stem}.ckpt"
    return (
        f"The model {network.name} has no weights file in {settings.weights_dir}.",
        f"Put its checkpoint there, cp CHECKPOINT {target} (or as .safetensors), then run "
        "'manage.py reindex'. WEIGHTS_DIR names another folder.",
    )


def check_detector(setting: str) -> Iterator[CheckMessage]:
    """Check that the detector can be used, without importing its module, which may be heavy."""
    path = DETECTORS.get(setting, setting)
    if setting == AUTO:
        return
    if path == DETECTORS["retinaface"] and _find_module(["uniface"]) is None:
        yield Error(
            "DETECTOR chooses RetinaFace, whose package is not installed.",
            hint="pip install -r requirements-retinaface.txt",
            id="recognition.E011",
        )
    if path == DETECTORS["yunet"] and yunet_file() is None:
        yield Error(
            "DETECTOR chooses YuNet, whose file is not in WEIGHTS_DIR.",
            hint="Run 'manage.py fetch_weights yunet', or set DETECTOR=auto.",
            id="recognition.E012",
        )
    module, _dot, name = path.rpartition(".")
    spec = _find_module(module.split(".")) if module else None
    if spec is None or (_names_in(spec) and name not in _names_in(spec)):
        yield Error(
            f"DETECTOR is {setting!r}, which is no detector's name and not the dotted path of a class.",
            hint=f"Set it to {AUTO}, {', '.join(DETECTORS)}, or to the path of a class with a detect() "
            "method; a detector of your own must lie on the Python path.",
            id="recognition.E003",
        )


def _find_module(parts: Sequence[str]) -> ModuleSpec | None:
    folders: Any = None
    spec = None
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations or []
    return spec


def _names_in(spec: ModuleSpec) -> set[str]:
    """Return the names that a module's source defines or imports; empty if unknown."""
    if not spec.origin or not spec.origin.endswith(".py"):
        return set()
    names: set[str] = set()
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return set() if "*" in names else names


def check_liveness(settings: RecognitionSettings) -> Iterator[CheckMessage]:
    """Check the files of the liveness check, unless there is none at all."""
    paths = [settings.weights_dir / name for name in EXTRAS["liveness"].published]
    lacking = [path for path in paths if not (path.exists() and _is_readable(path))]
    if lacking and any(path.exists() for path in paths):
        yield Warning(
            f"The liveness check lacks a file that can be read: {lacking[0]}.",
            hint="Run 'manage.py fetch_weights liveness', or give the user who runs the server the right to "
            "read it. Until then check_liveness=true answers 503.",
            id="recognition.W005",
        )


def check_device(device: str) -> Iterator[CheckMessage]:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        yield Error(
            f"DEVICE is {device!r}, which names no device.",
            hint="Set it to auto, cpu, cuda or cuda:N, as in cuda:0.",
            id="recognition.E004",
        )
    elif device.startswith("cuda") and not has_nvidia_driver():
        yield Warning(
            f"DEVICE is {device!r}, but no NVIDIA driver is found on this machine.",
            hint="Set DEVICE to auto or cpu, or install the driver: until then every model answers 503.",
            id="recognition.W001",
        )


def check_values(
    declaration: type, value_of: Callable[[Setting], Any], identity: str
) -> Iterator[CheckMessage]:
    """Check that each value is one of its setting's choices, or within its limits."""
    for item in settings_of(declaration):
        value = value_of(item)
        if not item.allows(value):
            yield Error(
                f"{item.name} is {item.written(value)}, but {item.expected} is expected.",
                hint=f"Set {item.name} to {item.expected}, or leave it out for the default.",
                id=identity,
            )


def check_milvus(settings: RecognitionSettings) -> Iterator[CheckMessage]:
    uri = str(settings.milvus_uri)
    if "://" in uri or uri.startswith("unix:"):
        yield from _check_address(uri)
        return
    yield from _check_folder(Path(uri))
    if settings.milvus_token:
        yield Warning(
            "MILVUS_TOKEN is set, but MILVUS_URI names a folder, which knows no tokens.",
            hint="Set MILVUS_URI to the server's address, or leave MILVUS_TOKEN out.",
            id="recognition.W002",
        )
    if (processes := os.environ.get("WEB_CONCURRENCY", "1")) not in ("", "0", "1"):
        yield Warning(
            f"WEB_CONCURRENCY={processes} asks for several processes, and the embedded vector "
            "database belongs to one.",
            hint="Use one process with THREADS, or run a Milvus server and set MILVUS_URI to it.",
            id="recognition.W004",
        )


def _check_address(uri: str) -> Iterator[CheckMessage]:
    try:
        parts = urlsplit(uri)
        whole = parts.path if parts.scheme == "unix" else parts.hostname
        valid = parts.scheme in SERVER_SCHEMES and bool(whole) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        # Do not show the address: it may contain a password.
        yield Error(
            "MILVUS_URI is not the address of a server.",
            hint="Write it as http://host:19530 (https:// with TLS), or name a folder.",
            id="recognition.E007",
        )


def _check_folder(folder: Path) -> Iterator[CheckMessage]:
    problem = hint = ""
    if re.search(r":\d+$", folder.name):
        problem = "looks like a server's address without its beginning"
        hint = f"Write MILVUS_URI=http://{folder.name}."
    elif folder.exists() and not folder.is_dir():
        problem = "is a file, and the embedded database is a folder"
        hint = "Move the file away (an older Milvus Lite made it); then run 'manage.py reindex'."
    elif not is_writable(folder):
        problem = "cannot be written to"
        hint = (
            "Give the user who runs the server the right to write there, or set another MILVUS_URI."
        )
    if problem:
        yield Error(
            f"MILVUS_URI names {folder}, which {problem}.", hint=hint, id="recognition.E007"
        )


def is_writable(folder: Path) -> bool:
    """Return whether the folder can be written to, or created."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
