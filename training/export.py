"""Write a run's averaged weights for the service: `python -m training.export run.pt
out.safetensors`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.layers import untrained


def export(model: str, average: dict[str, torch.Tensor], step: int, target: Path) -> None:
    """Write a network's averaged weights as half-precision `.safetensors`.

    Tensor names are those of the network, and integer counters stay integers. An interrupted write
    leaves the old file.
    """
    network = untrained(model)
    network.load_state_dict(average, strict=True)
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    if lost := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise SystemExit(f"{lost[0]} does not fit into half precision; the run has diverged.")
    partial = target.with_suffix(".partial")
    save_file(tensors, partial, metadata={"model": model, "steps": str(step)})
    partial.replace(target)


def main() -> None:
    """Run the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", help="of a run of several networks; default: the first")
    options = parser.parse_args()
    run = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    students = {student["model"]: student for student in run["students"]}
    model = options.model or next(iter(students))
    export(model, students[model]["average"], run["step"], options.target)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
