"""Archives: a plain tar file whose last entry, `SHA256SUMS`, has the checksum of all others.

`tar -xf FILE` and `sha256sum -c SHA256SUMS` unpack and verify it without this program. Entries are
read and written one at a time, so memory is needed only for the largest entry.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Final, cast

from django.utils.translation import gettext

from recognition.exceptions import RecognitionError
from recognition.private_file import PRIVATE

SUMS: Final = "SHA256SUMS"
# The largest entry read into memory. Weights may be larger; they are copied from file to file.
HELD_AT_MOST: Final = 256 * 2**20
PIECE: Final = 2**20


class ArchiveRefused(RecognitionError):
    """The archive is damaged, foreign, or unsuitable for this installation."""

    code = "archive_refused"
    status = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of an archive.

    An entry longer than `PIECE` can be read only until the next entry is read.
    """

    name: str
    size: int
    file: IO[bytes]

    @property
    def content(self) -> bytes:
        """The whole content. Raise `ArchiveRefused` when it is larger than `HELD_AT_MOST`."""
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
        """Return the entry's line in `SHA256SUMS`."""
        digest = hashlib.sha256()
        while piece := self.file.read(PIECE):
            digest.update(piece)
        return _line(self.name, digest)


class _BoundedReads:
    """A file that refuses to read more than `HELD_AT_MOST` bytes at once.

    Without this, a header with a forged size would make tarfile read more than the memory holds.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HELD_AT_MOST:
            raise tarfile.ReadError(f"{size} bytes at once")
        return self._file.read(size)


@contextmanager
def new_archive(file: IO[bytes]) -> Iterator[ArchiveWriter]:
    """Write an archive into an empty file, at last its checksums."""
    with (
        tempfile.TemporaryFile() as sums,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        writer = ArchiveWriter(tar, sums)
        yield writer
        writer.add_sums()


class ArchiveWriter:
    """Add entries to an archive, and at its end their checksums."""

    def __init__(self, tar: tarfile.TarFile, sums: IO[bytes]) -> None:
        self._tar = tar
        self._sums = sums

    def add_sums(self) -> None:
        self._add(SUMS, self._sums, self._sums.seek(0, io.SEEK_END))

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
    """Yield every entry but the checksums, in order, without verifying them.

    Raise `ArchiveRefused` when the file is not an archive.
    """
    for entry, _file in _walk(path):
        if entry is not None:
            yield entry


def verify_archive(path: Path) -> int:
    """Verify the SHA-256 of every entry; return their number or raise `ArchiveRefused`."""
    with tempfile.TemporaryFile() as computed, _read_errors_translated(path):
        entries = _walk(path)
        for count, (entry, sums) in enumerate(entries):
            if entry is not None:
                computed.write(entry.line())
                continue
            computed.seek(0)
            _compare(computed, sums)
            if next(entries, None):  # entries after the sums have no checksum
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
    """Yield each entry with its content. For the checksums, yield None and the file to read them
    from."""
    with (
        _read_errors_translated(path),
        path.open("rb") as file,
        tarfile.open(fileobj=cast(IO[bytes], _BoundedReads(file)), mode="r:") as tar,
    ):
        while info := tar.next():
            _forget_members(tar)
            # Reading a sparse entry could produce any number of bytes.
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
    """Clear tarfile's list of entries, which would grow with every entry read or written."""
    tar.members.clear()  # type: ignore[attr-defined]  # missing in the stubs
