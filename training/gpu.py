"""A prepared training run on a GPU: `python -m training.gpu MODEL --sources PARTS … --into RUN`.

It decodes the parts, trains with the settings below and exports every minute. Repeating the command
resumes the run. Unknown options are passed on to `training.train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recognition.networks.registry import NETWORKS, get_network
from training import train
from training.pack import decode_sources

# For 5 minutes on an H100. training/README.md has the settings of the bundled weights.
COMMON = [
    "--batch",
    "1024",
    "--ema",
    "0.995",
    "--plain",
    "0.3",
    "--recombine",
    "0.65",
    "--cosface",
    "0.1",
]
SETTINGS = {
    "mobilenetv3_large": [*COMMON, "--rate", "3e-3", "--sizes", "80:0.5", "112:0.5"],
    "cosface_resnet50": [*COMMON, "--rate", "2e-3", "--sizes", "80:0.5", "112:0.5"],
}
THREADS = 4  # PyTorch's CPU threads; little is computed on the CPU


def main(arguments: list[str] | None = None) -> None:
    """Decode, train and export from the command line."""
    options, others = _parser().parse_known_args(arguments)
    pack, stem = options.into / "pack", get_network(options.model).weights_stem
    print(f"{decode_sources(options.sources, pack)} crops in {pack}", flush=True)
    command = [options.model, "--pack", str(pack), "--resume", "--threads", str(THREADS)]
    command += ["--checkpoint", str(options.into / f"{stem}.pt")]
    command += ["--weights", str(options.weights or options.into / f"{stem}.safetensors")]
    if not {"--minutes", "--steps"} & set(others):
        command += ["--minutes", "5"]
    train.main([*command, *SETTINGS.get(options.model, COMMON), *others])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", choices=list(NETWORKS))
    parser.add_argument("--sources", nargs="+", required=True, help="parts, folders or zips")
    parser.add_argument("--into", type=Path, required=True, help="folder for the run and its pack")
    parser.add_argument("--weights", type=Path, help="where to export to; default: in that folder")
    return parser


if __name__ == "__main__":
    main()
