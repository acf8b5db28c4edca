"""The last layer that is solved instead of learned."""

import numpy as np
import pytest
import torch
from torch import nn

import training.last_layer
from recognition.alignment import TEMPLATE
from recognition.networks.mobilenetv3 import mobilenetv3_large
from recognition.networks.resnet import cosface_resnet50
from training.faces import open_pack, read_teacher
from training.last_layer import (
    Regression,
    cut_again,
    last_layer,
    put_last_layer,
    solve_last_layer,
)


@pytest.fixture(params=[mobilenetv3_large, cosface_resnet50])
def network(request) -> nn.Module:
    """An untrained network that tells pictures apart, as its batch norms have seen some."""
    torch.manual_seed(0)
    made = request.param()
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = 1
    patterns = torch.randn(16, 3, 4, 4).repeat_interleave(28, 2).repeat_interleave(28, 3)
    with torch.no_grad():
        made.train()(patterns)
    return made.eval()


def embed(network: nn.Module, crops: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        pixels = torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2)
        embeddings = network(pixels.float() / 127.5 - 1).numpy()
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def test_parts_give_the_exact_answer():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(3, 2, (60, 7)), rng.normal(size=(7, 4))
    regression = Regression(7, 4)
    for part in np.split(features, [10, 35]):
        regression.add(part, part @ weights + 5)

    assert np.allclose(regression.solve(0), np.vstack([weights, np.full(4, 5)]))
    shrunk = regression.solve(1e9)
    assert np.allclose(shrunk[:-1], 0, atol=1e-6)
    assert np.allclose(shrunk[-1], (features @ weights + 5).mean(0), atol=1e-5)


def test_a_turn_keeps_cosines_and_finds_the_present_space():
    rng = np.random.default_rng(1)
    features, solved = rng.normal(size=(50, 6)), rng.normal(size=(7, 3))
    regression = Regression(6, 3)
    regression.add(features, np.zeros((50, 3)))
    turned_away = np.linalg.qr(rng.normal(size=(8, 3)))[0].T
    present = solved @ turned_away * 20

    assert np.allclose(regression.turn(solved, present), present)


def test_the_layer_that_is_there_can_be_put_back(network):
    crops = np.random.default_rng(2).integers(0, 256, (4, 112, 112, 3), np.uint8)
    before = embed(network, crops)

    put_last_layer(network, last_layer(network))

    assert np.allclose(embed(network, crops), before, atol=1e-4)


def test_landmarks_of_the_template_cut_the_same_crop_again():
    crops = np.random.default_rng(3).integers(0, 256, (8, 112, 112, 3), np.uint8)

    cut = cut_again(crops, TEMPLATE[None], np.random.default_rng(0))

    same = [(again == crop).all() for crop, again in zip(crops, cut, strict=True)]
    mirrored = [(again == crop[:, ::-1]).all() for crop, again in zip(crops, cut, strict=True)]
    assert any(same)
    assert any(mirrored)
    assert all(a or b for a, b in zip(same, mirrored, strict=True))


def test_a_solved_network_gives_what_the_teacher_says(network, pack, teacher, monkeypatch):
    monkeypatch.setattr(training.last_layer, "found_landmarks", lambda crops: TEMPLATE[None])
    faces = open_pack(pack)
    targets = read_teacher([teacher], faces.names.tolist())

    def error() -> float:
        embeddings = embed(network, faces.images)
        return float(np.abs(embeddings @ embeddings.T - targets @ targets.T).mean())

    before = error()
    solve_last_layer(network, faces, targets, ridge=1e-3, seed=0, cuts=4)

    assert error() < before / 2


def test_crops_without_faces_are_refused(pack, teacher):
    faces = open_pack(pack)
    targets = read_teacher([teacher], faces.names.tolist())

    with pytest.raises(SystemExit, match="No face was found in 4 crops"):
        solve_last_layer(mobilenetv3_large(), faces, targets, ridge=1e-3, seed=0, cuts=4)
