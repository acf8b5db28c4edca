"""Cut aligned crops out of photos for training: `python -m training.align photos crops`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import django
from PIL import Image
from tqdm import tqdm


def align(photos: Path, crops: Path) -> tuple[int, list[str]]:
    """Write the largest face of every picture below `photos` to the same relative path below
    `crops`.

    Faces are detected and aligned as in the service. Return the number of crops written, and a line
    for each picture without one.
    """
    from recognition.embedding import crop_upload
    from recognition.exceptions import RecognitionError

    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    written, refused = 0, []
    for path in tqdm(paths):
        try:
            (crop,) = crop_upload(path.read_bytes(), require_face=True)
        except RecognitionError as error:
            refused.append(f"{path}: {error}")
            continue
        target = (crops / path.relative_to(photos)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop.pixels).save(target)
        written += 1
    return written, refused


def main() -> None:
    """Run the alignment from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="a folder for each person")
    parser.add_argument("crops", type=Path, help="folder to write to, made when it is missing")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faceproject.settings")
    django.setup()
    written, refused = align(options.photos, options.crops)
    for line in refused:
        print(line)
    print(f"{written} crops in {options.crops}, {len(refused)} pictures without one")


if __name__ == "__main__":
    main()
