"""An int8 file and its descriptor are written beside the weights; what NNCF does is measured by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from recognition.networks import NETWORKS, WeightsFile, int8
from recognition.networks.descriptor import WeightsDescriptor, write_descriptor
from recognition.networks.int8 import int8_runtime, made_from
from recognition.networks.runtime import OpenVinoRuntime, agreement, convert_to_openvino
from recognition.networks.weights import file_hash
from training import quantise
from training.faces import Faces
from training.last_layer import last_layer, without_end

if TYPE_CHECKING:
    import openvino


class Network(nn.Module):
    """Some pixels, a layer, and an end as the networks have it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(48, 32)
        self.end = nn.Sequential(nn.Linear(32, 512, bias=False), nn.BatchNorm1d(512))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(images[:, :, ::28, ::28].flatten(1)))


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def moved(network: nn.Module, _crops: np.ndarray, _exact: object = ()) -> openvino.Model:
    """The network without its last layer, whose features are scaled and moved."""
    moved = without_end(network)
    with torch.no_grad():
        moved.body.weight.mul_(torch.linspace(0.7, 1.3, 32)[:, None])
        moved.body.bias.add_(1)
    return convert_to_openvino(moved)


def test_file_names_what_it_was_made_from(tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "build", lambda network, path: Network().eval())
    monkeypatch.setattr(quantise, "quantise", moved)
    monkeypatch.setattr(quantise, "version", lambda name: "3.4.0")
    source = tmp_path / "mine.ckpt"
    source.write_bytes(b"weights")
    sha256 = file_hash(source)
    known = WeightsDescriptor(sha256=sha256, licence="ours", measured={"accuracy": 0.9})
    write_descriptor(WeightsFile(source, sha256[:16]), known)

    target = quantise.make_int8(NETWORKS["mobilenetv3_large"], source, crops(2), crops(60))
    assert target.name == "mobilenetv3_large.int8.npz"
    assert made_from(target, "new") == sha256
    assert int8_runtime(target).run(np.zeros((3, 112, 112, 3), np.uint8)).shape == (3, 512)
    monkeypatch.setattr(int8, "agreement", lambda *_embeddings: 0.9)
    with pytest.raises(ValueError, match="cosine of 0.9"):
        int8_runtime(target)
    told = (tmp_path / f"{target.name}.json").read_text()
    assert "mine.ckpt" in told and "ours" in told and '"measured": {}' in told


def test_last_layer_makes_good_what_int8_changes_before_it():
    network = Network().eval()
    exact = OpenVinoRuntime(convert_to_openvino(network), threads=1).run(crops(40))
    quantised = moved(network, crops(1))
    as_it_was = OpenVinoRuntime(quantised, threads=1).run(crops(40)) @ last_layer(network)[:-1]

    model = quantise.with_last_layer(quantised, network, crops(300))
    solved = OpenVinoRuntime(model, threads=1).run(crops(40))
    assert agreement(solved, exact) > 0.99 > 0.9 > agreement(as_it_was, exact)


@pytest.mark.parametrize(("count", "drawn"), [(2, 2), (9, 4)])
def test_crops_are_drawn_once_each(count, drawn):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    faces = Faces(np.array([]), images, np.array([]), [])
    chosen = quantise.some_crops(faces, count, seed=0).ravel().tolist()
    assert len(set(chosen)) == drawn and chosen == sorted(chosen)
