"""The kernels compute what PyTorch's layers compute, forward and backward, within bfloat16
precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from recognition.networks.mobilenetv3 import SqueezeExcitation, mobilenetv3_large
from training import kernels
from training.layers import FusedConvNorm, FusedSqueezeExcitation, suit_processor, suit_sizes

needs_kernels = pytest.mark.usefixtures("_built")


@pytest.fixture(scope="module")
def _built() -> None:
    """Compile the kernels, which takes too long for whoever only looks for tests."""
    if reason := kernels.unavailable():
        pytest.skip(f"no kernels: {reason}")


def pictures(*shape: int) -> torch.Tensor:
    """Return random numbers that bfloat16 represents exactly, channels last."""
    x = torch.randn(shape).bfloat16().float()
    return x.contiguous(memory_format=torch.channels_last)


def conv_norm(kernel: int, channels: int, out: int, stride: int, activation: nn.Module | None):
    groups = channels if kernel > 1 else 1
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups)
    conv.weight.data = conv.weight.data.bfloat16().float()
    norm = nn.BatchNorm2d(out)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return nn.Sequential(conv, norm, *([activation] if activation else []))


def compare(usual: nn.Module, fused_type: type, x: torch.Tensor) -> None:
    """Compare output, gradients and running statistics of the layer and its copy with the kernels."""
    fused = copy.deepcopy(usual)
    fused.__class__ = fused_type
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = usual(inputs[0]), fused(inputs[1]).float()
    near(outputs[1], outputs[0], 0.01)
    upstream = pictures(*outputs[0].shape)
    for output in outputs:
        output.backward(upstream)
    near(inputs[1].grad, inputs[0].grad, 0.05)
    for (name, expected), got in zip(usual.named_parameters(), fused.parameters(), strict=True):
        if got.grad is None:  # the bias before a norm, which takes it away
            assert name == "0.bias" and expected.grad.abs().max() < 1e-3
        else:
            near(got.grad, expected.grad, 0.05)
    for got, expected in zip(fused.buffers(), usual.buffers(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0.02, atol=2e-3)


def near(got: torch.Tensor, expected: torch.Tensor, most: float) -> None:
    assert got.shape == expected.shape
    # One pixel that rounding carries over a bend of the activation is up to three per cent here.
    error = (got.float() - expected).norm() / expected.norm()
    assert error < most, f"{error:.4f} off"


@needs_kernels
@pytest.mark.parametrize(
    ("kernel", "channels", "out", "stride"),
    [
        (1, 16, 24, 1),
        (1, 40, 72, 1),
        (3, 16, 16, 1),
        (3, 24, 24, 2),
        (5, 72, 72, 2),
        (5, 40, 40, 1),
    ],
)
@pytest.mark.parametrize("activation", [None, nn.PReLU, nn.Hardswish])
def test_a_fused_layer_is_the_layer(kernel, channels, out, stride, activation):
    torch.manual_seed(kernel + channels)
    made = nn.PReLU(out, init=0.2) if activation is nn.PReLU else activation and activation()
    compare(
        conv_norm(kernel, channels, out, stride, made), FusedConvNorm, pictures(3, channels, 10, 7)
    )


@needs_kernels
def test_squeeze_and_excitation_is_the_same():
    torch.manual_seed(1)
    compare(SqueezeExcitation(40), FusedSqueezeExcitation, pictures(3, 40, 5, 6))


@needs_kernels
def test_a_whole_network_learns_the_same_at_another_size():
    torch.manual_seed(2)
    usual = suit_sizes(mobilenetv3_large().to(memory_format=torch.channels_last))
    fused = copy.deepcopy(usual)
    assert suit_processor(fused) == "kernels.cpp"
    assert list(fused.state_dict()) == list(usual.state_dict())
    x, target = pictures(12, 3, 48, 48), functional.normalize(torch.randn(12, 512))
    plain = _in_bfloat16(copy.deepcopy(usual), x)
    embeddings = usual(x), _in_bfloat16(fused, x)
    errors = [
        1 - functional.cosine_similarity(embeddings[0], y).mean() for y in (embeddings[1], plain)
    ]
    assert errors[0] < 1.5 * errors[1] < 0.02  # no further from float32 than bfloat16 is anyway
    gradients = []
    for network, embedding in zip((usual, fused), embeddings, strict=True):
        direction = functional.normalize(embedding)
        (1 - (direction * target).sum(1)).mean().backward()
        last = [network.output_layer.fc[0].weight, network.features[-1][0].weight]
        gradients.append(torch.cat([weight.grad.flatten() for weight in last]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.97


def _in_bfloat16(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(x).float()


@needs_kernels
def test_measuring_takes_the_plain_layers():
    network = mobilenetv3_large().eval()
    fused = copy.deepcopy(network)
    suit_processor(fused)
    x = pictures(1, 3, 112, 112)
    with torch.inference_mode():
        torch.testing.assert_close(fused.eval()(x), network(x))


def test_without_them_the_plain_layers_stay_and_it_says_so(monkeypatch):
    monkeypatch.setattr(kernels, "unavailable", lambda: "g++ is not installed")
    network = mobilenetv3_large()
    assert suit_processor(network) == "plain layers, half as fast: g++ is not installed"
    assert type(network.features[0]) is nn.Sequential


def test_the_global_layer_takes_any_size_and_is_exact_at_its_own():
    usual = mobilenetv3_large().output_layer.features[0].eval()
    suited = copy.deepcopy(usual)
    suit_sizes(suited)
    x = torch.randn(2, 960, 7, 7)
    torch.testing.assert_close(suited(x), usual(x), rtol=1e-4, atol=1e-5)
    assert suited(torch.ones(2, 960, 5, 5)).shape == (2, 960, 1, 1)
    flat = nn.init.constant_(usual.layers[0].weight, 0.1)
    suited.layers[0].weight.data = flat
    torch.testing.assert_close(suited(torch.ones(1, 960, 5, 5)), usual(torch.ones(1, 960, 7, 7)))
