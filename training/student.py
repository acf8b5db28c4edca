"""A network in training, with all that belongs to it alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from recognition.networks.registry import EMBEDDING_DIM
from training import processes
from training.batches import scale
from training.export import export
from training.faces import Faces
from training.layers import suit_gpu, suit_processor, suit_sizes, untrained
from training.losses import (
    CosFaceHead,
    centres_of_people,
    direction_loss,
    fit_orthonormal_map,
    orthonormal_map,
    similarity_loss,
)
from training.targets import Targets

SAMPLE = 1500  # crops to fit the teacher's map with
LARGEST_GRADIENT = 5.0  # its norm; a larger one is shortened


class Student:
    """A network, the map from the teacher's directions to its embeddings, its optimizer, the
    people's centres, and the moving average of its weights."""

    def __init__(
        self,
        model: str,
        initial: Path | None,
        options: argparse.Namespace,
        faces: Faces,
        rows: np.ndarray,
        targets: Targets | None,
    ) -> None:
        """Take the rows of the pack that are trained on, and targets unless there is no teacher."""
        self.model, self.options, self.device = model, options, torch.device(options.device)
        self.network = untrained(model)
        if initial:
            self.network.load_state_dict(load_file(initial), strict=True)
        self.network.to(self.device, memory_format=torch.channels_last)
        suit_sizes(self.network)
        self.map = self._map(faces, rows, targets, fitted=initial is not None) if targets else None
        if options.amp and options.kernels:
            suit = suit_gpu if self.device.type == "cuda" else suit_processor
            print(f"{model}: {suit(self.network)}", flush=True)
        self.head = self._head(faces, targets)
        self.current = self.network.state_dict()  # these tensors change as the network learns
        self.average = {name: value.clone() for name, value in self.current.items()}
        self.optimizer = self._optimizer()
        self.forward = (
            torch.compile(self.network, dynamic=False) if options.compile else self.network
        )

    def _map(
        self, faces: Faces, rows: np.ndarray, targets: Targets, *, fitted: bool
    ) -> torch.Tensor:
        """Return an orthonormal map from the teacher's dimensions to the network's, D×512.

        `fitted` is the one that agrees best with what the network gives, so that its knowledge is
        kept; the other is random.
        """
        if not fitted:
            generator = torch.Generator().manual_seed(self.options.seed)
            dimensions = targets.directions.shape[1]
            return orthonormal_map(dimensions, EMBEDDING_DIM, generator).to(self.device)
        sample = np.random.default_rng(self.options.seed).permutation(rows)[:SAMPLE]
        outputs = embed(self.network, faces.images[sample], self.options.amp)
        given = targets.directions[torch.from_numpy(sample).to(self.device)]
        fitting = fit_orthonormal_map(given, outputs)
        agreement = (given @ fitting * outputs).sum(1).mean()
        print(f"{self.model} agrees with the teacher to {agreement:.3f}", flush=True)
        return fitting

    def _head(self, faces: Faces, targets: Targets | None) -> CosFaceHead:
        count, people = len(faces.names_of_people), torch.from_numpy(faces.people)
        if targets:
            directions = targets.directions @ self.map
            centres = centres_of_people(directions.cpu(), people, count)
        else:
            centres = functional.normalize(torch.randn(count, EMBEDDING_DIM))
        learned = self.options.train_head or not targets
        head = CosFaceHead(centres, self.options.scale, self.options.margin, learned)
        return head.to(self.device)

    def _optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW without weight decay for norms, slopes and biases."""
        both = [*self.network.parameters(), *self.head.parameters()]
        self.learned = [parameter for parameter in both if parameter.requires_grad]
        matrices = [parameter for parameter in self.learned if parameter.ndim > 1]
        others = [parameter for parameter in self.learned if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.rate, fused=True)

    def learn(
        self,
        images: torch.Tensor,
        directions: torch.Tensor | None,
        people: torch.Tensor,
        rate: float,
        decay: float,
    ) -> dict[str, torch.Tensor]:
        """Take one step on N×3×S×S pictures in [-1, 1]; return its losses, on the device.

        `directions` are the teacher's, N×D, if there is one; `people` are N numbers, or `NOBODY`;
        `decay` is the share of the averaged weights that is kept.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.amp):
            outputs = self.forward(images.contiguous(memory_format=torch.channels_last))
        losses = self._losses(functional.normalize(outputs.float()), directions, people)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        processes.average(p.grad for p in self.learned if p.grad is not None)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        update_average(self.average, self.current, decay)
        return {name: value.detach() for name, value in losses.items()}

    def _losses(
        self, embeddings: torch.Tensor, directions: torch.Tensor | None, people: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        options, losses = self.options, {}
        if directions is not None:
            targets = directions @ self.map
            losses["direction"] = direction_loss(embeddings, targets)
            losses["similarity"] = options.similarity * similarity_loss(embeddings, targets)
        if options.cosface:
            losses["cosface"] = options.cosface * self.head(embeddings, people)
        return losses

    def embed_averaged(self, images: np.ndarray) -> np.ndarray:
        """Embed N×112×112×3 uint8 RGB crops with the averaged weights; return N×512 of length 1."""
        network = untrained(self.model).to(self.device, memory_format=torch.channels_last)
        network.load_state_dict(self.average)
        return embed(network, images, self.options.amp).cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of this network."""
        parts = {
            name: getattr(self, name).state_dict() for name in ("network", "head", "optimizer")
        }
        return {"model": self.model, "average": self.average, "map": self.map, **parts}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        for name in ("network", "head", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.average, self.map = state["average"], state["map"]

    def export(self, target: Path, step: int) -> None:
        """Write the averaged weights for the service."""
        export(self.model, self.average, step, target)


@torch.inference_mode()
def embed(
    network: torch.nn.Module, images: np.ndarray, amp: bool, batch: int = 100
) -> torch.Tensor:
    """Embed N×112×112×3 uint8 RGB crops; return N×512 float32 of length 1 on the network's device."""
    device = next(network.parameters()).device
    network.eval()
    parts = []
    for start in range(0, len(images), batch):
        part = torch.from_numpy(np.array(images[start : start + batch])).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            parts.append(functional.normalize(network(scale(part.permute(0, 3, 1, 2))).float()))
    return torch.cat(parts)


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor], current: dict[str, torch.Tensor], decay: float
) -> None:
    """Move the averaged weights a little towards the current ones, batch statistics included."""
    floats = [name for name, value in current.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[n] for n in floats], [current[n] for n in floats], 1 - decay)
    for name in current.keys() - floats:
        average[name].copy_(current[name])
