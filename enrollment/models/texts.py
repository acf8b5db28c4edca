"""What ids and names are compared by: how they are written, and what is left of that for a search."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# What nobody sees: soft hyphens, zero-width characters, marks of direction, invisible operators.
_INVISIBLE: Final = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# Categories of Unicode: controls, halves of characters, ends of lines and of paragraphs.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def normalised(text: str) -> str:
    """The text as NFC, without invisible characters and without white space around it.

    Two texts that look alike because an accent is a character of its own in one of them are the same.
    """
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip()


def is_printable(text: str) -> bool:
    """Whether the text is one line that any database and any terminal can show."""
    return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def folded(text: str) -> str:
    """The text without accents, case and needless white space: what two spellings of a name share."""
    plain = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text).casefold())
    letters = "".join(each for each in plain if not unicodedata.combining(each))
    return " ".join(letters.split())


def letters_and_digits(text: str) -> str:
    """What is left of the folded text without punctuation: of '123.456.789-09' the digits.

    All of it where there is nothing but punctuation.
    """
    plain = folded(text)
    return "".join(each for each in plain if each.isalnum()) or plain
