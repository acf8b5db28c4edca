"""The command line of `python -m training.train`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from recognition.networks.registry import CROP_SIZE, NETWORKS


def parser() -> argparse.ArgumentParser:
    """Return the parser with every option of a run and its default."""
    made = argparse.ArgumentParser(
        description="Trains a face network; see training/README.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("models", nargs="+", choices=list(NETWORKS), metavar="MODEL",
        help=f"{' or '.join(NETWORKS)}; several learn from the same pictures at once")  # fmt: skip
    add("--pack", type=Path, required=True, help="folder that training.pack decode made")
    add("--checkpoint", type=Path, required=True, help="where the run is kept")
    add("--weights", type=Path, nargs="+", default=[],
        help=".safetensors to write the averaged weights to, each time, one for each model")  # fmt: skip
    add("--resume", action="store_true", help="go on from the checkpoint when it is there")
    add("--initial", type=Path, nargs="+",
        help=".safetensors to start from instead of random weights, one for each model")  # fmt: skip

    length = made.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the schedule, all calls together")
    length.add_argument("--steps", type=int, help="its length in steps instead")
    add("--sizes", type=phase, nargs="+", default=[(CROP_SIZE, 1.0)], metavar="SIZE:SHARE",
        help="picture sizes one after another, with their shares of the schedule")  # fmt: skip
    add("--batch", type=int, default=64, help="pictures in a step")
    add("--rate", type=float, default=1e-3, help="highest learning rate")
    add("--weight-decay", type=float, default=0.02)
    add("--ema", type=float, default=0.998, help="share of the averaged weights kept each step")
    add("--seed", type=int, default=1)

    add("--teacher", nargs="+", default=[], help=".npz with names and embedding of clean crops")
    add("--live", nargs=2, type=Path, metavar=("EDGEFACE", "REIDENTIFICATION"),
        help="edgeface_xs.safetensors and face-reidentification-retail-0095.xml: a teacher to ask")  # fmt: skip
    add("--recombine", type=float, default=0.0,
        help="share of pictures that show a face joined from two; --live is asked about it")  # fmt: skip
    add("--similarity", type=float, default=20.0, help="weight of the similarity loss")
    add("--cosface", type=float, default=0.1, help="weight of the CosFace loss")
    add("--train-head", action="store_true", help="learn the people's centres of CosFace as well")
    add("--scale", type=float, default=32.0, help="CosFace s")
    add("--margin", type=float, default=0.2, help="CosFace m")
    add("--plain", type=float, default=0.35, help="share of pictures that are mirrored at most")
    add("--mixup", type=float, default=0.0, help="share of pictures mixed with another")

    add("--hold-out", type=float, default=0.0, help="share of people kept out to measure on")
    add("--save-minutes", type=float, default=1.0, help="between checkpoints")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=1, help="of the processor; more disturb each other")
    add("--amp", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 where safe")
    add(
        "--kernels",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="own layers, where faster",
    )
    add("--compile", action=argparse.BooleanOptionalAction, default=False,
        help="torch.compile, GPU only: slow start, faster steps")  # fmt: skip
    return made


def phase(text: str) -> tuple[int, float]:
    """Parse `80:0.55` as 80 pixels and a share of 0.55; `80` alone has a share of 1."""
    size, _, share = text.partition(":")
    return int(size), float(share or 1)
