"""Solve the last layer of a network instead of learning it: `python -m training.last_layer MODEL --pack pack
--teacher teacher_joint.npz --initial trained.safetensors --weights solved.safetensors`.

The layer is linear, so what training approaches step by step has an exact answer: the ridge regression
(Hoerl and Kennard 1970) of the teacher's directions on the features before the layer, over all crops.
Each crop counts twice: as it is, and cut as the service's detector would cut it, half of these mirrored.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path

import django
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from recognition.alignment import TEMPLATE, align_face
from recognition.networks import KNOWN_NETWORKS, build
from recognition.networks.registry import NETWORKS
from recognition.networks.runtime import convert_to_openvino, import_openvino
from training.export import export
from training.faces import Faces, open_pack, read_teacher
from training.losses import fit_orthonormal_map

TOGETHER = 256  # crops read at once
BORDER = 28  # pixels of repeated edge around a crop in which a face is looked for
FARTHEST = 15  # pixels from the template; farther landmarks are of something else


def found_landmarks(crops: np.ndarray) -> np.ndarray:
    """Return where MTCNN finds the landmarks of aligned crops (N×112×112×3 uint8 RGB): M×5×2 (x, y)."""
    from recognition.detection.mtcnn import MtcnnDetector

    detector, border = MtcnnDetector(), ((BORDER, BORDER), (BORDER, BORDER), (0, 0))
    found = [detector.detect(np.pad(crop, border, "edge"), 0.9)[:1] for crop in tqdm(crops)]
    points = np.array([face.landmarks - BORDER for faces in found for face in faces])
    near = np.abs(points.reshape(-1, 5, 2) - TEMPLATE).max((1, 2)) < FARTHEST
    return points.reshape(-1, 5, 2)[near]


def cut_again(crops: np.ndarray, landmarks: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Return N×112×112×3 uint8 crops aligned by landmarks drawn from M×5×2, half of them mirrored."""
    cut = np.empty_like(crops)
    for crop, target in zip(crops, cut, strict=True):
        again = align_face(crop, landmarks[chance.integers(len(landmarks))])
        target[:] = again[:, ::-1] if chance.random() < 0.5 else again
    return cut


class Regression:
    """Ridge regression of N×D targets on N×K features, which come in parts."""

    def __init__(self, features: int, targets: int) -> None:
        self.products = np.zeros(
            (features + 1, features + 1)
        )  # of the features and a column of ones
        self.towards = np.zeros((features + 1, targets))

    def add(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Take in N×K features and N×D targets."""
        wide = np.hstack([features, np.ones((len(features), 1))]).astype(np.float64)
        self.products += wide.T @ wide
        self.towards += wide.T @ targets

    def solve(self, ridge: float) -> np.ndarray:
        """Return (K+1)×D: weights and, in the last row, the bias. `ridge` is relative to the features'
        mean variance; the bias is not shrunk."""
        count = self.products[-1, -1]
        mean, centre = self.products[-1, :-1] / count, self.towards[-1] / count
        spread = self.products[:-1, :-1] / count - np.outer(mean, mean)
        common = self.towards[:-1] / count - np.outer(mean, centre)
        size = ridge * np.trace(spread) / len(spread)
        weights = np.linalg.solve(spread + size * np.eye(len(spread)), common)
        return np.vstack([weights, centre - mean @ weights])

    def turn(self, solved: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Return `solved` ((K+1)×D) turned into the space of `present` ((K+1)×E) as near as no cosine
        changes (Procrustes), and of its size."""
        sources, wanted = (torch.from_numpy(each) for each in (solved, self.products @ present))
        turned: np.ndarray = solved @ fit_orthonormal_map(sources, wanted).numpy()
        return turned * np.linalg.norm(present[:-1]) / np.linalg.norm(turned[:-1])


def end_of(network: nn.Module) -> tuple[str, nn.Linear, nn.BatchNorm1d]:
    """Return the name of the part that the network ends with, its linear layer and its batch norm."""
    name, end = next(
        (name, part)
        for name, part in network.named_modules()
        if isinstance(part, nn.Sequential) and isinstance(part[-1], nn.BatchNorm1d)
    )
    linear, norm = end
    return name, linear, norm


def without_end(network: nn.Module) -> nn.Module:
    """Return a copy of the network that gives the features before its last layer."""
    copied = copy.deepcopy(network)
    parent, _, own = end_of(network)[0].rpartition(".")
    setattr(copied.get_submodule(parent), own, nn.Identity())
    return copied


def last_layer(network: nn.Module) -> np.ndarray:
    """Return the last linear layer and its batch norm as (K+1)×512: weights, and the bias below."""
    _name, linear, norm = end_of(network)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias - scale * norm.running_mean
    joined = torch.cat([(linear.weight * scale[:, None]).T, bias[None]])
    return joined.detach().double().numpy()


def put_last_layer(network: nn.Module, solved: np.ndarray) -> None:
    """Let the network end in these (K+1)×512 weights and bias."""
    _name, linear, norm = end_of(network)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(solved[:-1].T.copy()))
        norm.bias.copy_(torch.from_numpy(solved[-1].copy()))
        norm.weight.fill_(1)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)


def solve_last_layer(
    network: nn.Module,
    faces: Faces,
    targets: np.ndarray,
    *,
    ridge: float,
    seed: int,
    cuts: int,
) -> None:
    """Solve the network's last layer for the crops and their N×D targets.

    `cuts` crops are searched for faces, to learn how the service would cut them.
    """
    chance = np.random.default_rng(seed)
    drawn = np.sort(chance.choice(len(faces), min(cuts, len(faces)), replace=False))
    landmarks = found_landmarks(faces.images[drawn])
    if not len(landmarks):
        raise SystemExit(f"No face was found in {len(drawn)} crops. Are they aligned faces?")
    # In bfloat16 where the processor has it.
    features = import_openvino().compile_model(convert_to_openvino(without_end(network)), "CPU")
    present = last_layer(network)
    regression = Regression(len(present) - 1, targets.shape[1])
    for start in tqdm(range(0, len(faces), TOGETHER), desc="features"):
        crops = np.array(faces.images[start : start + TOGETHER])
        for seen in (crops, cut_again(crops, landmarks, chance)):
            regression.add(features(seen)[0], targets[start : start + TOGETHER])
    put_last_layer(network, regression.turn(regression.solve(ridge), present))


def main() -> None:
    """Run it from the command line."""
    options = _parser().parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")
    django.setup()
    faces = open_pack(options.pack)
    targets = read_teacher(options.teacher, faces.names.tolist())
    network = build(KNOWN_NETWORKS[options.model], options.initial)
    solve_last_layer(
        network, faces, targets, ridge=options.ridge, seed=options.seed, cuts=options.cuts
    )
    export(options.model, network.state_dict(), 0, options.weights)
    print(f"{options.weights}: {options.weights.stat().st_size / 1e6:.1f} MB")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", choices=NETWORKS)
    add("--pack", type=Path, required=True, help="of training.pack decode")
    add("--teacher", nargs="+", required=True, help=".npz with names and embedding of clean crops")
    add("--initial", type=Path, required=True, help="trained weights (.safetensors)")
    add(
        "--weights", type=Path, required=True, help="where to write them with the last layer solved"
    )
    add("--ridge", type=float, default=1e-3, help="shrinkage, of the features' variance (0.001)")
    add("--cuts", type=int, default=3000, help="crops in which faces are looked for (3000)")
    add("--seed", type=int, default=0, help="which crops, and how they are cut")
    return parser


if __name__ == "__main__":
    main()
