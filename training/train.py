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
from torch.nn import functional

from recognition.metrics import tar_at_fmr
from recognition.networks.registry import CROP_SIZE
from training import processes
from training.batches import Batch, GpuBatches, ProcessorBatches
from training.faces import NOBODY, open_pack, people_with_several
from training.options import parser
from training.recombination import Partners
from training.student import Student
from training.targets import Mix, Targets, fixed_targets, live_targets

WARM_UP = 0.03  # share of the schedule
DIFFERENT = 7919  # between the seeds of two processes of a run
HELD_OUT = 1000  # most crops of held-out people to measure


class Trainer:
    """The state of a training run: the networks that learn from the same pictures, the batches and
    the teacher."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options, self.device = options, torch.device(options.device)
        self.faces = open_pack(options.pack)
        held = people_with_several(self.faces.people, options.hold_out, options.seed)
        self.rows, self.held_out = np.flatnonzero(~held), np.flatnonzero(held)[:HELD_OUT]
        self.people = torch.from_numpy(self.faces.people).to(self.device)
        self.targets = self._targets()
        files = options.initial or [None] * len(options.models)
        self.students = [
            Student(model, initial, options, self.faces, self.rows, self.targets)
            for model, initial in zip(options.models, files, strict=True)
        ]
        self.batches = self._batches()
        self.step, self.seconds = 0, 0.0

    def _targets(self) -> Targets | None:
        options = self.options
        if options.live:
            given = (*options.live, self.faces, options.pack, self.device)
            return live_targets(*given, compiled=options.compile)
        if options.teacher:
            return fixed_targets(options.teacher, self.faces, self.device)
        return None

    def _batches(self) -> ProcessorBatches | GpuBatches:
        options = self.options
        partners = None
        if options.recombine:
            rows = torch.from_numpy(self.rows).to(self.device)
            partners = Partners(self.targets.directions, rows, options.recombine)
        kind = ProcessorBatches if self.device.type == "cpu" else GpuBatches
        seed = options.seed + DIFFERENT * processes.number()
        given = (self.faces, self.rows, options.batch, seed, options.plain)
        return kind(*given, self.device, partners)

    def progress(self) -> float:
        """Return the finished share of the schedule, 0 to 1."""
        if self.options.steps:
            return min(self.step / self.options.steps, 1.0)
        return min(self.seconds / (60 * self.options.minutes), 1.0)

    def train_step(self) -> dict[str, torch.Tensor]:
        """Train every network on one batch; return the losses, on the device."""
        options, done = self.options, self.progress()
        size = size_at(done, options.sizes)
        whole = isinstance(self.batches, GpuBatches)  # which augment at 112 pixels
        batch = self.batches.take(self.step, CROP_SIZE if whole else size)
        images, mix = self._mix(batch.images)
        directions = self.targets and self.targets.of(batch.rows, mix, batch.recombined)
        images, people = resize(images, size) if whole else images, self._people(batch, mix)
        rate, losses = options.rate * learning_rate(done), {}
        self.step += 1
        decay = min(options.ema, self.step / (self.step + 10))
        for student in self.students:
            given = student.learn(images, directions, people, rate, decay)
            said = f"{student.model} " if len(self.students) > 1 else ""
            losses |= {said + name: value for name, value in given.items()}
        return losses

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

    def _people(self, batch: Batch, mix: Mix | None) -> torch.Tensor:
        """Return N numbers of people; a picture that is mixed or recombined shows none of them."""
        people = self.people[batch.rows]
        if mix:
            people = torch.where(mix.share[:, 0] < 1, NOBODY, people)
        if batch.recombined:
            people = people.index_fill(0, batch.recombined.places, NOBODY)
        return people

    def report(self) -> str:
        """Return the figures of the averaged weights for all pairs of held-out people, at 112
        pixels."""
        if not len(self.held_out):
            return ""
        images, people = self.faces.images[self.held_out], self.faces.people[self.held_out]
        left, right = np.triu_indices(len(people), 1)
        same, text = people[left] == people[right], "; held out"
        for student in self.students:
            vectors = student.embed_averaged(images)
            similarities = (vectors @ vectors.T)[left, right]
            rates = (
                f"{tar_at_fmr(similarities, same, fmr):.1%} at {fmr:.1%}" for fmr in (0.01, 1e-3)
            )
            text += f": {student.model} TAR {', '.join(rates)} FMR"
        return text

    def save(self) -> None:
        """Write the checkpoint and the weights; an interrupted write leaves the old files."""
        for student in self.students:
            floats = (value for value in student.average.values() if value.is_floating_point())
            processes.average(floats)
        if processes.number():
            return
        students = [student.state() for student in self.students]
        partial = self.options.checkpoint.with_suffix(".partial")
        torch.save({"students": students, "step": self.step, "seconds": self.seconds}, partial)
        partial.replace(self.options.checkpoint)
        for student, target in zip(self.students, self.options.weights, strict=False):
            student.export(target, self.step)

    def load(self) -> None:
        """Continue from the checkpoint, which must have the same options and crops."""
        state = torch.load(self.options.checkpoint, map_location=self.device, weights_only=True)
        for student, own in zip(self.students, state["students"], strict=True):
            student.load(own)
        self.step, self.seconds = state["step"], state["seconds"]


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


def train(trainer: Trainer) -> None:
    """Run the schedule to its end, with a checkpoint and a report line every `--save-minutes`.

    A first step that compiles the networks takes no time of the schedule.
    """
    options, sums, steps = trainer.options, {}, 0
    compiling = trainer.step + 1 if options.compile else None
    now, saved = time.monotonic(), trainer.seconds
    while trainer.progress() < 1:
        for name, value in trainer.train_step().items():
            sums[name] = sums.get(name, 0) + value
        steps += 1
        last, now = now, time.monotonic()
        if trainer.step != compiling:
            trainer.seconds = processes.agree(trainer.seconds + now - last)
        if trainer.seconds - saved > 60 * options.save_minutes or trainer.progress() >= 1:
            seconds = max(trainer.seconds - saved, 1e-3)
            speed = steps * options.batch * processes.count() / seconds
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
    people = len(trainer.faces.names_of_people)
    if processes.number() == 0:
        print(f"{len(trainer.rows)} crops of {people} people, {len(trainer.held_out)} held out")
    if options.resume and options.checkpoint.exists():
        trainer.load()
        print(f"resumed at step {trainer.step}")
    train(trainer)


if __name__ == "__main__":
    main()
