"""Write a run's averaged weights for the service: `python -m training.export run.pt
out.safetensors`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.layers import untrained


def export(run: dict[str, Any], target: Path) -> None:
    """Write the averaged weights of a checkpoint as half-precision `.safetensors`.

    Tensor names are those of the network, and integer counters stay integers. An interrupted write
    leaves the old file.
    """
    network = untrained(run["model"])
    network.load_state_dict(run["average"], strict=True)
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    if lost := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise SystemExit(f"{lost[0]} does not fit into half precision; the run has diverged.")
    partial = target.with_suffix(".partial")
    save_file(tensors, partial, metadata={"model": run["model"], "steps": str(run["step"])})
    partial.replace(target)


def main() -> None:
    """Run the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    export(torch.load(options.checkpoint, map_location="cpu", weights_only=True), options.target)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
