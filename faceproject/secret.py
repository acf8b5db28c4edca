"""The private data folder, and a generated secret key."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from recognition.private_file import private_file


def private_folder(path: Path) -> Path:
    """Return the folder at `path`, created for its owner only.

    A fresh clone contains `data/` with its README.md, readable by others as the umask allows; it is
    then restricted too. A folder that somebody created and opened stays as it is.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid == os.getuid() and [entry.name for entry in path.iterdir()] == [
        "README.md"
    ]:
        path.chmod(0o700)
    return path


def stored_secret_key(path: Path) -> str:
    """Return the key stored at `path`; generate it, readable by its owner only, if missing."""
    return private_file(path, get_random_secret_key)
