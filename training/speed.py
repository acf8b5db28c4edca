"""Measure a training step on a GPU, and what its kernels and compiling bring: `python -m training.speed`.

Nothing is learned: the networks are untrained, and the pictures are noise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from recognition.networks.registry import CROP_SIZE, EMBEDDING_DIM, NETWORKS
from training.gpu_augmentation import augment
from training.layers import suit_gpu, suit_sizes, untrained
from training.recombination import recombine
from training.teachers import JOINT_DIM, JointTeacher, Reidentification, edgeface

WAYS = ((False, False), (True, False), (False, True), (True, True))  # kernels, compiled


def measure(compute: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the milliseconds that it takes on average, after three calls that are not counted."""
    for _ in range(3):
        compute()
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        compute()
    _wait(device)
    return (time.perf_counter() - start) / repeats * 1000


def training_step(
    model: str, images: torch.Tensor, *, kernels: bool, compiled: bool
) -> Callable[[], None]:
    """Return a function that takes one step with the N×3×112×112 pictures, in bfloat16."""
    network = untrained(model).to(images.device, memory_format=torch.channels_last).train()
    suit_sizes(network)
    if kernels:
        suit_gpu(network)
    forward = torch.compile(network, dynamic=False) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    targets = functional.normalize(torch.randn(len(images), EMBEDDING_DIM, device=images.device))

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16):
            outputs = forward(images)
        loss = (functional.normalize(outputs.float()) * targets).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each part of a step, as it is measured."""
    options = _parser().parse_args(arguments)
    device, batch = torch.device(options.device), options.batch
    torch.backends.cudnn.benchmark = True
    shape = (batch, 3, CROP_SIZE, CROP_SIZE)
    crops = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    images = (crops / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    chance = torch.Generator(device)

    def say(what: str, compute: Callable[[], object]) -> None:
        took = measure(compute, device, options.repeats)
        print(f"{what}: {took:.1f} ms, {batch / took * 1000:.0f} a second", flush=True)

    say("augmentation", lambda: augment(crops, chance))
    say("recombining", lambda: recombine(crops, crops.flip(0), chance))
    for compiled in (False, True) if options.live else ():
        members = [edgeface(options.live[0]), Reidentification(options.live[1])]
        teacher = JointTeacher(members, compiled=compiled).to(device)
        widths = [member(images[:1]).shape[1] for member in teacher.members]
        teacher.means = [torch.zeros(width, device=device) for width in widths]
        teacher.turn = torch.randn(sum(widths), JOINT_DIM, device=device)
        say(f"teacher, compiled {compiled}", lambda asked=teacher: asked(images))
    for model in options.models:
        for kernels, compiled in WAYS:
            step = training_step(model, images, kernels=kernels, compiled=compiled)
            say(f"{model}, kernels {kernels}, compiled {compiled}", step)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["mobilenetv3_large", "cosface_resnet50"],
        help=" or ".join(NETWORKS))  # fmt: skip
    parser.add_argument("--live", nargs=2, type=Path, metavar=("EDGEFACE", "REIDENTIFICATION"))
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    return parser


if __name__ == "__main__":
    main()
