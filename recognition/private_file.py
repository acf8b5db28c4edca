"""Files that are whole or not there, and secrets in files that only their owner can read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, Final

PRIVATE: Final = 0o600
AS_USUAL: Final = 0o666  # what the umask takes away is taken away


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
def new_private_file(path: Path, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Open a new file for writing that only its owner can read; remove it again on failure.

    Raise `FileExistsError` when there is one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w+b") as file:  # a full disk may show only when it is closed
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def whole_file(path: Path, mode: int = PRIVATE, *, may_replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets the name `path` once it is whole; on failure it goes.

    Each caller has a file of its own, so several at once do not mix: the last one stays or, unless
    it `may_replace`, the first, and the others raise `FileExistsError`. What a killed process leaves
    of it lies beside `path`; of one that may not replace another, file systems with nameless files
    keep nothing.
    """
    if not may_replace and (nameless := _nameless_file(path.parent, mode)):
        with nameless as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # With a folder given, Python has the kernel follow the link to what has no name.
            os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=file.fileno())
        return
    fresh = path.with_name(f"{path.name}.{token_hex(8)}.part")
    with new_private_file(fresh, mode) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        if not may_replace:
            path.touch(mode, exist_ok=False)
        fresh.replace(path)


def _nameless_file(folder: Path, mode: int) -> IO[bytes] | None:
    """Open a file that goes with the process; Linux has some, network file systems do not."""
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR, mode), "w+b")
    except (AttributeError, OSError):
        return None
