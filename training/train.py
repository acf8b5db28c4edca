"""Train a face network: `python -m training.train --help`, and training/README.md."""

from __future__ import annotations

import argparse
import ctypes
import math
import sys
import time
from contextlib import suppress

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from recognition.metrics import tar_at_fmr
from recognition.networks.registry import CROP_SIZE, EMBEDDING_DIM
from training import processes
from training.batches import Batch, GpuBatches, ProcessorBatches, scale
from training.export import export
from training.faces import NOBODY, open_pack, people_with_several
from training.layers import suit_processor, suit_sizes, untrained
from training.losses import CosFaceHead, centres_of_people, direction_loss, similarity_loss
from training.options import parser
from training.recombination import Partners
from training.targets import Mix, Targets, fixed_targets, live_targets

WARM_UP = 0.03  # share of the schedule
SAMPLE = 1500  # crops to fit the teacher's map with
DIFFERENT = 7919  # between the seeds of two processes of a run
HELD_OUT = 1000  # most crops of held-out people to measure


class Trainer:
    """The state of a training run: network, head, optimizer, batches and averaged weights."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options, self.device = options, torch.device(options.device)
        self.faces = open_pack(options.pack)
        held = people_with_several(self.faces.people, options.hold_out, options.seed)
        self.rows, self.held_out = np.flatnonzero(~held), np.flatnonzero(held)[:HELD_OUT]
        self.people = torch.from_numpy(self.faces.people).to(self.device)
        self.network = untrained(options.model)
        if options.start:
            self.network.load_state_dict(load_file(options.start), strict=True)
        self.network.to(self.device, memory_format=torch.channels_last)
        suit_sizes(self.network)
        self.targets = self._targets()
        if self.device.type == "cpu" and options.amp:
            print(f"layers: {suit_processor(self.network)}", flush=True)
        self.head = self._head()
        self.batches = self._batches()
        self.average = _copy_state(self.network)
        self.optimizer = self._optimizer()
        self.forward = torch.compile(self.network) if options.compile else self.network
        self.step, self.seconds = 0, 0.0

    def _targets(self) -> Targets | None:
        options, faces = self.options, self.faces
        if options.live:
            targets = live_targets(*options.live, faces, options.pack, self.device)
        elif options.teacher:
            targets = fixed_targets(options.teacher, faces, self.device)
        else:
            return None
        outputs, rows = None, self.rows
        if options.start:
            rows = np.random.default_rng(options.seed).permutation(rows)[:SAMPLE]
            outputs = embed(self.network, faces.images[rows], options.amp)
        agreement = targets.fit_map(torch.from_numpy(rows).to(self.device), outputs, options.seed)
        if agreement is not None:
            print(f"the start agrees with the teacher to {agreement:.3f}", flush=True)
        return targets

    def _head(self) -> CosFaceHead:
        count, people = len(self.faces.names_of_people), torch.from_numpy(self.faces.people)
        learned = self.options.train_head or not self.targets
        if self.targets:
            directions = self.targets.directions @ self.targets.map
            centres = centres_of_people(directions.cpu(), people, count)
        else:
            centres = functional.normalize(torch.randn(count, EMBEDDING_DIM))
        head = CosFaceHead(centres, self.options.scale, self.options.margin, learned)
        return head.to(self.device)

    def _batches(self) -> ProcessorBatches | GpuBatches:
        options = self.options
        seed = options.seed + DIFFERENT * processes.number()
        partners = None
        if options.recombine:
            directions = self.targets.directions.float().cpu().numpy()
            partners = Partners(directions, self.rows, options.recombine, seed)
        kind = ProcessorBatches if self.device.type == "cpu" else GpuBatches
        given = (self.faces, self.rows, options.batch, seed, options.plain)
        return kind(*given, self.device, partners)

    def _optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW without weight decay for norms, slopes and biases."""
        learned = [*self.network.parameters(), *self.head.parameters()]
        learned = [parameter for parameter in learned if parameter.requires_grad]
        self.learned = learned
        groups = [
            {
                "params": [p for p in learned if p.ndim > 1],
                "weight_decay": self.options.weight_decay,
            },
            {"params": [p for p in learned if p.ndim == 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.rate, fused=True)

    def progress(self) -> float:
        """Return the finished share of the schedule, 0 to 1."""
        if self.options.steps:
            return min(self.step / self.options.steps, 1.0)
        return min(self.seconds / (60 * self.options.minutes), 1.0)

    def train_step(self) -> dict[str, torch.Tensor]:
        """Train on one batch; return its losses, on the device."""
        options, done = self.options, self.progress()
        size = size_at(done, options.sizes)
        for group in self.optimizer.param_groups:
            group["lr"] = options.rate * learning_rate(done)
        whole = isinstance(self.batches, GpuBatches)  # which augment at 112 pixels
        batch = self.batches.take(self.step, CROP_SIZE if whole else size)
        images, mix = self._mix(batch.images)
        targets = self.targets and self.targets.of(batch.rows, mix, batch.recombined)
        images = resize(images, size) if whole else images
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.amp):
            outputs = self.forward(images.contiguous(memory_format=torch.channels_last))
        losses = self._losses(functional.normalize(outputs.float()), targets, batch, mix)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        processes.average(p.grad for p in self.learned if p.grad is not None)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        update_average(self.average, self.network, min(options.ema, self.step / (self.step + 10)))
        return {name: value.detach() for name, value in losses.items()}

    def _mix(self, images: torch.Tensor) -> tuple[torch.Tensor, Mix | None]:
        """Mix some pictures with another of the batch (mixup, Zhang et al. 2018)."""
        mixed = round(self.options.mixup * len(images))
        if not mixed:
            return images, None
        rng = np.random.default_rng((self.options.seed, 2, self.step))
        partner = np.arange(len(images))
        partner[:mixed] = (partner[:mixed] + rng.integers(1, len(images))) % len(images)
        share = np.ones((len(images), 1), np.float32)
        share[:mixed, 0] = rng.uniform(0.5, 1, mixed)
        mix = Mix(*(torch.from_numpy(part).to(self.device) for part in (partner, share)))
        weight = mix.share[:, :, None, None]
        return weight * images + (1 - weight) * images[mix.partner], mix

    def _losses(
        self,
        embeddings: torch.Tensor,
        targets: torch.Tensor | None,
        batch: Batch,
        mix: Mix | None,
    ) -> dict[str, torch.Tensor]:
        options, losses = self.options, {}
        if targets is not None:
            losses["direction"] = direction_loss(embeddings, targets)
            losses["similarity"] = options.similarity * similarity_loss(embeddings, targets)
        if options.cosface:
            people = self.people[batch.rows]
            if mix:  # a mixed picture has no single person
                people = torch.where(mix.share[:, 0] < 1, NOBODY, people)
            if batch.recombined:
                people = people.index_fill(0, batch.recombined.places, NOBODY)
            losses["cosface"] = options.cosface * self.head(embeddings, people)
        return losses

    def report(self) -> str:
        """Return the figures of the averaged weights for all pairs of held-out people, at 112
        pixels."""
        if not len(self.held_out):
            return ""
        network = untrained(self.options.model).to(self.device, memory_format=torch.channels_last)
        network.load_state_dict(self.average)
        images, people = self.faces.images[self.held_out], self.faces.people[self.held_out]
        vectors = embed(network, images, self.options.amp).cpu().numpy()
        left, right = np.triu_indices(len(vectors), 1)
        similarities, same = (vectors @ vectors.T)[left, right], people[left] == people[right]
        rates = (f"{tar_at_fmr(similarities, same, fmr):.1%} at {fmr:.1%}" for fmr in (0.01, 1e-3))
        return f"; held out: TAR {', '.join(rates)} FMR"

    def save(self) -> None:
        """Write the checkpoint and the weights; an interrupted write leaves the old files."""
        processes.average(value for value in self.average.values() if value.is_floating_point())
        if processes.number():
            return
        state = {
            name: getattr(self, name).state_dict() for name in ("network", "head", "optimizer")
        }
        state |= {"average": self.average, "step": self.step, "seconds": self.seconds}
        state |= {"model": self.options.model, "map": self.targets.map if self.targets else None}
        partial = self.options.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.options.checkpoint)
        if self.options.weights:
            export(state, self.options.weights)

    def load(self) -> None:
        """Continue from the checkpoint, which must have the same options and crops."""
        state = torch.load(self.options.checkpoint, map_location=self.device, weights_only=True)
        for name in ("network", "head", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
        if self.targets:
            self.targets.map = state["map"]


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


def learning_rate(done: float) -> float:
    """Return the share of the highest rate: linear warm-up, then half a cosine down to 0.01."""
    if done < WARM_UP:
        return max(done / WARM_UP, 0.01)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def size_at(done: float, phases: list[tuple[int, float]]) -> int:
    """Return the picture size at this point of the schedule."""
    end, whole = 0.0, sum(share for _, share in phases)
    for size, share in phases:
        end += share / whole
        if done < end:
            return size
    return phases[-1][0]


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize N×3×H×W pictures; a deep network learns faster when it starts with small ones."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(
        images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor], network: torch.nn.Module, decay: float
) -> None:
    """Move the averaged weights a little towards the network's, batch statistics included."""
    state = network.state_dict()
    floats = [name for name, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[n] for n in floats], [state[n] for n in floats], 1 - decay)
    for name in state.keys() - floats:
        average[name].copy_(state[name])


