"""Text for lines of the log, whose length must not grow with the gallery."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Final

SHOWN: Final = 10
MOST_CHARACTERS: Final = 500


def few(values: Collection[object]) -> str:
    """Return the values with commas; of many the first ones and how many there are."""
    shown = ", ".join(map(str, islice(values, SHOWN)))
    return shown if len(values) <= SHOWN else f"{shown}, … ({len(values)} in all)"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, cut after `MOST_CHARACTERS`."""
    line = next(iter(str(error).splitlines()), "")
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}…"
