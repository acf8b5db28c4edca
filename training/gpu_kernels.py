"""Depthwise convolutions for a GPU, in Triton: cuDNN's take most of a MobileNetV3's training step.

Pictures are N×C×H×W in memory as N×H×W×C (channels last). A program computes a tile of places and
channels; each tap of the kernel reads its neighbours again, from the cache. Sums are in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import nn

PLACES, CHANNELS = 32, 64  # a program's tile
CHUNK = 4096  # places whose products one program of the weights' gradient adds up


@triton.jit
def _convolve(images, taps, target, places, high, wide, rows, columns, channels,
              SIDE: tl.constexpr, STRIDE: tl.constexpr, BACK: tl.constexpr,
              PLACES: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """Compute `target`, of rows×columns, from `images`, of high×wide.

    Forwards, the strides are between places of the images; `BACK`, they are between places of the
    target: it is the gradient of the input, and the images are that of the output.
    """
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    own = channel < channels
    picture, row, column = place // (rows * columns), place // columns % rows, place % columns
    total = tl.zeros((PLACES, CHANNELS), tl.float32)
    for down in tl.static_range(SIDE):
        for right in tl.static_range(SIDE):
            if BACK:
                y, x = row + SIDE // 2 - down, column + SIDE // 2 - right
                meets = (y >= 0) & (x >= 0) & (y % STRIDE == 0) & (x % STRIDE == 0)
                y, x = y // STRIDE, x // STRIDE
            else:
                y, x = row * STRIDE + down - SIDE // 2, column * STRIDE + right - SIDE // 2
                meets = (y >= 0) & (x >= 0)
            meets = meets & (y < high) & (x < wide) & (place < places)
            start = ((picture * high + y) * wide + x) * channels
            value = tl.load(
                images + start[:, None] + channel[None, :], meets[:, None] & own[None, :], 0.0
            )
            tap = tl.load(taps + (down * SIDE + right) * channels + channel, own, 0.0)
            total += value.to(tl.float32) * tap[None, :]
    live = (place < places)[:, None] & own[None, :]
    tl.store(target + place[:, None] * channels + channel[None, :], total, live)


@triton.jit
def _correlate(images, gradient, target, places, high, wide, rows, columns, channels,
               SIDE: tl.constexpr, STRIDE: tl.constexpr, CHUNK: tl.constexpr,
               PLACES: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """Sum one tap's products of gradient and image over a chunk of places: chunks×taps×channels."""
    tap, chunk = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    own = channel < channels
    total = tl.zeros((PLACES, CHANNELS), tl.float32)
    for start in range(chunk * CHUNK, chunk * CHUNK + CHUNK, PLACES):
        place = start + tl.arange(0, PLACES)
        picture, row, column = place // (rows * columns), place // columns % rows, place % columns
        y = row * STRIDE + tap // SIDE - SIDE // 2
        x = column * STRIDE + tap % SIDE - SIDE // 2
        meets = (y >= 0) & (x >= 0) & (y < high) & (x < wide) & (place < places)
        live = meets[:, None] & own[None, :]
        there = ((picture * high + y) * wide + x) * channels
        value = tl.load(images + there[:, None] + channel[None, :], live, 0.0)
        change = tl.load(gradient + place[:, None] * channels + channel[None, :], live, 0.0)
        total += value.to(tl.float32) * change.to(tl.float32)
    at = (chunk * SIDE * SIDE + tap) * channels + channel
    tl.store(target + at, tl.sum(total, 0), own)


@torch.library.custom_op("training::depthwise", mutates_args=())
def depthwise(images: torch.Tensor, taps: torch.Tensor, stride: int) -> torch.Tensor:
    """Convolve each channel by itself, with zeros beyond the border.

    `images` are N×C×H×W, `taps` K²×C float32, one row for each place of the K×K kernel, K odd. The
    result has the images' type and is channels last.
    """
    images = _last(images)
    target = _output(images, stride)
    _launch(images, taps, target, _side(taps), stride, back=False)
    return target


@torch.library.custom_op("training::depthwise_backward", mutates_args=())
def depthwise_backward(
    gradient: torch.Tensor, images: torch.Tensor, taps: torch.Tensor, stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of the images and of the taps."""
    images, gradient, side = _last(images), _last(gradient), _side(taps)
    target = _empty(images, list(images.shape))
    _launch(gradient, taps, target, side, stride, back=True)
    count, channels, rows, columns = gradient.shape
    places = count * rows * columns
    chunks = triton.cdiv(places, CHUNK)
    sums = torch.empty(chunks, len(taps), channels, device=images.device)
    _correlate[(len(taps), triton.cdiv(channels, CHANNELS), chunks)](
        images, gradient, sums, places, *images.shape[2:], rows, columns, channels,
        side, stride, CHUNK, PLACES, CHANNELS,
    )  # fmt: skip
    return target, sums.sum(0)


@depthwise.register_fake
def _(images: torch.Tensor, taps: torch.Tensor, stride: int) -> torch.Tensor:
    return _output(images, stride)


@depthwise_backward.register_fake
def _(
    gradient: torch.Tensor, images: torch.Tensor, taps: torch.Tensor, stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty(images, list(images.shape)), torch.empty_like(taps)


def _remember(ctx, inputs, output) -> None:  # noqa: ANN001
    images, taps, ctx.stride = inputs
    ctx.save_for_backward(images, taps)


def _backward(ctx, gradient):  # noqa: ANN001, ANN202
    return *depthwise_backward(gradient, *ctx.saved_tensors, ctx.stride), None


depthwise.register_autograd(_backward, setup_context=_remember)


class DepthwiseConvolution(nn.Conv2d):
    """`nn.Conv2d` of one channel a group, trained with these kernels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(images)
        taps = self.weight.flatten(1).T.contiguous()
        given = depthwise(images, taps, self.stride[0])
        return given if self.bias is None else given + self.bias.to(given.dtype).view(-1, 1, 1)


def _launch(
    images: torch.Tensor,
    taps: torch.Tensor,
    target: torch.Tensor,
    side: int,
    stride: int,
    back: bool,
) -> None:
    count, channels, rows, columns = target.shape
    places = count * rows * columns
    _convolve[(triton.cdiv(places, PLACES), triton.cdiv(channels, CHANNELS))](
        images, taps, target, places, *images.shape[2:], rows, columns, channels,
        side, stride, back, PLACES, CHANNELS,
    )  # fmt: skip


def _last(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _output(images: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the empty result of a convolution with this stride."""
    count, channels, high, wide = images.shape
    return _empty(images, [count, channels, -(-high // stride), -(-wide // stride)])


def _empty(like: torch.Tensor, shape: list[int]) -> torch.Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _side(taps: torch.Tensor) -> int:
    return round(len(taps) ** 0.5)
