"""A prepared training run on a GPU: `python -m training.gpu MODEL … --sources PARTS … --into RUN`.

It decodes the parts, trains with the settings below and exports every minute. Repeating the command
resumes the run. Unknown options are passed on to `training.train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recognition.networks.registry import NETWORKS, get_network
from training import train
from training.pack import decode_sources

# Of the run that made the bundled weights, on one H200 (training/README.md).
SETTINGS = ["--batch", "512", "--ema", "0.998", "--plain", "0.35", "--rate", "2e-3"]
SETTINGS += ["--recombine", "0.8", "--cosface", "0"]
MINUTES = "6"
THREADS = 4  # PyTorch's CPU threads; little is computed on the CPU


def main(arguments: list[str] | None = None) -> None:
    """Decode, train and export from the command line."""
    options, others = _parser().parse_known_args(arguments)
    pack, names = options.into / "pack", [get_network(m).weights_stem for m in options.models]
    print(f"{decode_sources(options.sources, pack)} crops in {pack}", flush=True)
    command = [*options.models, "--pack", str(pack), "--resume", "--threads", str(THREADS)]
    command += ["--checkpoint", str(options.into / f"{'-'.join(names)}.pt"), "--weights"]
    command += [str(options.into / f"{name}.safetensors") for name in names]
    if not {"--minutes", "--steps"} & set(others):
        command += ["--minutes", MINUTES]
    train.main([*command, *SETTINGS, *others])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("models", nargs="+", choices=list(NETWORKS), metavar="MODEL")
    parser.add_argument("--sources", nargs="+", required=True, help="parts, folders or zips")
    parser.add_argument("--into", type=Path, required=True, help="folder for the run and its pack")
    return parser


if __name__ == "__main__":
    main()
