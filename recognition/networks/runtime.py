"""The runtimes of a loaded network: torch, and OpenVINO, which is faster on a processor."""

from __future__ import annotations

import copy
import sys
import threading
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from django.utils.translation import gettext

from recognition.exceptions import OutOfDeviceMemory
from recognition.networks.device import CPU
from recognition.networks.registry import CROP_SIZE

if TYPE_CHECKING:
    import openvino
    import torch

LEAST_AGREEMENT: Final = 0.99999  # cosine of a runtime's embedding with torch's, at the least
TRIAL_CROPS: Final = 4
HANDED_OVER: Final = 2  # batches that a runtime is given at once, to compute them in turn


class Runtime(Protocol):
    """Runs one network."""

    name: str  # with its version
    device: str  # as torch names it

    def run(self, crops: np.ndarray) -> np.ndarray:
        """Return what the network says (float32) of N×side×side×3 uint8 RGB crops: of a model, N×512
        embeddings that are not normalised."""


class TorchRuntime:
    """Runs the module with torch; on CUDA in half precision if that changes no embedding."""

    def __init__(self, module: torch.nn.Module, device: str = CPU) -> None:
        import torch

        self.name = f"torch {torch.__version__}"
        self.device = device
        self._running = threading.Lock()
        self._type = torch.float32
        self._module = module.to(device).to(memory_format=torch.channels_last)
        if device != CPU:
            whole, expected = self._module, self.run(trial_crops())
            self._type, self._module = torch.float16, copy.deepcopy(whole).half()
            if agreement(self.run(trial_crops()), expected) < LEAST_AGREEMENT:
                self._type, self._module = torch.float32, whole

    def run(self, crops: np.ndarray) -> np.ndarray:
        import torch

        try:
            with self._running, torch.inference_mode():
                batch = torch.from_numpy(crops)
                if self.device != CPU:  # from pinned memory the copy waits for nobody
                    batch = batch.pin_memory().to(self.device, non_blocking=True)
                # N×H×W×C in memory seen as N×C×H×W is what torch calls channels-last.
                batch = batch.permute(0, 3, 1, 2).to(self._type).div_(127.5).sub_(1.0)
                output: torch.Tensor = self._module(batch)
                return np.asarray(output.float().cpu().numpy())
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(
                gettext(
                    "The GPU has too little memory for %(count)d faces at once. Send fewer pictures, or have "
                    "the administrator lower EMBED_BATCH_SIZE or set DEVICE=cpu."
                )
                % {"count": len(crops)}
            ) from error


class OpenVinoRuntime:
    """Runs a converted network with OpenVINO on the processor, in float32."""

    device = CPU

    def __init__(self, model: openvino.Model, *, threads: int) -> None:
        self.name = f"openvino {openvino_version()}"
        # Without the hint, a processor with bfloat16 would use it, and embeddings would differ.
        compiled = import_openvino().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,  # bad for a process that shares the processor
            },
        )
        self._idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _request in range(HANDED_OVER):
            self._idle.put(compiled.create_infer_request())

    def run(self, crops: np.ndarray) -> np.ndarray:
        request = self._idle.get()
        try:
            request.infer([crops], share_inputs=True, share_outputs=True)
            return np.array(request.get_output_tensor(0).data)
        finally:
            self._idle.put(request)


@cache
def openvino_version() -> str | None:
    """Return the version of OpenVINO, None if it is not installed. Imports nothing."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


def import_openvino() -> Any:
    """Return the package `openvino`, imported so that it sends no telemetry.

    It would report every import and conversion to Intel through `openvino_telemetry`, unless that
    package cannot be imported.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def convert_to_openvino(module: torch.nn.Module, side: int = CROP_SIZE) -> openvino.Model:
    """Return the module converted to read N×side×side×3 uint8 RGB, for any N."""
    import warnings

    import torch

    openvino = import_openvino()
    example = torch.zeros(2, 3, side, side)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing is of old; it is what the converter does
        # Traced here, as the converter has it traced twice more and compared, which takes longer than
        # all the rest; whoever converts compares the answers.
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        model = openvino.convert_model(traced, example_input=example, input=[-1, 3, side, side])
    steps = openvino.preprocess.PrePostProcessor(model)
    crops = steps.input()
    crops.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    crops.model().set_layout(openvino.Layout("NCHW"))
    crops.preprocess().convert_element_type(openvino.Type.f32).scale(127.5).mean(1.0)
    return steps.build()


def trial_crops(side: int = CROP_SIZE) -> np.ndarray:
    """Return 4×side×side×3 uint8 RGB, always the same: half of them noise, half large squares."""
    chance = np.random.default_rng(0)
    noise = chance.integers(0, 256, (TRIAL_CROPS // 2, CROP_SIZE, CROP_SIZE, 3), dtype=np.uint8)
    spots = chance.integers(0, 256, (TRIAL_CROPS // 2, 7, 7, 3), dtype=np.uint8)
    large = spots.repeat(CROP_SIZE // 7, axis=1).repeat(CROP_SIZE // 7, axis=2)
    return np.ascontiguousarray(np.concatenate([noise, large])[:, :side, :side])


def agreement(embeddings: np.ndarray, others: np.ndarray) -> float:
    """Return the lowest cosine between equal rows of two N×512 arrays. NaN counts as 0."""
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(others, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (embeddings.astype(np.float64) * others).sum(1) / lengths
    return float(np.nan_to_num(cosines, nan=0.0).min())
