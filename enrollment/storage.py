"""Pictures on this machine's disk that outlive a power loss, like the SQL rows that name them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from django.core.files.storage import FileSystemStorage


class DurableStorage(FileSystemStorage):
    """A file that was saved is on the disk itself, and so is its name."""

    def _save(self, name: str, content: IO[bytes]) -> str:
        saved = super()._save(name, content)
        path, root = Path(self.path(saved)), Path(self.location)
        sync(path)
        for folder in path.parents:
            sync(folder)
            if folder == root:
                break
        return saved


def sync(path: Path) -> None:
    """Has the disk itself hold a file's bytes, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
