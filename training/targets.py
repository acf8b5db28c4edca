"""Target embeddings of the crops: a teacher's directions mapped to 512 dimensions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from recognition.networks.registry import EMBEDDING_DIM
from training.faces import Faces, read_teacher
from training.losses import fit_orthonormal_map, orthonormal_map
from training.recombination import Recombined
from training.teachers import JointTeacher, ProcessorMember, Reidentification, edgeface

CACHE = "joint_teacher.pt"  # in the pack: the live teacher's means and its vectors of the crops


class Mix(NamedTuple):
    """Mixup: picture i is `share` of itself and the rest of picture `partner[i]`; N×1 and N."""

    partner: torch.Tensor
    share: torch.Tensor


class Targets:
    """The teacher's directions of all clean crops, N×D, and the teacher itself if it is live."""

    def __init__(self, directions: torch.Tensor, teacher: JointTeacher | None) -> None:
        self.directions, self.teacher = directions, teacher
        self.map = torch.empty(0)

    def fit_map(self, rows: torch.Tensor, outputs: torch.Tensor | None, seed: int) -> float | None:
        """Choose the orthonormal map to the network's dimensions.

        With the network's `outputs` for the crops at `rows`, it is the map that agrees best with
        them, so that their knowledge is kept; return the mean cosine. Without `outputs` it is
        random; return None.
        """
        if outputs is None:
            generator = torch.Generator().manual_seed(seed)
            turn = orthonormal_map(self.directions.shape[1], EMBEDDING_DIM, generator)
            self.map = turn.to(self.directions.device)
            return None
        given = self.directions[rows]
        self.map = fit_orthonormal_map(given, outputs.to(given.device))
        return float((given @ self.map * outputs.to(given.device)).sum(1).mean())

    def of(
        self, rows: torch.Tensor, mix: Mix | None = None, recombined: Recombined | None = None
    ) -> torch.Tensor:
        """Return N×512 targets of length 1: the teacher's vectors of the clean crops, mixed like the
        pictures.

        About recombined crops the live teacher is asked, before they are augmented.
        """
        given = self.directions[rows]
        if recombined:
            given[recombined.places] = self.teacher(recombined.crops)
        if mix:
            given = mix.share * given + (1 - mix.share) * given[mix.partner]
            given = functional.normalize(given)
        return given @ self.map


def fixed_targets(files: Sequence[str | Path], faces: Faces, device: torch.device) -> Targets:
    """Return targets from files with a teacher's vectors of the clean crops."""
    vectors = torch.from_numpy(read_teacher(files, faces.names.tolist()))
    return Targets(vectors.to(device), None)


def live_targets(
    edgeface_file: Path, reidentification_file: Path, faces: Faces, pack: Path, device: torch.device
) -> Targets:
    """Return targets from both published networks; their vectors of the clean crops are cached."""
    members = [edgeface(edgeface_file), Reidentification(reidentification_file)]
    if device.type == "cpu":
        members = [ProcessorMember(member) for member in members]
    teacher = JointTeacher(members).to(device)
    cache = pack / CACHE
    if cache.exists():
        state = torch.load(cache, map_location=device, weights_only=True)
        if len(state["directions"]) == len(faces):
            teacher.means, teacher.turn = state["means"], state["turn"]
            return Targets(state["directions"].float(), teacher)
    directions = teacher.fit(faces.images)
    state = {"means": teacher.means, "turn": teacher.turn, "directions": directions.half()}
    partial = cache.with_suffix(f".{os.getpid()}")
    torch.save(state, partial)
    partial.replace(cache)  # two runs may share the pack
    return Targets(directions, teacher)
