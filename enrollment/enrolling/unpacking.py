"""What a ZIP holds, written below a folder; what cannot be is told, entry by entry."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from django.utils.translation import gettext

from recognition.exceptions import RecognitionError

MAX_FILES: Final = 10_000
MAX_BYTES: Final = 2 * 1024**3  # unpacked
_UTF8_FLAG: Final = 0x800
_UNICODE_PATH: Final = 0x7075  # the extra field in which some programs write the name once more
# What reading an entry can meet: damage, passwords, compressions that are not ours.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class BadArchive(RecognitionError):
    """The file is no ZIP that can be unpacked here."""

    code = "bad_archive"
    status = 400


def unpack(file: IO[bytes], folder: Path) -> dict[str, str]:
    """Writes the files of the ZIP below the folder; why some could not be, by their names.

    Raises `BadArchive` where nothing of it is to be trusted, or it holds too much.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [(_name(entry), entry) for entry in archive.infolist()]
            files = [(name, entry) for name, entry in entries if not name.endswith("/")]
            _check(files)
            folder.mkdir(exist_ok=True)
            reasons = {name: _write(archive, entry, name, folder) for name, entry in files}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadArchive(
            gettext(
                "The file is no ZIP, is damaged, or uses a compression or a password that is not "
                "supported. Pack the folders again as a plain ZIP."
            )
        ) from error
    except (OSError, ValueError) as error:
        raise BadArchive(
            gettext(
                "The ZIP holds names that cannot be files here, or the disk is full. Rename what has a "
                "very long or odd name and pack it again."
            )
        ) from error
    return {name: reason for name, reason in reasons.items() if reason}


def _name(entry: zipfile.ZipInfo) -> str:
    """The entry's name with slashes, however it is written.

    Many programs write UTF-8 without saying so; others the letters of DOS (code page 850).
    """
    if entry.flag_bits & _UTF8_FLAG:
        return entry.orig_filename.replace("\\", "/")
    written = entry.orig_filename.encode("cp437")  # as zipfile read it
    name = _unicode_path(entry.extra, written)
    if name is None:
        try:
            name = written.decode()
        except UnicodeDecodeError:
            name = written.decode("cp850")
    return name.replace("\\", "/")


def _unicode_path(extra: bytes, written: bytes) -> str | None:
    """The name of the extra field, as long as it belongs to the name that stands in the entry."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(content) > 5:
            version, checksum = struct.unpack_from("<BL", content)
            if version == 1 and checksum == zlib.crc32(written):
                try:
                    return content[5:].decode()
                except UnicodeDecodeError:
                    return None
    return None


def _check(files: list[tuple[str, zipfile.ZipInfo]]) -> None:
    size = sum(entry.file_size for _name, entry in files)
    if len(files) > MAX_FILES or size > MAX_BYTES:
        message = gettext(
            "The ZIP holds %(count)d files of together %(size)d MB; at most %(most)d files of %(limit)d "
            "MB are unpacked. Split it, or use 'manage.py enroll' on the server."
        )
        numbers = {"count": len(files), "size": size >> 20}
        numbers |= {"most": MAX_FILES, "limit": MAX_BYTES >> 20}
        raise BadArchive(message % numbers)
    for name, _entry in files:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or ":" in name.partition("/")[0]:
            message = gettext(
                "The ZIP holds a file outside of its folders: %(name)s. Pack it again."
            )
            raise BadArchive(message % {"name": name[:200]})


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, folder: Path) -> str:
    """Below the folder, as a plain file; never more bytes than the entry says it has. Or why not."""
    inside = PurePosixPath(name)
    if not inside.parts:
        return gettext("The entry has no name. Give the file one and pack it again.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        return ""  # passed over
    path = folder / inside
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target:
        try:
            with archive.open(entry) as source:
                shutil.copyfileobj(source, target)
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # of the disk; what bz2 cannot read has no number
            path.unlink()
            return gettext(
                "The entry is damaged, or uses a compression or a password that is not supported. Pack "
                "it again as a plain ZIP."
            )
    return ""
