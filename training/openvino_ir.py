"""Run an OpenVINO model (IR version 11: an `.xml` beside a `.bin`) in PyTorch, on any device.

It supports the dozen operations of Open Model Zoo's small convolutional networks, so that such a
network can be a teacher on a GPU, where OpenVINO does not run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import nn
from torch.nn import functional

NUMBERS = {"f16": np.float16, "f32": np.float32, "i64": np.int64, "i32": np.int32}


class OpenVinoNetwork(nn.Module):
    """A network with one input and one output tensor; constants are buffers and not trained."""

    def __init__(self, xml: Path) -> None:
        super().__init__()
        net = ElementTree.parse(xml).getroot()  # noqa: S314 (a model file that its user chose)
        content = xml.with_suffix(".bin").read_bytes()
        sources: dict[str, dict[int, str]] = {}
        for edge in net.find("edges"):
            inputs = sources.setdefault(edge.get("to-layer"), {})
            inputs[int(edge.get("to-port"))] = edge.get("from-layer")
        self.steps: list[tuple[str, Callable[..., torch.Tensor], list[str]]] = []
        for layer in net.find("layers"):  # in the order of computation
            name, kind = layer.get("id"), layer.get("type")
            data = {} if layer.find("data") is None else layer.find("data").attrib
            inputs = [source for _, source in sorted(sources.get(name, {}).items())]
            if kind == "Const":
                self.register_buffer(f"constant_{name}", _constant(data, content))
            elif kind == "Parameter":
                self.input = name
            elif kind == "Result":
                self.output = inputs[0]
            elif kind in OPERATIONS:
                self.steps.append((name, OPERATIONS[kind](data), inputs))
            else:
                raise SystemExit(
                    f"{xml.name} needs the operation {kind}; known are {', '.join(OPERATIONS)}."
                )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the output for N×C×H×W in the value range that the model was converted for."""
        values = {name.removeprefix("constant_"): value for name, value in self.named_buffers()}
        values[self.input] = images
        for name, compute, inputs in self.steps:
            values[name] = compute(*(values[source] for source in inputs))
        return values[self.output]


def _constant(data: dict[str, str], content: bytes) -> torch.Tensor:
    shape = _numbers(data["shape"])
    start, size = int(data["offset"]), int(data["size"])
    array = np.frombuffer(content[start : start + size], NUMBERS[data["element_type"]])
    return torch.from_numpy(array.reshape(shape).astype(np.float32))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number.strip()]


def _convolution(data: dict[str, str]) -> Callable[..., torch.Tensor]:
    stride, padding, dilation = (
        _numbers(data[key]) for key in ("strides", "pads_begin", "dilations")
    )
    if padding != _numbers(data["pads_end"]):
        raise SystemExit("A convolution that is padded unevenly is not supported.")

    def compute(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        groups = weight.shape[0] if weight.ndim == 5 else 1
        return functional.conv2d(x, weight.flatten(0, weight.ndim - 4), None, stride, padding, dilation, groups)  # fmt: skip

    return compute


def _average(data: dict[str, str]) -> Callable[..., torch.Tensor]:
    kernel, stride = _numbers(data["kernel"]), _numbers(data["strides"])
    return lambda x: functional.avg_pool2d(x, kernel, stride)


OPERATIONS: dict[str, Callable[[dict[str, Any]], Callable[..., torch.Tensor]]] = {
    "Add": lambda _: operator.add,
    "AvgPool": _average,
    "Convert": lambda _: lambda x: x,
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "Multiply": lambda _: operator.mul,
    "PReLU": lambda _: lambda x, slope: functional.prelu(x, slope.flatten().to(x.dtype)),
    "Sigmoid": lambda _: torch.sigmoid,
}
