"""A limit on the pixels that all requests together hold decoded; others wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from recognition.conf import get_settings
from recognition.instrumentation import timed


class PixelBudget:
    """A counter of decoded pixels, first come, first served, so that small pictures cannot starve a
    large one.

    A thread that already holds pixels never waits, because others might be waiting for it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._used = 0
        self._own = threading.local()

    @property
    def used(self) -> int:
        """The number of pixels reserved at present."""
        return self._used

    @contextmanager
    def reserved(self, pixels: int) -> Iterator[None]:
        """Reserve pixels of `MAX_DECODED_PIXELS` until the block ends; wait until they are free.

        A picture larger than the whole budget reserves all of it.
        """
        total = get_settings().max_decoded_pixels
        pixels = min(pixels, total)
        with self._changed:
            if not self._held():
                with timed("pixels"):
                    self._wait_for_turn(pixels, total)
            self._used += pixels
        self._own.pixels = self._held() + pixels
        try:
            yield
        finally:
            self._own.pixels = self._held() - pixels
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()

    def _held(self) -> int:
        return getattr(self._own, "pixels", 0)

    def _wait_for_turn(self, pixels: int, total: int) -> None:
        turn = object()
        self._waiting.append(turn)
        try:
            while self._waiting[0] is not turn or self._used + pixels > total:
                self._changed.wait()
        finally:
            self._waiting.remove(turn)
            self._changed.notify_all()


budget = PixelBudget()
