"""The folder that holds the faces, and the secret key of an installation that was given none."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def private_folder(path: Path) -> Path:
    """The folder at `path`, made for its owner only when it is not there.

    A fresh clone brings `data/` along, holding its README.md, as open as the umask left it: then it is
    closed too. What somebody made and opened stays open.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid == os.getuid() and [entry.name for entry in path.iterdir()] == [
        "README.md"
    ]:
        path.chmod(0o700)
    return path


def stored_secret_key(path: Path) -> str:
    """The key in `path`, made there (readable by the owner only) when there is none yet.

    Two processes that start at once agree: the file appears whole, and the first one wins.
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
