"""One file that holds many: a plain tar whose last entry, `SHA256SUMS`, vouches for all the others.

`tar -xf FILE` and `sha256sum -c SHA256SUMS` open and check it without this program. Entries are read
and written one at a time, so that an archive of any size needs the memory of its largest entry.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Final, Self, cast

from django.utils.translation import gettext

from enrollment.gallery import sync
from recognition.exceptions import RecognitionError

SUMS: Final = "SHA256SUMS"
PRIVATE: Final = 0o600
# What is held in memory at once; weights, which may be larger, are copied from file to file.
HELD_AT_MOST: Final = 256 * 2**20
PIECE: Final = 2**20


class ArchiveRefused(RecognitionError):
    """The archive is damaged, no archive of ours, or not for this installation."""

    code = "archive_refused"
    status = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry; what is longer than a `PIECE` only as long as it is the last that was read."""

    name: str
    size: int
    file: IO[bytes]

    @property
    def content(self) -> bytes:
        """All of it; `ArchiveRefused` for more than this program writes into such an entry."""
        if self.size > HELD_AT_MOST:
            raise ArchiveRefused(
                gettext(
                    "The entry %(name)s of the backup has %(size)d MB, more than such an entry may have. "
                    "Use another backup."
                )
                % {"name": self.name[:100], "size": self.size >> 20}
            )
        self.file.seek(0)
        return self.file.read()

    def line(self) -> bytes:
        """As `SHA256SUMS` has it."""
        digest = hashlib.sha256()
        while piece := self.file.read(PIECE):
            digest.update(piece)
        return _line(self.name, digest)


class _NoLongReads:
    """A file of which nobody can read more than `HELD_AT_MOST` at once.

    A header that says it is longer than the memory, of an archive that is mostly holes, would be read whole.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HELD_AT_MOST:
            raise tarfile.ReadError(f"{size} bytes at once")
        return self._file.read(size)


class ArchiveWriter:
    """Writes beside `path`, readable by its owner only; the file appears there when all is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    def __enter__(self) -> Self:
        self._part.unlink(missing_ok=True)
        self._file = os.fdopen(
            os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb"
        )
        self._sums = tempfile.TemporaryFile()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_details: object) -> None:
        with self._sums, self._file:
            if failure:
                self._part.unlink(missing_ok=True)
                return
            self._sums.seek(0)
            self._add(SUMS, self._sums, self._sums.seek(0, io.SEEK_END))
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        self._part.replace(self._path)
        sync(self._path.parent)  # so that the rename itself survives a power loss

    def add(self, name: str, content: bytes) -> None:
        self._sums.write(_line(name, hashlib.sha256(content)))
        self._add(name, io.BytesIO(content), len(content))

    def _add(self, name: str, file: IO[bytes], size: int) -> None:
        file.seek(0)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, PRIVATE, int(time.time())
        self._tar.addfile(info, file)
        _forget_members(self._tar)


def read_entries(path: Path) -> Generator[Entry, None, None]:
    """Every entry but the sums, in order, unchecked; `ArchiveRefused` for what is no archive."""
    for entry, _file in _walk(path):
        if entry is not None:
            yield entry


def verify_archive(path: Path) -> int:
    """Compares every entry with its SHA-256; returns how many there are, or raises `ArchiveRefused`."""
    with tempfile.TemporaryFile() as computed, _read_errors_translated(path):
        entries = _walk(path)
        for count, (entry, sums) in enumerate(entries):
            if entry is not None:
                computed.write(entry.line())
                continue
            computed.seek(0)
            _compare(computed, sums)
            if next(entries, None):  # the sums do not vouch for what follows them
                raise tarfile.ReadError("entries after the sums")
            return count
    raise ArchiveRefused(
        gettext(
            "%(file)s is no complete backup: its list of checksums is missing, so it was cut off or "
            "damaged. Use another backup."
        )
        % {"file": path.name}
    )


def _walk(path: Path) -> Iterator[tuple[Entry | None, IO[bytes]]]:
    """Entries with their content; the sums, which may be long, as a file to read instead."""
    with (
        _read_errors_translated(path),
        path.open("rb") as file,
        tarfile.open(fileobj=cast(IO[bytes], _NoLongReads(file)), mode="r:") as tar,
    ):
        while info := tar.next():
            _forget_members(tar)
            # A sparse entry would be filled up to any size.
            content = None if info.sparse or not info.isfile() else tar.extractfile(info)
            if content is None:
                raise tarfile.ReadError(info.name)
            if info.name == SUMS:
                yield None, content
            else:
                short = info.size <= PIECE
                file_of = io.BytesIO(content.read()) if short else content
                yield Entry(info.name, info.size, file_of), content


@contextmanager
def _read_errors_translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, UnicodeError, EOFError) as error:
        raise ArchiveRefused(
            gettext("%(file)s is damaged or no backup of this program. Use another backup.")
            % {"file": path.name}
        ) from error
    except OSError as error:
        raise ArchiveRefused(
            gettext("%(file)s cannot be read: %(reason)s.")
            % {"file": path.name, "reason": error.strerror or error}
        ) from error


def _compare(computed: IO[bytes], written: IO[bytes]) -> None:
    for ours, theirs in zip_longest(computed, written, fillvalue=b""):
        if ours != theirs:
            name = (ours or theirs).decode(errors="replace").partition("  ")[2].strip()
            raise ArchiveRefused(
                gettext("The entry %(name)s of the backup is damaged. Use another backup.")
                % {"name": name}
            )


def _line(name: str, digest: hashlib._Hash) -> bytes:
    return f"{digest.hexdigest()}  {name}\n".encode()


def _forget_members(tar: tarfile.TarFile) -> None:
    """Of an archive that is read or written once through, which would remember every entry."""
    tar.members.clear()  # type: ignore[attr-defined]  # which the stubs leave out
