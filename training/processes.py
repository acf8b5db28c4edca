"""Several processes of one run, one for each core, started by `torchrun`.

Each trains on batches of its own, and all take the same step: their gradients are averaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import distributed


def join() -> None:
    """Meet the other processes that `torchrun` started; do nothing without it."""
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")


def number() -> int:
    """Return which process this is, 0 for the first or only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def average(tensors: Iterable[torch.Tensor]) -> None:
    """Replace the tensors, of one type, by their means over all processes."""
    tensors = list(tensors)
    if not distributed.is_initialized() or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= count()
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, mean in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(mean.view_as(tensor))


def agree(figure: float) -> float:
    """Return the first process's figure, so that all decide alike."""
    if not distributed.is_initialized():
        return figure
    told = torch.tensor(figure, dtype=torch.float64)
    distributed.broadcast(told, 0)
    return float(told)
