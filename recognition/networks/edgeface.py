"""EdgeFace-XS (George et al. 2023, arXiv:2307.01838): EdgeNeXt for faces with low-rank linear
layers.

EdgeNeXt (Maaz et al. 2022, arXiv:2206.10589) combines depthwise convolutions with attention across
channels. Names and shapes are those of the published checkpoint `edgeface_xs_gamma_06.pt`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

RANK_SHARE = 0.6  # rank of a linear layer, as a share of its smaller dimension
HEADS = 4
EXPANSION = 4
FREQUENCIES = 32  # channels of the positional encoding for each axis
EPSILON = 1e-6


class Stage(NamedTuple):
    """Blocks of one width. With `scales` above 0 the last block is an attention block."""

    channels: int
    depth: int
    kernel: int
    scales: int
    positions: bool


STAGES = (
    Stage(32, 3, 3, 0, False),
    Stage(64, 3, 5, 2, True),
    Stage(100, 9, 7, 3, False),
    Stage(192, 3, 9, 4, False),
)


class LowRank(nn.Module):
    """A linear layer factorised into two smaller ones."""

    def __init__(self, inputs: int, outputs: int, rank_share: float) -> None:
        super().__init__()
        rank = max(2, int(min(inputs, outputs) * rank_share))
        self.linear1 = nn.Linear(inputs, rank, bias=False)
        self.linear2 = nn.Linear(rank, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.linear1(x))


def _linear(inputs: int, outputs: int, rank_share: float | None) -> nn.Module:
    return LowRank(inputs, outputs, rank_share) if rank_share else nn.Linear(inputs, outputs)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of N×C×H×W."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Expansion, GELU and projection over the last axis."""

    def __init__(self, channels: int, rank_share: float | None) -> None:
        super().__init__()
        self.fc1 = _linear(channels, EXPANSION * channels, rank_share)
        self.fc2 = _linear(EXPANSION * channels, channels, rank_share)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class ConvBlock(nn.Module):
    """A depthwise convolution and an MLP, with a residual connection."""

    def __init__(self, channels: int, kernel: int, rank_share: float | None) -> None:
        super().__init__()
        self.conv_dw = _depthwise(channels, kernel)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.mlp = Mlp(channels, rank_share)
        self.gamma = nn.Parameter(torch.full((channels,), EPSILON))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.gamma * self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return x + mixed.permute(0, 3, 1, 2)


class CrossCovarianceAttention(nn.Module):
    """Attention across channels instead of positions (El-Nouby et al. 2021); N×L×C to N×L×C."""

    def __init__(self, channels: int, rank_share: float | None) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv = _linear(channels, 3 * channels, rank_share)
        self.proj = _linear(channels, channels, rank_share)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, places, channels = x.shape
        parts = self.qkv(x).reshape(count, places, 3, HEADS, -1).permute(2, 0, 3, 4, 1)
        query, key, value = parts.unbind(0)
        query, key = functional.normalize(query, dim=-1), functional.normalize(key, dim=-1)
        weights = (query @ key.transpose(-2, -1) * self.temperature).softmax(-1)
        return self.proj((weights @ value).permute(0, 3, 1, 2).reshape(count, places, channels))


class Positions(nn.Module):
    """A projected sinusoidal position encoding: height and width to 1×C×H×W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * FREQUENCIES, channels, 1)

    def forward(self, height: int, width: int) -> torch.Tensor:
        weight = self.token_projection.weight
        rows = self._waves(height, weight)[:, :, None].expand(-1, -1, width)
        columns = self._waves(width, weight)[:, None, :].expand(-1, height, -1)
        return self.token_projection(torch.cat([rows, columns])[None])

    @staticmethod
    def _waves(length: int, like: torch.Tensor) -> torch.Tensor:
        places = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
        angles = places / (length + EPSILON) * 2 * math.pi
        steps = torch.arange(FREQUENCIES // 2, device=like.device, dtype=like.dtype)
        turned = angles / 10000 ** (2 * steps[:, None] / FREQUENCIES)
        return torch.stack([turned.sin(), turned.cos()], dim=1).flatten(0, 1)


class AttentionBlock(nn.Module):
    """Depthwise convolutions over parts of the channels in sequence, attention, and an MLP;
    residual."""

    def __init__(self, stage: Stage, rank_share: float | None) -> None:
        super().__init__()
        channels = stage.channels
        width = math.ceil(channels / stage.scales)
        self.convs = nn.ModuleList(_depthwise(width, 3) for _ in range(stage.scales - 1))
        self.pos_embd = Positions(channels) if stage.positions else None
        self.norm_xca = nn.LayerNorm(channels, EPSILON)
        self.gamma_xca = nn.Parameter(torch.full((channels,), EPSILON))
        self.xca = CrossCovarianceAttention(channels, rank_share)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.mlp = Mlp(channels, rank_share)
        self.gamma = nn.Parameter(torch.full((channels,), EPSILON))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *following = x.chunk(len(self.convs) + 1, dim=1)
        parts = [self.convs[0](first)]
        for conv, part in zip(self.convs[1:], following, strict=False):
            parts.append(conv(parts[-1] + part))
        joined = torch.cat([*parts, following[-1]], dim=1)
        if self.pos_embd is not None:
            joined = joined + self.pos_embd(*joined.shape[2:])
        places = joined.flatten(2).transpose(1, 2)
        places = places + self.gamma_xca * self.xca(self.norm_xca(places))
        mixed = self.gamma * self.mlp(self.norm(places))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Section(nn.Module):
    """Downsampling by 2, except at the start, followed by the blocks of a stage."""

    def __init__(self, inputs: int, stage: Stage, rank_share: float | None) -> None:
        super().__init__()
        self.downsample = nn.Sequential()
        if inputs != stage.channels:
            convolution = nn.Conv2d(inputs, stage.channels, 2, 2)
            self.downsample = nn.Sequential(ChannelNorm(inputs, EPSILON), convolution)
        blocks: list[nn.Module] = [
            ConvBlock(stage.channels, stage.kernel, rank_share)
            for _ in range(stage.depth - bool(stage.scales))
        ]
        if stage.scales:
            blocks.append(AttentionBlock(stage, rank_share))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.downsample(x))


class Head(nn.Module):
    """The mean over all positions, normalised, projected to N×D."""

    def __init__(self, channels: int, embedding_dim: int, rank_share: float | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.fc = _linear(channels, embedding_dim, rank_share)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(x.mean((2, 3))))


class EdgeNeXt(nn.Module):
    """N×3×112×112 float32 RGB in [-1, 1] to N×D embeddings; full linear layers without
    `rank_share`."""

    def __init__(self, embedding_dim: int, rank_share: float | None) -> None:
        super().__init__()
        widths = (STAGES[0].channels, *(stage.channels for stage in STAGES))
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], EPSILON))
        self.stages = nn.Sequential(
            *(Section(n, stage, rank_share) for n, stage in zip(widths, STAGES, strict=False))
        )
        self.head = Head(widths[-1], embedding_dim, rank_share)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(images)))


class EdgeFace(nn.Module):
    """The network inside an attribute `model`, as in the published checkpoints."""

    def __init__(self, embedding_dim: int, rank_share: float | None) -> None:
        super().__init__()
        self.model = EdgeNeXt(embedding_dim, rank_share)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)


def _depthwise(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


def edgeface_xs(embedding_dim: int = 512) -> nn.Module:
    """Return an untrained EdgeFace-XS (γ = 0.6) for 112×112 faces; 1.8 million parameters."""
    return EdgeFace(embedding_dim, RANK_SHARE)
