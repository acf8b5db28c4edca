"""Secrets in files that only their owner can read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO


def private_file(path: Path, make: Callable[[], str]) -> str:
    """Return the text stored at `path`; store what `make` returns, for the owner only, if missing.

    The file is created atomically: threads, processes and containers that ask at once get the same text.
    """
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{token_hex(8)}")  # containers number processes alike
        with new_private_file(fresh) as file:
            file.write(make().encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text()


@contextmanager
def new_private_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing that only its owner can read; remove it again on failure.

    Raise `FileExistsError` when there is one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as file:  # a full disk may show only when it is closed
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
