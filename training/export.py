"""Writes a run's averaged weights for the service: `python -m training.export run.pt out.safetensors`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from django.utils.module_loading import import_string
from safetensors.torch import save_file

from recognition.networks.registry import get_network


def export(checkpoint: Path, target: Path) -> None:
    """Half-precision `.safetensors` with the network's own tensor names; counters stay integers."""
    run = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = import_string(get_network(run["model"]).builder)()
    network.load_state_dict(run["average"], strict=True)
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    if lost := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise SystemExit(f"{lost[0]} does not fit into half precision; the run has diverged.")
    save_file(tensors, target, metadata={"model": run["model"], "steps": str(run["step"])})


def main() -> None:
    """Exports from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    export(options.checkpoint, options.target)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
