"""Unpack a ZIP archive safely; entries that cannot be unpacked are reported one by one."""

from __future__ import annotations

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from django.utils.translation import gettext

from enrollment.enrolling.zip_names import EntryName, entry_names
from recognition.exceptions import RecognitionError

MAX_FILES: Final = 10_000
MAX_BYTES: Final = 2 * 1024**3  # unpacked
# Exceptions for damaged or encrypted entries and unsupported compression.
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
    """The file is not a ZIP archive that can be unpacked here."""

    code = "bad_archive"
    status = 400


def unpack(file: IO[bytes], folder: Path) -> dict[str, str]:
    """Write the files of the ZIP below the folder; return the reasons of failed entries, by name.

    Raise `BadArchive` when the archive as a whole is damaged, unsafe or too large.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            files = [
                (name, entry)
                for name, entry in zip(entry_names(entries), entries, strict=True)
                if not name.text.endswith("/")
            ]
            _check(files)
            folder.mkdir(exist_ok=True)
            reasons = {name.text: _write(archive, entry, name, folder) for name, entry in files}
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


def _check(files: list[tuple[EntryName, zipfile.ZipInfo]]) -> None:
    size = sum(entry.file_size for _name, entry in files)
    if len(files) > MAX_FILES or size > MAX_BYTES:
        message = gettext(
            "The ZIP holds %(count)d files of together %(size)d MB; at most %(most)d files of %(limit)d "
            "MB are unpacked. Split it, or use 'manage.py enroll' on the server."
        )
        numbers = {"count": len(files), "size": size >> 20}
        numbers |= {"most": MAX_FILES, "limit": MAX_BYTES >> 20}
        raise BadArchive(message % numbers)
    for (name, _is_sure), _entry in files:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or ":" in name.partition("/")[0]:
            message = gettext(
                "The ZIP holds a file outside of its folders: %(name)s. Pack it again."
            )
            raise BadArchive(message % {"name": name[:200]})


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: EntryName, folder: Path) -> str:
    """Write the entry to a file below the folder; return the reason if that fails, else "".

    zipfile reads no more bytes than the entry declares.
    """
    if not name.is_sure:
        return gettext(
            "The character set of this name cannot be told. Pack the folders again with a program that "
            "writes names in UTF-8, such as 7-Zip."
        )
    inside = PurePosixPath(name.text)
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
                raise  # a disk error; the OSError of bz2 for damaged data has no errno
            path.unlink()
            return gettext(
                "The entry is damaged, or uses a compression or a password that is not supported. Pack "
                "it again as a plain ZIP."
            )
    return ""
