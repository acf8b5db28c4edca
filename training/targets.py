"""What the crops are taught: a teacher's directions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from training.faces import Faces, read_teacher
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

    def of(
        self, rows: torch.Tensor, mix: Mix | None = None, recombined: Recombined | None = None
    ) -> torch.Tensor:
        """Return N×D directions of length 1: the teacher's of the clean crops, mixed like the pictures.

        About recombined crops the live teacher is asked, before they are augmented.
        """
        given = self.directions[rows]
        if recombined:
            given[recombined.places] = self.teacher(recombined.crops)
        if mix:
            given = mix.share * given + (1 - mix.share) * given[mix.partner]
            given = functional.normalize(given)
        return given


def fixed_targets(files: Sequence[str | Path], faces: Faces, device: torch.device) -> Targets:
    """Return targets from files with a teacher's vectors of the clean crops."""
    vectors = torch.from_numpy(read_teacher(files, faces.names.tolist()))
    return Targets(vectors.to(device), None)


def live_targets(
    edgeface_file: Path,
    reidentification_file: Path,
    faces: Faces,
    pack: Path,
    device: torch.device,
    *,
    compiled: bool = False,
) -> Targets:
    """Return targets from both published networks; their vectors of the clean crops are cached.

    `compiled` lets them be compiled for the pictures that they are asked about.
    """
    members = [edgeface(edgeface_file), Reidentification(reidentification_file)]
    if device.type == "cpu":
        members = [ProcessorMember(member) for member in members]
    teacher = JointTeacher(members, compiled=compiled).to(device)
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
