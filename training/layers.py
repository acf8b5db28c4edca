"""Variants of the networks' layers for training: for other picture sizes, and with our kernels.

They keep parameters and names, so that the trained weights have the published layout.
"""

from __future__ import annotations

import torch
from django.utils.module_loading import import_string
from torch import nn
from torch.nn import functional

from recognition.networks.mobilenetv3 import GlobalDepthwise, SqueezeExcitation
from recognition.networks.registry import get_network
from training import kernels


def untrained(model: str) -> nn.Module:
    """Return the network that the service calls `model`, with random weights."""
    return import_string(get_network(model).builder)()


class AnySizeGlobalDepthwise(GlobalDepthwise):
    """The 7×7 weighting interpolated to the size of the input: N×C×H×W to N×C×1×1.

    It allows training MobileNetV3 at 80 pixels, where 5×5 are left. It is a weighted sum, which is
    faster than a convolution.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm = self.layers
        weight = conv.weight.transpose(0, 1)  # 1×C×7×7
        size, learned = x.shape[-2:], weight.shape[-2:]
        if size != learned:
            share = learned.numel() / size.numel()
            weight = share * functional.interpolate(
                weight, size=size, mode="bilinear", align_corners=True
            )
        return norm((x.float() * weight).sum((2, 3), keepdim=True))


class FusedConvNorm(nn.Sequential):
    """Convolution, batch norm and activation with the kernels; N×C×H×W channels-last bfloat16.

    Only in training mode; evaluation uses the original layers.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        conv, norm = self[0], self[1]
        if conv.groups > 1:
            x = kernels.depthwise(x, conv.weight, conv.stride[0])
        elif conv.kernel_size == (1, 1):
            x = kernels.pointwise(x, conv.weight)
        else:  # the stem; norm_activation takes its bias into account
            x = functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)
        return kernels.norm_activation(x, conv.bias, norm, self[2] if len(self) > 2 else None)


class FusedSqueezeExcitation(SqueezeExcitation):
    """Means and scaling with the kernels; the two small layers between them in float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            gate = self.fc2(self.fc1(kernels.mean(x)).relu())
            return kernels.scale(x, functional.hardsigmoid(gate))


def suit_sizes(network: nn.Module) -> nn.Module:
    """Let the network be trained at sizes other than 112 pixels, in place; return it."""
    for layer in network.modules():
        if type(layer) is GlobalDepthwise:
            layer.__class__ = AnySizeGlobalDepthwise
    return network


def suit_processor(network: nn.Module) -> str:
    """Use the kernels in a network with depthwise layers, in place; return what was done."""
    if not any(isinstance(layer, SqueezeExcitation) for layer in network.modules()):
        return "plain layers, whose convolutions are what takes the time"
    if reason := kernels.unavailable():
        return f"plain layers, half as fast: {reason}"
    for layer in network.modules():
        if type(layer) is SqueezeExcitation:
            layer.__class__ = FusedSqueezeExcitation
        elif type(layer) is nn.Sequential and _is_conv_norm(layer):
            layer.__class__ = FusedConvNorm
    return "kernels.cpp"


def suit_gpu(network: nn.Module) -> str:
    """Use the Triton kernels for depthwise layers, in place; return what was done."""
    try:
        from training.gpu_kernels import DepthwiseConvolution
    except ImportError:
        return "plain layers, slower where they are depthwise: Triton is not installed"
    layers = [layer for layer in network.modules() if _is_depthwise(layer)]
    for layer in layers:
        layer.__class__ = DepthwiseConvolution
    return f"{len(layers)} layers of gpu_kernels.py"


def _is_depthwise(layer: nn.Module) -> bool:
    """Tell whether it convolves each channel by itself, padded to keep the size."""
    if type(layer) is not nn.Conv2d or layer.groups == 1 or layer.groups != layer.out_channels:
        return False
    return layer.padding == (layer.kernel_size[0] // 2,) * 2


def _is_conv_norm(layer: nn.Sequential) -> bool:
    return [type(part) for part in layer[:2]] == [nn.Conv2d, nn.BatchNorm2d]
