"""The private data folder, and a generated secret key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from recognition.private_file import private_file


def private_folder(path: Path) -> Path:
    """Return the folder at `path`, created for its owner only.

    A fresh clone contains `data/` with its README.md, readable by others as the umask allows; it is
    then restricted too. A folder that somebody created and opened stays as it is.
    """
    with _refusals_told(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.getuid() and [entry.name for entry in path.iterdir()] == [
            "README.md"
        ]:
            path.chmod(0o700)
    return path


def stored_secret_key(path: Path) -> str:
    """Return the key stored at `path`; generate it, readable by its owner only, if missing."""
    with _refusals_told(path.parent):
        return private_file(path, get_random_secret_key)


@contextmanager
def _refusals_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImproperlyConfigured(
            f"DATA_DIR is {folder}, which cannot be used: {error.strerror}. Name a folder, or one that "
            "can be made, and run this as the user whom it belongs to. See docs/configuration.md."
        ) from error
