"""Unpack a ZIP archive safely; entries that cannot be unpacked are reported one by one.

Programs write the names of entries in several ways, and often do not say in which.
"""

from __future__ import annotations

import errno
import lzma
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

from enrollment.exceptions import StorageUnavailable
from recognition.exceptions import RecognitionError
from recognition.sentences import gettext

MAX_FILES: Final = 10_000
MAX_BYTES: Final = 2 * 1024**3  # unpacked
# What a file system says of a name that it does not take.
_NAMES_REFUSED: Final = (
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
)
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

_UTF8_FLAG: Final = 0x800
_UNICODE_PATH: Final = 0x7075  # extra field with the name in UTF-8, which some programs add
_DOS: Final = "cp850"  # the code page of Windows and DOS in Western Europe and Latin America
_WINDOWS: Final = "cp1252"  # what some programs write instead
_WORD: Final = re.compile(r"[^\W\d_]+")
_RARE_LETTERS: Final = frozenset("þÞðÐıƒ")  # of languages that are not written in this code page
_PORTUGUESE: Final = frozenset("áàâãçéêíóôõúüºª")


class BadArchive(RecognitionError):
    """The file is not a ZIP archive that can be unpacked here."""

    code = "bad_archive"
    status = 400


def unpack(file: IO[bytes], folder: Path) -> dict[str, str]:
    """Write the files of the ZIP below the folder; return the reasons of failed entries, by name.

    Raise `BadArchive` when the archive as a whole is damaged, unsafe or too large, and
    `StorageUnavailable` when the disk does not take it.
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
        if isinstance(error, OSError) and error.errno and error.errno not in _NAMES_REFUSED:
            raise StorageUnavailable(
                gettext(
                    "There is no room for the files of the ZIP, so nothing was imported. Have the "
                    "administrator check the free space and the rights of DATA_DIR, then send it again."
                )
            ) from error
        raise BadArchive(
            gettext(
                "The ZIP holds names that cannot be files here. Rename what has a very long or odd name "
                "and pack it again."
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


class EntryName(NamedTuple):
    """The name of an entry with slashes, and whether it was read for sure.

    One that was not has its bytes as `\\xe3`.
    """

    text: str
    is_sure: bool


def entry_names(entries: Sequence[zipfile.ZipInfo]) -> list[EntryName]:
    """Return the names of all entries of an archive, in order.

    Names that say that they are UTF-8, or are valid in it, are UTF-8. The others are code page 850, as
    Windows writes it, if all of them read as words in it: an archive is written in one code page.
    """
    known = [_unicode_name(entry) for entry in entries]
    others = [
        _written(entry).decode(_DOS)
        for entry, name in zip(entries, known, strict=True)
        if name is None
    ]
    is_dos = all(_is_plausible(name) for name in others)
    return [
        EntryName(name.replace("\\", "/"), True)
        if name is not None
        else EntryName(_written(entry).decode(_DOS).replace("\\", "/"), True)
        if is_dos
        else EntryName(_written(entry).decode("ascii", "backslashreplace"), False)
        for entry, name in zip(entries, known, strict=True)
    ]


def _written(entry: zipfile.ZipInfo) -> bytes:
    return entry.orig_filename.encode("cp437")  # as zipfile decoded it


def _unicode_name(entry: zipfile.ZipInfo) -> str | None:
    """Return the name if it is in Unicode, else None."""
    if entry.flag_bits & _UTF8_FLAG:
        return entry.orig_filename
    written = _written(entry)
    name = _unicode_path(entry.extra, written)
    if name is None:
        try:
            name = written.decode()
        except UnicodeDecodeError:
            return None
    return name


def _unicode_path(extra: bytes, written: bytes) -> str | None:
    """Return the name in the extra field if its checksum matches the entry's name, else None."""
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


def _is_plausible(name: str) -> bool:
    """Return whether a name that was read in code page 850 is likely to have been written in it."""
    if not _reads_as_words(name):
        return False
    try:
        other = name.encode(_DOS).decode(_WINDOWS)
    except UnicodeDecodeError:
        return True
    # What is Portuguese in the other code page, and is not in this, was written in the other.
    return _is_portuguese(name) or not (_reads_as_words(other) and _is_portuguese(other))


def _reads_as_words(name: str) -> bool:
    """Return whether accented letters stand in words as people write them, and no other signs do."""
    signs = {letter for letter in name if not letter.isascii()}
    if not all(letter.isalpha() for letter in signs) or signs & _RARE_LETTERS:
        return False
    return all(_is_word(word) for word in _WORD.findall(name))


def _is_word(word: str) -> bool:
    accented = [letter for letter in word if not letter.isascii() and letter not in "ºª"]
    if 2 * len(accented) > len(word) + 1:  # a word of another script
        return False
    for place, letter in enumerate(word):
        before = word[place - 1] if place else ""
        if letter.isascii() and before.isascii():
            continue
        # Case changes only after the first letter of a word, where an accent is.
        if place > 1 and letter.isupper() != before.isupper() and letter not in "ºª":
            return False
        if place == 1 and letter.isupper() and before.islower():
            return False
    return True


def _is_portuguese(name: str) -> bool:
    return all(letter in _PORTUGUESE for letter in name.lower() if not letter.isascii())
