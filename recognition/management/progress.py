"""A progress bar on stderr for long loops."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


def add_progress_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--no-progress", action="store_true", help="Show no progress bar (none without a terminal)."
    )


class ProgressBar(Protocol):
    """A wrapper that shows the progress of a loop: items, label, and their number (None: unknown)."""

    def __call__(
        self, items: Iterable[Item], label: str, total: int | None, /
    ) -> Iterable[Item]: ...


def progress_bar(hidden: bool) -> ProgressBar:
    """Return a progress bar on stderr, which is silent when `hidden` or without a terminal."""
    from tqdm import tqdm

    def track(items: Iterable[Item], label: str, total: int | None) -> Iterable[Item]:
        # disable=None hides the bar unless stderr is a terminal.
        bar: Iterable[Item] = tqdm(
            items, label, total, file=sys.stderr, disable=hidden or None, leave=False
        )
        return bar

    return track
