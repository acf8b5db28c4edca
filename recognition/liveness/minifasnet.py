"""MiniFASNet of Silent-Face-Anti-Spoofing (minivision-ai, 2020): tells faces from pictures of faces.

A pruned MobileFaceNet (Chen et al. 2018, arXiv:1804.07573). Names and shapes are those of the published
checkpoints, which were saved with a prefix `module.`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

CLASSES: Final = 3  # a picture on paper, a face, a picture on a screen
SQUEEZE: Final = 4


@dataclass(frozen=True, slots=True)
class Widths:
    """The channels inside the residual blocks of the three stages, which pruning left different."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    third: tuple[int, ...] = (26, 26)
    squeezed: bool = False  # the last block of each stage weighs its channels


V2: Final = Widths((13, 13, 13, 13), (231, 52, 26, 77, 26, 26))
V1SE: Final = Widths((13, 26, 13, 52), (154, 52, 26, 52, 26, 26), squeezed=True)


class Convolution(nn.Sequential):
    """Convolution, batch norm and, unless it is linear, PReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if not linear:
            self.prelu = nn.PReLU(outputs)


class Squeeze(nn.Module):
    """Weigh each channel by what all of them are on average (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels // SQUEEZE)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = self.bn1(self.fc1(x.mean((2, 3), keepdim=True))).relu()
        return x * self.bn2(self.fc2(squeezed)).sigmoid()


class Bottleneck(nn.Module):
    """Widen, filter each channel by itself, and project; residual where the stride is 1."""

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int = 1, *, squeezed: bool = False
    ) -> None:
        super().__init__()
        self.is_residual = stride == 1
        self.conv = Convolution(inputs, width, 1)
        self.conv_dw = Convolution(width, width, 3, stride, padding=1, groups=width)
        self.project = Convolution(width, outputs, 1, linear=True)
        self.se_module = Squeeze(outputs) if squeezed else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.se_module(self.project(self.conv_dw(self.conv(x))))
        return x + made if self.is_residual else made


class Stage(nn.Module):
    """Bottlenecks of the same outer width."""

    def __init__(self, channels: int, widths: Sequence[int], squeezed: bool) -> None:
        super().__init__()
        last = len(widths) - 1
        self.model = nn.Sequential(
            *(
                Bottleneck(channels, width, channels, squeezed=squeezed and place == last)
                for place, width in enumerate(widths)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class MiniFasNet(nn.Module):
    """N×3×80×80 float32 RGB, (value/255 - 0.5) / 0.5, to the N×3 probabilities of `CLASSES`."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.conv1 = Convolution(3, 32, 3, 2, padding=1)
        self.conv2_dw = Convolution(32, 32, 3, padding=1, groups=32)
        self.conv_23 = Bottleneck(32, 103, 64, 2)
        self.conv_3 = Stage(64, widths.first, widths.squeezed)
        self.conv_34 = Bottleneck(64, 231, 128, 2)
        self.conv_4 = Stage(128, widths.second, widths.squeezed)
        self.conv_45 = Bottleneck(128, 308, 128, 2)
        self.conv_5 = Stage(128, widths.third, widths.squeezed)
        self.conv_6_sep = Convolution(128, 512, 1)
        self.conv_6_dw = Convolution(512, 512, 5, groups=512, linear=True)
        self.linear = nn.Linear(512, 128, bias=False)
        self.bn = nn.BatchNorm1d(128)
        self.prob = nn.Linear(128, CLASSES, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        blue_first = (images.flip(1) + 1) * 127.5  # as it was trained: BGR, 0 to 255
        x = self.conv_23(self.conv2_dw(self.conv1(blue_first)))
        x = self.conv_45(self.conv_4(self.conv_34(self.conv_3(x))))
        x = self.conv_6_dw(self.conv_6_sep(self.conv_5(x))).flatten(1)
        return self.prob(self.bn(self.linear(x))).softmax(1)


def v2() -> MiniFasNet:
    """Return MiniFASNetV2, untrained."""
    return MiniFasNet(V2)


def v1se() -> MiniFasNet:
    """Return MiniFASNetV1SE, untrained."""
    return MiniFasNet(V1SE)
