"""Cells of files for spreadsheets: none runs as a formula, and none is lost."""

from __future__ import annotations

import re
from typing import Any, Final

from recognition.sentences import gettext

# The start of a cell that a spreadsheet takes for a formula; an apostrophe before it makes it text.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?\d+([.,]\d+)?")

# Spreadsheets shorten 12345678909 to 1.2346E+10, or 1,23E+10 with a decimal comma.
_SCIENTIFIC: Final = re.compile(r"-?\d([.,]\d+E\+?|E\+)\d+", re.IGNORECASE)


def escaped(value: Any) -> Any:
    """Return the value for a cell; a text that would be a formula gets an apostrophe before it."""
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def unescaped(cell: str) -> str:
    """Return the original value of a cell that `escaped` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


def is_shortened(cell: str) -> bool:
    """Return whether a spreadsheet has shortened the number in the cell, so that digits are lost."""
    return bool(_SCIENTIFIC.fullmatch(cell))


def shortened_id(cell: str) -> str:
    """Return the message that this cell is no id any more."""
    message = gettext(
        "'%(given)s' is a number that a spreadsheet has shortened, and no id any more. Make the "
        "column a column of texts, and write the ids anew."
    )
    return message % {"given": cell}
