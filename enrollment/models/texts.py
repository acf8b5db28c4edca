"""Normal forms of ids and names, for storing, comparing and searching them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Invisible characters: soft hyphens, zero-width characters, direction marks, invisible operators.
_INVISIBLE: Final = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# Digits, without leading zeros; of zero itself, none.
_NUMBER: Final = re.compile("0*([0-9]+)")
# Unicode categories: controls, surrogates, line separators and paragraph separators.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def normalised(text: str) -> str:
    """Return the text as Unicode NFC, without invisible characters and surrounding white space.

    Two texts that differ only in composed and decomposed accents become equal.
    """
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip()


def is_printable(text: str) -> bool:
    """Return whether the text has no control characters and no line breaks."""
    return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def folded(text: str) -> str:
    """Return the text without accents, case and repeated white space, to compare spellings of a
    name."""
    plain = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text).casefold())
    letters = "".join(each for each in plain if not unicodedata.combining(each))
    return " ".join(letters.split())


def letters_and_digits(text: str) -> str:
    """Return the letters and digits of the folded text: the digits of '123.456.789-09'.

    A text without any letter or digit is returned folded.
    """
    plain = folded(text)
    return "".join(each for each in plain if each.isalnum()) or plain


def in_natural_order(text: str) -> str:
    """Return a key that sorts numbers inside of texts by their value: `emp-2` before `emp-10`."""
    return _NUMBER.sub(lambda found: f"{len(found[1]):03}{found[1]}", folded(text))
