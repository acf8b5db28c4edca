"""Trains a face network: `python -m training.train --help`, and training/README.md."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from django.utils.module_loading import import_string
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from recognition.metrics import tar_at_fmr, verification_accuracy
from recognition.networks.registry import CROP_SIZE, EMBEDDING_DIM, NETWORKS, get_network
from training.augmentation import augment
from training.faces import NOBODY, Faces, read_faces, read_teacher, split_people
from training.layers import suit_processor
from training.losses import (
    CosFaceHead,
    centres_of_people,
    direction_loss,
    fit_orthonormal_map,
    orthonormal_map,
    similarity_loss,
)
from training.measure import embed, load_weights, pairs_of_people

WARM_UP = 0.05  # of the schedule
SAMPLE_FOR_MAP = 1024  # crops that the teacher's map is fitted on


@dataclass
class Batch:
    """Pictures N×3×112×112 uint8 RGB, targets N×512 (or none), people N, on the device."""

    images: torch.Tensor
    targets: torch.Tensor | None
    people: torch.Tensor


class Data:
    """Training crops with their targets, dealt in shuffled batches without end."""

    def __init__(self, faces: Faces, targets: torch.Tensor | None, device: torch.device) -> None:
        self.images, self.people = faces.images, torch.from_numpy(faces.people)
        self.targets, self.device = targets, device

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """Batch number `step`; it depends on the seed alone, so a resumed run goes on the same."""
        epoch, place = divmod(step, len(self) // size)
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        index = order[place * size : (place + 1) * size]
        images = torch.from_numpy(self.images[index]).to(self.device).permute(0, 3, 1, 2)
        targets = None if self.targets is None else self.targets[index].to(self.device)
        return Batch(images, targets, self.people[index].to(self.device))


class Trainer:
    """The network with all that changes while it trains."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        faces = read_faces(options.faces)
        train, self.held_out = split_people(faces, options.hold_out, options.seed)
        self.network = _network(options).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cpu":
            suit_processor(self.network)
        targets = self._targets(train)
        self.data = Data(train, targets, self.device)
        self.head = self._head(train, targets)
        self.average = _copy_state(self.network)
        groups = [{"params": self.network.parameters()}, {"params": self.head.parameters()}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=options.rate, weight_decay=options.weight_decay, fused=True
        )
        self.generator = torch.Generator(self.device).manual_seed(options.seed)
        self.forward = torch.compile(self.network) if options.compile else self.network
        self.step, self.seconds = 0, 0.0

    def _targets(self, faces: Faces) -> torch.Tensor | None:
        """The teacher's directions, centred and carried into the 512 dimensions."""
        if not self.options.teacher:
            return None
        vectors = torch.from_numpy(read_teacher(self.options.teacher, faces.names.tolist()))
        directions = functional.normalize(vectors - vectors.mean(0))
        generator = torch.Generator().manual_seed(self.options.seed)
        if not self.options.start:
            return directions @ orthonormal_map(directions.shape[1], EMBEDDING_DIM, generator)
        sample = torch.randperm(len(faces), generator=generator)[:SAMPLE_FOR_MAP]
        outputs = embed(self.network.eval(), faces.images[sample.numpy()])
        targets = directions @ fit_orthonormal_map(directions[sample], outputs)
        print(
            f"the start agrees with the teacher to {(targets[sample] * outputs).sum(1).mean():.3f}"
        )
        return targets

    def _head(self, faces: Faces, targets: torch.Tensor | None) -> CosFaceHead:
        count, people = len(faces.names_of_people), torch.from_numpy(faces.people)
        if targets is None:
            centres = functional.normalize(torch.randn(count, EMBEDDING_DIM))
        else:
            centres = centres_of_people(targets, people, count)
        return CosFaceHead(centres, self.options.scale, self.options.margin).to(self.device)

    def progress(self) -> float:
        """How much of the schedule is done, 0 to 1, by time where hours are given."""
        if self.options.hours:
            return min(self.seconds / (3600 * self.options.hours), 1.0)
        return min(self.step * self.options.batch / (self.options.epochs * len(self.data)), 1.0)

    def train_step(self) -> dict[str, float]:
        """One batch; returns its losses."""
        options, done = self.options, self.progress()
        batch = self.data.batch(self.step, options.batch, options.seed)
        for group in self.optimizer.param_groups:
            group["lr"] = options.rate * learning_rate(done)
        self.network.train()
        images = augment(batch.images, self.generator, options.plain)
        images = resize(images, size_at(done, options.sizes))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.amp):
            outputs = self.forward(images.contiguous(memory_format=torch.channels_last))
        losses = self._losses(functional.normalize(outputs.float()), batch)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            raise SystemExit(f"The loss is {loss.item()} at step {self.step}. Lower --rate.")
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        update_average(self.average, self.network, min(options.ema, self.step / (self.step + 10)))
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, embeddings: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        options, losses = self.options, {}
        if batch.targets is not None:
            losses["direction"] = direction_loss(embeddings, batch.targets)
            similarity = similarity_loss(embeddings, batch.targets)
            losses["similarity"] = options.similarity * similarity
        if options.cosface and bool((batch.people != NOBODY).any()):
            losses["cosface"] = options.cosface * self.head(embeddings, batch.people)
        return losses

    def averaged(self) -> torch.nn.Module:
        """A network in evaluation mode with the averaged weights."""
        network = import_string(get_network(self.options.model).builder)().to(self.device)
        network.load_state_dict(self.average)
        return network.eval()

    def report(self) -> str:
        """How the averaged weights do on the people held out, at the size now trained at."""
        if not len(self.held_out):
            return "nobody is held out"
        network = nn.Sequential(Resize(size_at(self.progress(), self.options.sizes)))
        network.append(self.averaged())
        similarities, same = pairs_of_people(network, self.held_out)
        accuracy = verification_accuracy(similarities, same)
        return (
            f"held out {accuracy.mean:.2%}, "
            f"TAR {tar_at_fmr(similarities, same, 0.01):.1%} at FMR 1 %"
        )

    def save(self) -> None:
        """Writes the checkpoint; an interrupted write leaves the one before."""
        state = {
            name: getattr(self, name).state_dict() for name in ("network", "head", "optimizer")
        }
        state |= {"average": self.average, "targets": self.data.targets, "step": self.step}
        state |= {"seconds": self.seconds, "random": self.generator.get_state()}
        state |= {"model": self.options.model}
        partial = self.options.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.options.checkpoint)

    def load(self) -> None:
        """Takes up the run of the checkpoint: same options, same crops."""
        state = torch.load(self.options.checkpoint, map_location=self.device, weights_only=True)
        for name in ("network", "head", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.average, self.data.targets = state["average"], state["targets"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.generator.set_state(state["random"].cpu())


def learning_rate(done: float) -> float:
    """Share of the highest rate: linear warm-up, then half a cosine down to a hundredth."""
    if done < WARM_UP:
        return max(done / WARM_UP, 0.01)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def size_at(done: float, sizes: list[int]) -> int:
    """The picture size of this part of the schedule: every size gets an equal part."""
    return sizes[min(int(done * len(sizes)), len(sizes) - 1)]


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Scales N×3×H×W pictures to the size; small ones first make a deep network learn sooner."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(
        images, size=size, mode="bilinear", antialias=True, align_corners=False
    )


class Resize(nn.Module):
    """`resize` as a layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return resize(images, self.size)


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor], network: torch.nn.Module, decay: float
) -> None:
    """Moves the average a little towards the network, batch statistics included."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def train(trainer: Trainer) -> None:
    """Runs the schedule to its end, with a checkpoint and a report every few minutes."""
    options = trainer.options
    bar = tqdm(
        total=100,
        unit="%",
        bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
        mininterval=10,
    )
    saved = time.monotonic()
    while trainer.progress() < 1:
        started = time.monotonic()
        losses = trainer.train_step()
        took = time.monotonic() - started
        trainer.seconds += took
        bar.n = 100 * trainer.progress()
        figures = {name: f"{value:.3f}" for name, value in losses.items()}
        bar.set_postfix(figures | {"step": trainer.step, "img/s": f"{options.batch / took:.0f}"})
        if time.monotonic() - saved > 60 * options.save_minutes:
            trainer.save()
            bar.write(f"step {trainer.step}, {trainer.progress():.0%}: {trainer.report()}")
            saved = time.monotonic()
    bar.close()
    trainer.save()
    print(
        f"finished after {trainer.step} steps, {trainer.seconds / 60:.0f} min: {trainer.report()}"
    )


def main() -> None:
    """Trains from the command line."""
    options = _parser().parse_args()
    if not options.teacher and not options.cosface:
        raise SystemExit("Nothing to learn from: give --teacher, or --cosface above 0, or both.")
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options)
    people = len(trainer.head.centres)
    print(f"{len(trainer.data)} crops, {people} people, {len(trainer.held_out)} crops held out")
    if options.resume and options.checkpoint.exists():
        trainer.load()
        print(f"resumed at step {trainer.step}")
    print(f"before: {trainer.report()}")
    train(trainer)