def train(trainer: Trainer) -> None:
    """Run the schedule to its end, with a checkpoint and a report line every `--save-minutes`."""
    options, sums, steps = trainer.options, {}, 0
    now, saved = time.monotonic(), trainer.seconds
    while trainer.progress() < 1:
        for name, value in trainer.train_step().items():
            sums[name] = sums.get(name, 0) + value
        steps += 1
        last, now = now, time.monotonic()
        trainer.seconds = processes.agree(trainer.seconds + now - last)
        if trainer.seconds - saved > 60 * options.save_minutes or trainer.progress() >= 1:
            speed = steps * options.batch * processes.count() / (trainer.seconds - saved)
            _print_report(
                trainer, {name: float(value) / steps for name, value in sums.items()}, speed
            )
            trainer.save()
            sums, steps, saved = {}, 0, trainer.seconds
    if processes.number() == 0:
        print(f"finished after {trainer.step} steps, {trainer.seconds / 60:.1f} min", flush=True)


def _print_report(trainer: Trainer, losses: dict[str, float], speed: float) -> None:
    """Print a report line. Raise `SystemExit` if the run has diverged, before that is saved."""
    done = trainer.progress()
    figures = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    if not math.isfinite(sum(losses.values())):
        raise SystemExit(f"The losses are {figures} at step {trainer.step}. Lower --rate.")
    if processes.number():
        return
    print(
        f"{time.strftime('%H:%M:%S')} step {trainer.step}, {done:.1%}, "
        f"{size_at(done, trainer.options.sizes)} pixels, {speed:.0f} crops/s: "
        f"{figures}{trainer.report()}",
        flush=True,
    )


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory; otherwise page faults cost a fifth of the time on a CPU."""
    trim, pad, map_most = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((map_most, 0), (trim, 2**31 - 1), (pad, 2**28)):
            mallopt(parameter, value)


def main(arguments: list[str] | None = None) -> None:
    """Run the training from the command line."""
    options = parser().parse_args(arguments)
    if not (options.teacher or options.live or options.cosface):
        raise SystemExit(
            "Nothing to learn from: give --teacher or --live, or --cosface above 0, or both."
        )
    if options.recombine and not options.live:
        raise SystemExit("--recombine makes faces that only a teacher can name: give --live, too.")
    if sys.platform == "linux":
        keep_freed_memory()
    processes.join()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options)
    people = len(trainer.head.centres)
    if processes.number() == 0:
        print(f"{len(trainer.rows)} crops of {people} people, {len(trainer.held_out)} held out")
    if options.resume and options.checkpoint.exists():
        trainer.load()
        print(f"resumed at step {trainer.step}")
    train(trainer)


def _copy_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


if __name__ == "__main__":
    main()
