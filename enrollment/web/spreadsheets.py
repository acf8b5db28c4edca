"""Values in files that spreadsheets open: none is run as a formula, and each comes back as it was."""

from __future__ import annotations

import re
from typing import Any, Final

# What a spreadsheet takes for a formula, or makes one of; an apostrophe before it makes it a text.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?\d+([.,]\d+)?")


def escaped(value: Any) -> Any:
    """The value for a cell: a text that would be a formula gets an apostrophe before it."""
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def unescaped(cell: str) -> str:
    """The value of a cell that `escaped` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
