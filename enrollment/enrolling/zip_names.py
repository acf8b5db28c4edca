"""The names of a ZIP's entries, which programs write in several ways and often do not say in which."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

_UTF8_FLAG: Final = 0x800
_UNICODE_PATH: Final = 0x7075  # extra field with the name in UTF-8, which some programs add
_DOS: Final = "cp850"  # the code page of Windows and DOS in Western Europe and Latin America
_WINDOWS: Final = "cp1252"  # what some programs write instead
_WORD: Final = re.compile(r"[^\W\d_]+")
_RARE_LETTERS: Final = frozenset("þÞðÐıƒ")  # of languages that are not written in this code page
_PORTUGUESE: Final = frozenset("áàâãçéêíóôõúüºª")


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
