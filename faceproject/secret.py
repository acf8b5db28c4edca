"""The private data folder, and a generated secret key."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key


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
    """Return the key stored at `path`; generate it, readable by its owner only, if missing.

    The file is created atomically, so two processes that start at once use the same key.
    """
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(get_random_secret_key())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text()