def _network(options: argparse.Namespace) -> torch.nn.Module:
    if options.start:
        return load_weights(options.model, options.start)
    return import_string(get_network(options.model).builder)()


def _copy_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("model", choices=list(NETWORKS))
    add("--faces", nargs="+", required=True, help="folders or zips of aligned crops")
    add("--teacher", nargs="*", default=[], help=".npz files with names and embedding")
    add("--checkpoint", type=Path, required=True, help="where the run is kept")
    add("--resume", action="store_true", help="go on from the checkpoint when it is there")
    add("--start", type=Path, help=".safetensors file to start from instead of random weights")
    add("--epochs", type=float, default=20, help="passes over the crops")
    add("--hours", type=float, help="end the schedule after this time instead")
    add("--batch", type=int, default=64, help="pictures in a step")
    add("--rate", type=float, default=1e-3, help="highest learning rate")
    add("--weight-decay", type=float, default=0.02)
    add("--ema", type=float, default=0.995, help="share of the averaged weights kept each step")
    add("--similarity", type=float, default=20.0, help="weight of the similarity loss")
    add("--cosface", type=float, default=0.1, help="weight of the CosFace loss")
    add("--scale", type=float, default=32.0, help="CosFace s")
    add("--margin", type=float, default=0.2, help="CosFace m")
    add("--sizes", type=int, nargs="+", default=[CROP_SIZE], help="picture sizes, in equal parts")
    add("--plain", type=float, default=0.0, help="share of pictures that are only mirrored")
    add("--hold-out", type=float, default=0.05, help="share of people kept out to measure on")
    add("--seed", type=int, default=1)
    add("--save-minutes", type=float, default=4)
    add("--compile", action="store_true", help="torch.compile: slow start, faster steps")
    add(
        "--amp",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="bfloat16 where it is safe",
    )
    return parser


if __name__ == "__main__":
    main()
