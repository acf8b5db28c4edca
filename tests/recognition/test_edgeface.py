"""EdgeFace-XS: the layers of the published network, and a third network in the service."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from recognition.networks import KNOWN_NETWORKS, NETWORKS, build
from recognition.networks.edgeface import EdgeNeXt, edgeface_xs
from tests.conftest import FACES_DIR, ROOT

WHOLE = FACES_DIR.parent / "models" / "edgeface_xs.safetensors"
# What timm 1.0.31 gives for the crop of `ramp` with those weights: the first five of 512, and the length.
EXPECTED = ([0.00931, 0.04525, 0.02159, -0.01486, -0.04714], 2.1179)


@pytest.fixture
def ramp() -> torch.Tensor:
    """Return the same 1×3×112×112 tensor in [-1, 1] on every machine."""
    return torch.linspace(-1, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)


def test_layout_is_that_of_the_published_checkpoint():
    """1.77 million parameters, as in the paper for γ = 0.6, with low-rank layers."""
    network = edgeface_xs()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_770_492
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["model.stages.1.blocks.2.xca.qkv.linear1.weight"] == (38, 64)
    assert shapes["model.stages.1.blocks.2.xca.qkv.linear2.weight"] == (192, 38)
    assert shapes["model.head.fc.linear2.bias"] == (512,)
    assert all(name.startswith("model.") for name in shapes)


def test_layers_compute_what_the_published_ones_do(ramp):
    if not WHOLE.exists():
        pytest.skip(f"The published network is not at {WHOLE}.")
    from safetensors.torch import load_file

    network = EdgeNeXt(512, None)
    network.load_state_dict({name: value.float() for name, value in load_file(WHOLE).items()})
    with torch.inference_mode():
        embedding = network.eval()(ramp)[0]
    first, length = EXPECTED
    assert embedding[:5].tolist() == pytest.approx(first, abs=1e-4)
    assert float(embedding.norm()) == pytest.approx(length, abs=1e-3)


def test_checkpoint_loads_through_the_same_door_as_every_other(tmp_path, ramp):
    torch.manual_seed(0)
    network = edgeface_xs().eval()
    path = tmp_path / "edgeface_xs.ckpt"
    torch.save(network.state_dict(), path)
    loaded = build(KNOWN_NETWORKS["edgeface_xs"], path)
    with torch.inference_mode():
        assert torch.equal(loaded(ramp), network(ramp))


def test_it_is_known_to_the_service_only_when_asked_for(tmp_path):
    assert "edgeface_xs" not in NETWORKS
    script = "from recognition.networks import NETWORKS; print(*NETWORKS)"
    environment = os.environ | {"EXTRA_NETWORKS": "edgeface_xs", "ENV_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", script],
        cwd=ROOT,
        env=environment
        | {"DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "faceproject.settings"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["mobilenetv3_large", "cosface_resnet50", "edgeface_xs"], (
        done.stderr
    )
