"""PyTorch functions with gradients on top of `kernels.cpp`, which is compiled at first use.

They need a CPU with AVX-512 bfloat16 and a C++ compiler; `unavailable` says what is missing.
Tensors are N×C×H×W bfloat16 in channels-last order; parameters are float32.
"""

from __future__ import annotations

import ctypes
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

SOURCE = Path(__file__).with_name("kernels.cpp")
NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512_bf16")  # flags in /proc/cpuinfo
FLAGS = ["-O3", "-std=c++17"]
FLAGS += [f"-m{name.replace('_', '')}" for name in (*NEEDED, "fma")]
ACTIVATIONS = {type(None): 0, nn.PReLU: 1, nn.Hardswish: 2}


@cache
def unavailable() -> str:
    """Return why the kernels cannot be used here; empty if they can. Compiles at the first call."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "the kind of processor is not known (no /proc/cpuinfo)"
    if lacking := [name for name in NEEDED if name not in flags]:
        return f"the processor has no {', '.join(lacking)}"
    if lacking := [name for name in ("g++", "ninja") if not shutil.which(name)]:
        return f"{' and '.join(lacking)} is not installed (Debian: apt-get install g++ ninja-build)"
    try:
        _library()
    except (RuntimeError, OSError) as error:
        return f"kernels.cpp could not be built: {str(error).splitlines()[0]}"
    return ""


@cache
def _library() -> ctypes.CDLL:
    from torch.utils.cpp_extension import load

    path = load("training_kernels", [str(SOURCE)], extra_cflags=FLAGS, is_python_module=False)
    return ctypes.CDLL(path)


def _call(name: str, *arguments: torch.Tensor | int | float | None) -> None:
    """Call a function of the library; tensors are passed as pointers, integers as int64."""
    given: list[Any] = []
    for argument in arguments:
        if argument is None:
            given.append(ctypes.c_void_p())
        elif isinstance(argument, torch.Tensor):
            given.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, float):
            given.append(ctypes.c_float(argument))
        else:
            given.append(ctypes.c_int64(argument))
    getattr(_library(), name)(*given)


def _last(x: torch.Tensor) -> torch.Tensor:
    """Return the tensor in channels-last order and bfloat16, as the kernels need it."""
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Return N×C×H×W in channels-last order as a view of N·H·W×C."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _like(x: torch.Tensor, channels: int) -> torch.Tensor:
    """Return an empty bfloat16 tensor of the same N, H and W with other channels."""
    count, _, height, width = x.shape
    shape = (count, channels, height, width)
    return torch.empty(shape, dtype=torch.bfloat16, memory_format=torch.channels_last)


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, slope, activation, eps):
        x, channels = _last(x), x.shape[1]
        y, (mean, variance, scale, shift) = _like(x, channels), torch.empty(4, channels)
        sizes = (x.numel() // channels, channels, activation, eps)
        _call("norm_activation_forward", x, gamma, beta, slope, y, mean, variance, scale, shift, *sizes)  # fmt: skip
        ctx.save_for_backward(x, mean, variance, scale, shift, gamma, slope)
        ctx.sizes = sizes
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, _mean, _variance):
        x, *saved = ctx.saved_tensors
        dx, (dgamma, dbeta, dslope) = _like(x, x.shape[1]), torch.empty(3, x.shape[1])
        dy = _last(dy)
        _call("norm_activation_backward", x, dy, *saved, dx, dgamma, dbeta, dslope, *ctx.sizes)
        return dx, dgamma, dbeta, dslope if ctx.needs_input_grad[3] else None, None, None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, stride):
        x, weight = _last(x), weight.contiguous()
        count, channels, height, width = x.shape
        kernel = weight.shape[-1]
        out = [(side + 2 * (kernel // 2) - kernel) // stride + 1 for side in (height, width)]
        y = _like(x.new_empty(count, 0, *out), channels)
        ctx.sizes = (count, height, width, channels, kernel, stride)
        _call("depthwise_forward", x, weight, y, *ctx.sizes)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dx, dweight, dy = _like(x, x.shape[1]), torch.empty_like(weight), _last(dy)
        _call("depthwise_backward", x, dy, weight, dx, dweight, *ctx.sizes)
        return dx, dweight, None


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        x, matrix = _last(x), weight.flatten(1).bfloat16()
        y = _like(x, len(weight))
        torch.mm(_rows(x), matrix.T, out=_rows(y))
        ctx.save_for_backward(x, matrix)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, matrix = ctx.saved_tensors
        dx, rows = _like(x, x.shape[1]), _rows(_last(dy))
        torch.mm(rows, matrix, out=_rows(dx))
        return dx, (rows.T @ _rows(x)).float()[:, :, None, None]


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = _last(x)
        count, channels, height, width = ctx.shape = x.shape
        sums = torch.empty(count, channels)
        _call("pixel_sums", x, None, sums, count, height * width, channels)
        return sums / (height * width)

    @staticmethod
    def backward(ctx, gradient):
        pixels = ctx.shape[2] * ctx.shape[3]
        return (gradient / pixels).bfloat16()[:, :, None, None].expand(ctx.shape)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gate):
        x, gate = _last(x), gate.contiguous()
        ctx.save_for_backward(x, gate)
        return _Scale._scaled(x, gate)

    @staticmethod
    def _scaled(x, gate):
        y = _like(x, x.shape[1])
        _call("scale_channels", x, gate, y, len(x), x.shape[2] * x.shape[3], x.shape[1])
        return y

    @staticmethod
    def backward(ctx, dy):
        x, gate = ctx.saved_tensors
        dy, dgate = _last(dy), torch.empty_like(gate)
        _call("pixel_sums", x, dy, dgate, len(x), x.shape[2] * x.shape[3], x.shape[1])
        return _Scale._scaled(dy, gate), dgate


def norm_activation(
    x: torch.Tensor, bias: torch.Tensor | None, norm: nn.BatchNorm2d, activation: nn.Module | None
) -> torch.Tensor:
    """Apply batch norm over the batch and the activation; update the running statistics.

    `bias` is the bias of the convolution before. Batch norm removes it, so it only affects the
    running mean.
    """
    learned = isinstance(activation, nn.PReLU)
    slope = activation.weight if learned else _zeros(norm.num_features)
    kind = ACTIVATIONS[type(activation)]
    y, mean, variance = _NormActivation.apply(x, norm.weight, norm.bias, slope, kind, norm.eps)
    with torch.no_grad():
        pixels = x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean if bias is None else mean + bias, norm.momentum)
        norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
        norm.num_batches_tracked += 1
    return y


@cache
def _zeros(count: int) -> torch.Tensor:
    return torch.zeros(count)


def depthwise(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """Apply a depthwise convolution with C×1×K×K weights (K 3 or 5), padded to keep the size."""
    return _Depthwise.apply(x, weight, stride)


def pointwise(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Apply a 1×1 convolution with D×C×1×1 weights as a matrix product."""
    return _Pointwise.apply(x, weight)


def mean(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of every channel, N×C×1×1 float32."""
    return _Mean.apply(x)[:, :, None, None]


def scale(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Multiply every channel by its N×C×1×1 float32 gate."""
    return _Scale.apply(x, gate.flatten(1))
