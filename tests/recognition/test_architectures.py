"""The networks have exactly the tensors of the published checkpoints, and keep their input contract."""

import json
from pathlib import Path

import pytest
import torch

from recognition.networks.mobilenetv3 import mobilenetv3_large
from recognition.networks.resnet import cosface_resnet50

CHECKPOINTS = Path(__file__).parent / "checkpoints"
NETWORKS = pytest.mark.parametrize(
    ("build", "checkpoint", "parameters"),
    [
        pytest.param(mobilenetv3_large, "mobilenetv3_large", 3_526_568, id="mobilenetv3_large"),
        pytest.param(cosface_resnet50, "resnet50_cosface", 24_557_632, id="cosface_resnet50"),
    ],
)


@NETWORKS
def test_tensors_match_the_published_checkpoint(build, checkpoint, parameters):
    expected = json.loads((CHECKPOINTS / f"{checkpoint}.json").read_text())
    network = build()
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@NETWORKS
def test_embeds_crops_of_112_pixels_without_normalising(build, checkpoint, parameters):
    network = build().eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        embeddings = network(torch.rand(2, 3, 112, 112) * 2 - 1)
    assert embeddings.shape == (2, 512)
    assert embeddings.dtype == torch.float32
    assert not torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-3)


@NETWORKS
def test_embedding_size_follows_the_argument(build, checkpoint, parameters):
    with torch.inference_mode():
        assert build(embedding_dim=64).eval()(torch.zeros(1, 3, 112, 112)).shape == (1, 64)


def test_mobilenet_halves_the_resolution_four_times():
    """The published stem has stride 1: a stride of 2 loads just as well and embeds badly."""
    network = mobilenetv3_large().eval()
    x, sizes = torch.zeros(1, 3, 112, 112), []
    with torch.inference_mode():
        for stage in network.features:
            x = stage(x)
            sizes.append(x.shape[-1])
    assert sizes == [112, 112, 56, 56, 28, 28, 28] + [14] * 6 + [7] * 4
    assert x.shape[1] == 960


def test_every_batch_norm_has_the_published_epsilon():
    for build in (mobilenetv3_large, cosface_resnet50):
        norms = [
            m
            for m in build().modules()
            if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))
        ]
        assert len(norms) > 40
        assert {norm.eps for norm in norms} == {1e-5}
