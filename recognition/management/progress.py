"""A progress bar on stderr for long loops."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def add_progress_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--no-progress", action="store_true", help="Show no progress bar (none without a terminal)."
    )


def progress_bar(hidden: bool) -> Callable[[Iterable[Item], str, int | None], Iterable[Item]]:
    """Wraps a loop: the items, what is being done, how many there are (None: not known)."""
    from tqdm import tqdm

    def track(items: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
        # None: hidden unless stderr is a terminal.
        return tqdm(items, label, total, file=sys.stderr, disable=hidden or None, leave=False)

    return track
