"""Print every figure of `weights/README.md`: `python -m training.figures FACES > figures.md`.

FACES is a folder with the pictures that were held out of the training, with the file names below.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Measurement(NamedTuple):
    """A heading and the arguments of `manage.py evaluate`; file names are relative to FACES."""

    title: str
    arguments: tuple[str, ...]
    compare: bool = False  # also measure the teacher's vectors, if they are there
    note: str = ""


# The first measurement stores the thresholds that the others use.
MEASUREMENTS = (
    Measurement(
        "LFW, crops in colour, every picture against every other",
        ("lfw.zip/val", "--aligned", "--conditions"),
        compare=True,
    ),
    Measurement("LFW, from the photo on", ("lfw_val_photos.zip",), compare=True),
    Measurement(
        "CelebA, crops, every picture against every other",
        ("celeba.zip/val", "--aligned", "--conditions"),
        compare=True,
    ),
    Measurement(
        "Pairs of LFW in grey", ("aligned.zip/val", "--aligned", "--pairs", "pairs_val_clean.csv")
    ),
    Measurement(
        "False matches by group, FairFace",
        ("fairface.zip/train", "--aligned", "--groups", "fairface_labels.csv"),
        note="These pictures were among those of the training, without names: the rates of people "
        "whom the networks never saw may be higher.\n",
    ),
)
TEACHER = "teacher_joint.npz"


def main() -> None:
    """Measure, print headings and tables, and write the plots to `--plots`."""
    options = _parser().parse_args()
    for number, measurement in enumerate(MEASUREMENTS):
        if options.only and number + 1 not in options.only:
            continue
        sys.stdout.write(f"\n## {measurement.title}\n\n{measure(number, measurement, options)}")
        sys.stdout.flush()


def measure(number: int, measurement: Measurement, options: argparse.Namespace) -> str:
    """Return the Markdown tables of one measurement."""
    faces = options.faces
    words = [str(faces / word) if _is_file(word) else word for word in measurement.arguments]
    for model in options.model or ():
        words += ["--model", model]
    if measurement.compare and (faces / TEACHER).exists():
        words += ["--compare", str(faces / TEACHER)]
    if "--groups" in words:
        words += ["--sample", str(options.sample)]
    elif options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        words += ["--plot", str(options.plots / f"{number + 1}.png")]
    if options.save and number == 0:
        words += ["--save"]
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "tables.md"
        command = [sys.executable, "manage.py", "evaluate", *words, "--markdown", str(written)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)  # noqa: S603 (our own)
        return f"{written.read_text('utf-8')}{measurement.note}"


def _is_file(word: str) -> bool:
    return not word.startswith("--")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=lambda text: Path(text).resolve(), help="folder")
    parser.add_argument("--model", action="append", help="default: all with weights")
    parser.add_argument(
        "--save", action="store_true", help="store the thresholds of the first with the weights"
    )
    parser.add_argument("--plots", type=lambda text: Path(text).resolve(), help="folder for PNGs")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of measurements, from 1")
    parser.add_argument("--sample", type=int, default=5000, help="FairFace pictures (15,827)")
    return parser


if __name__ == "__main__":
    main()
