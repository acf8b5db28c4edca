"""The Triton kernels compute what PyTorch computes, in Triton's interpreter; and a speed is told."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training import speed
from training.layers import suit_gpu, untrained

ROOT = Path(__file__).parents[2]


def compare() -> None:
    """Compare small layers, forwards and backwards; Triton reads its environment at import.

    The channels take a part of a program's tile, or one tile and a part.
    """
    from training import gpu_kernels

    gpu_kernels.CHUNK = 64
    for channels, side, stride, pixels in (
        (72, 3, 1, 6),
        (72, 3, 2, 7),
        (40, 5, 1, 5),
        (40, 5, 2, 6),
    ):
        torch.manual_seed(0)
        plain = nn.Conv2d(channels, channels, side, stride, side // 2, groups=channels)
        own = copy.deepcopy(plain)
        assert suit_gpu(nn.Sequential(own)) == "1 layers of gpu_kernels.py"
        given = [torch.randn(2, channels, pixels, pixels, requires_grad=True)]
        given.append(given[0].detach().clone().requires_grad_())
        outputs = plain(given[0]), own(given[1])
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
        change = torch.randn_like(outputs[0])
        for output in outputs:
            output.backward(change)
        torch.testing.assert_close(given[1].grad, given[0].grad, rtol=1e-4, atol=1e-5)
        for name in ("weight", "bias"):
            gradients = (getattr(layer, name).grad for layer in (own, plain))
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
        sys.stdout.write("agree\n")


def test_depthwise_layers_and_their_gradients_are_pytorchs():
    pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.count("agree") == 4, run.stderr


def test_only_padded_depthwise_layers_are_replaced():
    pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs")
    assert suit_gpu(untrained("mobilenetv3_large")) == "15 layers of gpu_kernels.py"
    assert suit_gpu(untrained("cosface_resnet50")) == "0 layers of gpu_kernels.py"


def test_every_part_of_a_step_is_timed(capsys, monkeypatch):
    monkeypatch.setattr(speed, "WAYS", ((False, False),))
    speed.main(["mobilenetv3_large", "--batch", "4", "--repeats", "1", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "augmentation", "recombining", "mobilenetv3_large, kernels False, compiled False"
    ]  # fmt: skip


if __name__ == "__main__":
    compare()
