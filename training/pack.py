"""Prepare crops for training: decode them into one file, or divide them into zip archives.

python -m training.pack decode SOURCE ... --into DIR     a pack for `training.train`
python -m training.pack divide SOURCE ... --into DIR     zip archives of at most --mib each
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.faces import BYTES, IMAGES, INDEX, Crop, decode, read_crops

TOGETHER = 512  # crops decoded in one batch
ENTRY = 200  # upper bound of the bytes that a zip archive adds to a file with a short name


def decode_sources(sources: Sequence[str | Path], folder: Path) -> int:
    """Decode every crop of the sources into the pack in `folder`; return how many it now holds.

    The pack is `images.u8`, N×112×112×3 uint8 RGB, and `index.npz` with each crop's name, its
    person ("" if unknown) and the finished sources. Finished sources are skipped, so an interrupted
    call can be repeated, and sources can be added later. People of different sources are different
    people, whatever their folders are called.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, owners, done = _read_index(folder)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool, (folder / IMAGES).open("ab") as file:
        for source in sources:
            key = str(Path(source).resolve())
            if key in done:
                continue
            file.truncate(len(names) * BYTES)  # remove what an interrupted call left
            crops = read_crops(source)
            bar = tqdm(desc=Path(source).name, unit=" crops", mininterval=5)
            while some := list(islice(crops, TOGETHER)):
                for image in pool.map(decode, [crop.content for crop in some]):
                    file.write(image.tobytes())
                names += [crop.name for crop in some]
                owners += [f"{key}/{crop.folder}" if crop.folder else "" for crop in some]
                bar.update(len(some))
            bar.close()
            file.flush()
            done.append(key)
            _write_index(folder, names, owners, done)
    return len(names)


def divide_sources(sources: Sequence[str | Path], folder: Path, mib: float) -> list[Path]:
    """Copy the compressed crops into archives `crops-1.zip` … of at most `mib` MiB; return their
    paths.

    All crops of a person are in one archive, so each archive is a source by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limit, parts, room = int(mib * 2**20), [], 0
    archive: zipfile.ZipFile | None = None
    for number, source in enumerate(sources, 1):
        for crops in _people(source):
            size = sum(
                len(crop.content) + ENTRY + 2 * len(crop.name + crop.folder) for crop in crops
            )
            if size > limit:
                raise SystemExit(f"{crops[0].folder} alone is larger than {mib} MiB.")
            if archive is None or size > room:
                if archive:
                    archive.close()
                parts.append(folder / f"crops-{len(parts) + 1}.zip")
                archive, room = zipfile.ZipFile(parts[-1], "w"), limit
            room -= size
            for crop in crops:
                place = f"{number}/{crop.folder}/" if crop.folder else ""
                archive.writestr(f"{place}{crop.name}{crop.suffix}", crop.content)
    if archive:
        archive.close()
    return parts


def _people(source: str | Path) -> Iterator[list[Crop]]:
    """Yield the crops of one person after another; crops without a person one by one."""
    for folder, crops in groupby(read_crops(source), lambda crop: crop.folder):
        if folder:
            yield list(crops)
        else:
            yield from ([crop] for crop in crops)


def _read_index(folder: Path) -> tuple[list[str], list[str], list[str]]:
    if not (folder / INDEX).exists():
        return [], [], []
    with np.load(folder / INDEX) as index:
        return index["names"].tolist(), index["owners"].tolist(), index["done"].tolist()


def _write_index(folder: Path, names: list[str], owners: list[str], done: list[str]) -> None:
    partial = folder / f"partial-{INDEX}"
    np.savez(partial, names=np.array(names), owners=np.array(owners), done=np.array(done))
    partial.replace(folder / INDEX)


def main() -> None:
    """Run the packing from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("decode", "divide"))
    parser.add_argument("sources", nargs="+", help="folders or zips of aligned crops")
    parser.add_argument("--into", type=Path, required=True, help="folder to write to")
    parser.add_argument("--mib", type=float, default=50, help="size of a part, at most")
    options = parser.parse_args()
    if options.what == "decode":
        print(f"{decode_sources(options.sources, options.into)} crops in {options.into}")
    else:
        for part in divide_sources(options.sources, options.into, options.mib):
            print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
