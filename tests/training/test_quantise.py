"""An int8 file and its descriptor are written beside the weights; what NNCF does is measured by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recognition.networks import KNOWN_NETWORKS, WeightsFile, int8
from recognition.networks.descriptor import WeightsDescriptor, full_hash, write_descriptor
from recognition.networks.int8 import int8_runtime, made_from
from tests.small_network import Small
from training import quantise
from training.faces import Faces


def test_file_names_what_it_was_made_from(tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "build", lambda network, path: Small().eval())
    monkeypatch.setattr(quantise, "quantise", lambda model, crops: model)
    monkeypatch.setattr(quantise, "version", lambda name: "3.4.0")
    source = tmp_path / "mine.ckpt"
    source.write_bytes(b"weights")
    sha256 = full_hash(WeightsFile(source, ""))
    known = WeightsDescriptor(sha256=sha256, licence="ours", measured={"accuracy": 0.9})
    write_descriptor(WeightsFile(source, sha256[:16]), known)

    target = quantise.make_int8(KNOWN_NETWORKS["mobilenetv3_large"], source, np.zeros(0))
    assert target.name == "mobilenetv3_large.int8.npz"
    assert made_from(target, "new") == sha256
    assert int8_runtime(target).run(np.zeros((3, 112, 112, 3), np.uint8)).shape == (3, 512)
    monkeypatch.setattr(int8, "agreement", lambda *_embeddings: 0.9)
    with pytest.raises(ValueError, match="cosine of 0.9"):
        int8_runtime(target)
    told = (tmp_path / f"{target.name}.json").read_text()
    assert "mine.ckpt" in told and "ours" in told and '"measured": {}' in told


@pytest.mark.parametrize(("count", "drawn"), [(2, 2), (9, 4)])
def test_crops_are_drawn_once_each(count, drawn):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    faces = Faces(np.array([]), images, np.array([]), [])
    chosen = quantise.some_crops(faces, count, seed=0).ravel().tolist()
    assert len(set(chosen)) == drawn and chosen == sorted(chosen)
