"""Mutated pictures are read or refused: nothing else is raised, nothing takes long, nothing stays in memory.

    python -m tests.fuzz_pictures [--pictures 20000] [--seed 1] [--folder more/pictures]

Ends with 1 when a picture failed, and names the seed and number that make it again. The suite runs a few
hundred (`tests/test_fuzz_pictures.py`).
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import io
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CASES = Path(__file__).resolve().parent / "cases"
SLOW_SECONDS = 5.0
GROWTH_MIB = 300
NUMBERS = (b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\xff\xff\xff\xff", b"\0\1\0\0")


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds of processor time
    growth: float = 0.0  # MiB held after the last picture, over that after the samples

    @property
    def is_clean(self) -> bool:
        return not self.failures and self.growth < GROWTH_MIB

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return (
            f"{sum(self.outcomes.values())} pictures: {counts}; slowest {self.slowest:.2f} s; "
            f"memory grew by {self.growth:.0f} MiB, {peak:.0f} MiB at most"
        )


def samples(folder: Path | None = None) -> list[bytes]:
    """Small pictures of every format and many of their variants."""
    import numpy as np
    from PIL import Image

    from tests.pictures import draw_picture

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    size = (64, 48)
    deep = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
    kept = [
        *(draw_picture(size, mode=mode, exif=exif) for mode in ("RGB", "L", "CMYK")),
        *(draw_picture(size, progressive=True, subsampling=n) for n in (0, 2)),
        draw_picture(size, restart_marker_blocks=1),
        *(
            draw_picture(size, mode=mode, format="PNG")
            for mode in ("RGB", "RGBA", "L", "LA", "P", "1")
        ),
        *(draw_picture(size, mode=mode, format="BMP") for mode in ("RGB", "L", "P", "1")),
        *(
            draw_picture(size, format="TIFF", compression=name, exif=exif)
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        draw_picture(size, mode="1", format="TIFF", compression="group4"),
        draw_picture(size, mode="CMYK", format="TIFF"),
        draw_picture(size, mode="LAB", format="TIFF"),
        *(draw_picture(size, format="WEBP", lossless=flag, exif=exif) for flag in (True, False)),
        *(draw_picture(size, mode=mode, format="AVIF") for mode in ("RGB", "RGBA")),
        *(_encoded(deep, format) for format in ("PNG", "TIFF")),
    ]
    files = sorted(CASES.iterdir()) + (sorted(folder.rglob("*")) if folder else [])
    return kept + [path.read_bytes() for path in files if path.is_file()]


def _encoded(image: object, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, most often near the start, where sizes and kinds stand."""
    spoiled = bytearray(data)
    for _ in range(chance.randrange(1, 7)):
        end = len(spoiled) if chance.random() < 0.4 else min(len(spoiled), 400)
        place = chance.randrange(max(1, end))
        kind = chance.randrange(6)
        if kind <= 1:
            spoiled[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            number = chance.choice(NUMBERS)
            spoiled[place : place + len(number)] = number
        elif kind == 3:
            length = chance.randrange(1, 64)
            spoiled[place:place] = spoiled[place : place + length] * chance.randrange(1, 20)
        elif kind == 4:
            del spoiled[place : place + chance.randrange(1, 32)]
        else:
            other = chance.randrange(len(spoiled))
            spoiled[place : place + 8] = spoiled[other : other + 8]
    if chance.random() < 0.15:
        del spoiled[chance.randrange(len(spoiled)) :]
    return bytes(spoiled)


def run(pictures: int, seed: int, given: Sequence[bytes], *, progress: bool = False) -> Report:
    """Reads so many mutated pictures, stores those that can be read, and reads them again."""
    report = Report()
    for data in given:
        _outcome(data)
    before = _held()
    for number in range(pictures):
        chance = random.Random(f"{seed} {number}")
        data = mutated(given[number % len(given)], chance)
        started = time.thread_time()
        try:
            report.outcomes[_outcome(data)] += 1
        except Exception as error:  # noqa: BLE001 (that is what is looked for)
            report.outcomes["failed"] += 1
            report.failures.append(
                f"seed {seed}, picture {number}: {type(error).__name__}: {error}"
            )
        spent = time.thread_time() - started
        report.slowest = max(report.slowest, spent)
        if spent > SLOW_SECONDS:
            report.failures.append(f"seed {seed}, picture {number}: {spent:.1f} seconds")
        if progress and number % 1000 == 999:
            report.growth = _held() - before
            print(report, file=sys.stderr, flush=True)  # noqa: T201
    report.growth = _held() - before
    return report


def _outcome(data: bytes) -> str:
    from recognition.exceptions import InvalidImage
    from recognition.imaging import read_image, storable_bytes

    try:
        picture = read_image(data)
    except InvalidImage:
        return "refused"
    stored, _extension = storable_bytes(data, picture)
    again = read_image(stored)
    if (again.width, again.height) != (picture.width, picture.height):
        raise AssertionError("What was stored has another size.")
    return "read"


def _held() -> float:
    """MiB of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024**2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="pictures to mutate as well")
    options = parser.parse_args()
    report = run(options.pictures, options.seed, samples(options.folder), progress=True)
    for failure in report.failures:
        print(failure)  # noqa: T201
    print(report)  # noqa: T201
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    faulthandler.enable()
    import django

    django.setup()
    sys.exit(main())
