"""Escape values in files for spreadsheets, so that none runs as a formula and none is lost."""

from __future__ import annotations

import re
from typing import Any, Final

# The start of a cell that a spreadsheet takes for a formula; an apostrophe before it makes it text.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?\d+([.,]\d+)?")


def escaped(value: Any) -> Any:
    """Return the value for a cell; a text that would be a formula gets an apostrophe before it."""
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def unescaped(cell: str) -> str:
    """Return the original value of a cell that `escaped` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
