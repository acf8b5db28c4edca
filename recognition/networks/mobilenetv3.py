"""MobileNetV3-Large for aligned faces (Howard et al. 2019, arXiv:1905.02244).

The body is the published one with three changes common in face recognition: the stem keeps the full
resolution (stride 1), PReLU replaces ReLU, and a global depthwise convolution (Chen et al. 2018,
MobileFaceNets, arXiv:1804.07573) replaces pooling. Attribute names follow the published
checkpoints, which load with ``strict=True``.
"""

from typing import NamedTuple

import torch
from torch import nn

HEAD_CHANNELS = 960
HEAD_SIZE = 7  # 112 pixels after four stages of stride 2


class Stage(NamedTuple):
    """One row of Table 1 in the MobileNetV3 paper."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hard_swish: bool
    stride: int


STEM_CHANNELS = 16
STAGES = (
    Stage(3, 16, 16, False, False, 1),
    Stage(3, 64, 24, False, False, 2),
    Stage(3, 72, 24, False, False, 1),
    Stage(5, 72, 40, True, False, 2),
    Stage(5, 120, 40, True, False, 1),
    Stage(5, 120, 40, True, False, 1),
    Stage(3, 240, 80, False, True, 2),
    Stage(3, 200, 80, False, True, 1),
    Stage(3, 184, 80, False, True, 1),
    Stage(3, 184, 80, False, True, 1),
    Stage(3, 480, 112, True, True, 1),
    Stage(3, 672, 112, True, True, 1),
    Stage(5, 672, 160, True, True, 2),
    Stage(5, 960, 160, True, True, 1),
    Stage(5, 960, 160, True, True, 1),
)


def _activation(hard_swish: bool, channels: int) -> nn.Module:
    return nn.Hardswish() if hard_swish else nn.PReLU(channels)


def _conv_norm(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups)
    return [conv, nn.BatchNorm2d(out)]


def _squeezed(channels: int) -> int:
    """Return a quarter of the channels, rounded to a multiple of 8 that is at least 90 % of it."""
    quarter = channels // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * quarter else rounded + 8


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from all channel means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, _squeezed(channels), 1)
        self.fc2 = nn.Conv2d(_squeezed(channels), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * nn.functional.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a residual connection where shapes
    agree."""

    def __init__(self, channels: int, stage: Stage) -> None:
        super().__init__()
        wide = stage.expanded
        depthwise = _conv_norm(
            channels=wide, out=wide, kernel=stage.kernel, stride=stage.stride, groups=wide
        )
        layers: list[nn.Module] = []
        if wide != channels:
            expand = _conv_norm(channels, wide)
            layers.append(nn.Sequential(*expand, _activation(stage.hard_swish, wide)))
        layers.append(nn.Sequential(*depthwise, _activation(stage.hard_swish, wide)))
        if stage.squeeze:
            layers.append(SqueezeExcitation(wide))
        layers.append(nn.Sequential(*_conv_norm(wide, stage.out)))
        self.block = nn.Sequential(*layers)
        self.residual = stage.stride == 1 and channels == stage.out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class GlobalDepthwise(nn.Module):
    """One learned 7×7 weighting for each channel, instead of average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, HEAD_SIZE, groups=channels, bias=False)
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class EmbeddingHead(nn.Module):
    """N×960×7×7 features to N×D embeddings."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.features = nn.Sequential(GlobalDepthwise(HEAD_CHANNELS), nn.Flatten())
        self.fc = nn.Sequential(
            nn.Linear(HEAD_CHANNELS, embedding_dim, bias=False), nn.BatchNorm1d(embedding_dim)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))


class MobileNetV3Large(nn.Module):
    """N×3×112×112 float32 RGB in [-1, 1] to N×D embeddings, not normalised."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        inputs = (STEM_CHANNELS, *(stage.out for stage in STAGES))
        self.features = nn.Sequential(
            nn.Sequential(*_conv_norm(3, STEM_CHANNELS, 3), nn.Hardswish()),
            *(InvertedResidual(n, stage) for n, stage in zip(inputs, STAGES, strict=False)),
            nn.Sequential(*_conv_norm(inputs[-1], HEAD_CHANNELS), nn.Hardswish()),
        )
        self.output_layer = EmbeddingHead(embedding_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.output_layer(self.features(images))


def mobilenetv3_large(embedding_dim: int = 512) -> nn.Module:
    """Return an untrained MobileNetV3-Large for 112×112 faces; 3.5 million parameters."""
    return MobileNetV3Large(embedding_dim)
