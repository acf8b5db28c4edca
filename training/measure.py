"""Measures a network on pairs of pictures: `python -m training.measure --help`."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from django.utils.module_loading import import_string
from safetensors.torch import load_file
from torch.nn import functional

from recognition.metrics import equal_error_rate, tar_at_fmr, verification_accuracy
from recognition.networks.registry import NETWORKS, get_network
from training.augmentation import scale
from training.faces import Faces, read_faces


def main() -> None:
    """Prints the figures of one weights file."""
    options = _parser().parse_args()
    network = load_weights(options.model, options.weights)
    if options.pairs:
        print(describe(*pairs_of_file(network, read_faces(options.faces), options.pairs)))
    if options.colour:
        images = read_faces([options.colour]).images[: options.limit]
        print(f"colour crop and its grey copy: mean cosine {grey_cosine(network, images):.4f}")


def load_weights(model: str, path: Path) -> torch.nn.Module:
    """The network `model` in evaluation mode with the weights of a `.safetensors` file."""
    network = import_string(get_network(model).builder)()
    network.load_state_dict(load_file(path), strict=True)
    return network.eval()


@torch.inference_mode()
def embed(network: Callable, images: np.ndarray, batch: int = 64) -> torch.Tensor:
    """N×112×112×3 uint8 RGB to N×512 normalised float32 embeddings on the processor."""
    device = next(network.parameters()).device
    parts = []
    for start in range(0, len(images), batch):
        part = torch.from_numpy(images[start : start + batch]).to(device).permute(0, 3, 1, 2)
        parts.append(functional.normalize(network(scale(part)).float()).cpu())
    return torch.cat(parts)


def pairs_of_file(
    network: torch.nn.Module, faces: Faces, pairs: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and labels of a CSV with the columns image_a, image_b (file stems), same."""
    with pairs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {row[side] for row in rows for side in ("image_a", "image_b")}
    used = faces.subset(np.flatnonzero(np.isin(faces.names, list(wanted))))
    if missing := wanted - set(used.names.tolist()):
        raise SystemExit(
            f"{len(missing)} pictures of the pairs are missing, {missing.pop()} first."
        )
    place = {name: number for number, name in enumerate(used.names.tolist())}
    vectors = embed(network, used.images).numpy()
    left, right = ([place[row[side]] for row in rows] for side in ("image_a", "image_b"))
    same = np.array([row["same"] == "1" for row in rows])
    return (vectors[left] * vectors[right]).sum(1), same


def pairs_of_people(network: torch.nn.Module, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and labels of all pairs, of at most five pictures of each person."""
    places = np.arange(len(faces))
    rank = np.array([(faces.people[:place] == faces.people[place]).sum() for place in places])
    few = faces.subset(places[rank < 5])
    vectors = embed(network, few.images).numpy()
    left, right = np.triu_indices(len(few), 1)
    return (vectors @ vectors.T)[left, right], few.people[left] == few.people[right]


def grey_cosine(network: torch.nn.Module, images: np.ndarray) -> float:
    """Mean cosine between colour crops and their grey copies: what colour itself changes."""
    luma = (images @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    grey = np.repeat(luma[..., None], 3, axis=3)
    return float((embed(network, images) * embed(network, grey)).sum(1).mean())


def describe(similarities: np.ndarray, same: np.ndarray) -> str:
    """The figures of pairs in one line."""
    accuracy = verification_accuracy(similarities, same)
    return (
        f"{same.sum()} same, {(~same).sum()} different: "
        f"accuracy {accuracy.mean:.2%} ± {accuracy.standard_error:.2%}, "
        f"TAR {tar_at_fmr(similarities, same, 0.01):.1%} at FMR 1 %, "
        f"{tar_at_fmr(similarities, same, 0.001):.1%} at FMR 0.1 %, "
        f"EER {equal_error_rate(similarities, same).rate:.2%}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(NETWORKS))
    parser.add_argument("weights", type=Path, help=".safetensors file")
    parser.add_argument("--faces", nargs="+", default=[], help="crops that the pairs name")
    parser.add_argument("--pairs", type=Path, help="CSV with image_a, image_b, same")
    parser.add_argument("--colour", help="colour crops to compare with their grey copies")
    parser.add_argument("--limit", type=int, default=500, help="colour crops at most")
    return parser


if __name__ == "__main__":
    main()
