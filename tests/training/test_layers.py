"""The faster layers compute what the network's own do, forwards and backwards."""

import copy

import torch
from torch import nn

from training.layers import Float32DepthwiseConv, RectifiedPReLU, suit_processor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        nn.PReLU(4),
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
        nn.Conv2d(4, 8, 1),
    )


def gradients(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    module(x).square().sum().backward()
    return [parameter.grad for parameter in module.parameters()]


def test_only_the_slow_layers_are_replaced():
    kinds = [type(layer) for layer in suit_processor(network())]
    assert kinds == [Float32DepthwiseConv, RectifiedPReLU, Float32DepthwiseConv, nn.Conv2d]


def test_outputs_gradients_and_names_stay():
    usual = network()
    faster = suit_processor(copy.deepcopy(usual))
    x = torch.randn(2, 4, 16, 16)
    torch.testing.assert_close(faster(x), usual(x))
    for got, expected in zip(gradients(faster, x), gradients(usual, x), strict=True):
        torch.testing.assert_close(got, expected)
    assert list(faster.state_dict()) == list(usual.state_dict())


def test_autocast_goes_on_around_the_float32_layer():
    first, slow = suit_processor(nn.Sequential(nn.Conv2d(4, 4, 1), network()[0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert slow(first(torch.randn(1, 4, 8, 8))).dtype == torch.bfloat16
