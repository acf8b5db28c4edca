"""Turns to write to SQLite: the threads of this process go in one at a time, in the order in which
they came.

SQLite lets one write at a time. Who finds it taken sleeps longer after each try and finds it taken
again, by whoever came meanwhile: beside ten who search without a pause, and so write to the log, a
twentieth of the others waited 0.9 s and more for each transaction (now 0.04 s).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

LOCK_WAIT_SECONDS: Final = 1.0  # short, so that noting a search does not wait for a long import
_BEGINNINGS: Final = ("BEGIN", "INSERT", "UPDATE", "DELETE")  # of what takes SQLite's lock


class Door:
    """Lets one thread in at a time, in the order in which they came."""

    def __init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Forget who is inside and who waits, as after a fork, which takes no other thread along."""
        self._lock = threading.Lock()
        self._is_free = True
        self._waiting: deque[threading.Event] = deque()
        self._own = threading.local()  # `.times`: how often this thread has entered and not left

    def enter(self, seconds: float) -> bool:
        """Wait for one's turn, at most for so long; return whether this thread is inside.

        One that is inside enters again at once, and is inside until it has left as often.
        """
        times = getattr(self._own, "times", 0)
        if not times and not self._let_in(seconds):
            return False
        self._own.times = times + 1
        return True

    def _let_in(self, seconds: float) -> bool:
        with self._lock:
            if self._is_free:
                self._is_free = False
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            if turn.wait(seconds):
                return True
        except BaseException:  # such as Ctrl-C: nobody is to wait for who does not come in
            if not self._give_up(turn):
                self._let_next_in()
            raise
        return not self._give_up(turn)

    def _give_up(self, turn: threading.Event) -> bool:
        """Wait no longer; return False if it was let in just now."""
        with self._lock:
            if turn.is_set():
                return False
            self._waiting.remove(turn)
            return True

    def leave(self) -> None:
        """Let the next in, when this thread has left as often as it entered."""
        self._own.times -= 1
        if not self._own.times:
            self._let_next_in()

    def _let_next_in(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._is_free = True


door: Final = Door()
os.register_at_fork(after_in_child=door.open)
_limit = threading.local()  # `.until`, as `time.monotonic` counts: how long this thread may wait


@contextmanager
def short_wait(until: float | None = None) -> Iterator[None]:
    """Limit how long an optional write waits for SQLite's lock: `until`, as `time.monotonic` counts, or
    for `LOCK_WAIT_SECONDS`. It has its turn until the block ends.

    Other databases insert rows without waiting, so nothing changes.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    end = monotonic() + LOCK_WAIT_SECONDS if until is None else until
    former, _limit.until = getattr(_limit, "until", None), end
    is_inside = door.enter(max(end - monotonic(), 0))
    try:
        _set_busy_timeout(max(int(1000 * (end - monotonic())), 0))
        yield
    finally:
        if is_inside:
            door.leave()
        _limit.until = former
        _set_busy_timeout(1000 * connection.settings_dict["OPTIONS"].get("timeout", 5))


def _set_busy_timeout(milliseconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {milliseconds:d}")


def take_turns() -> None:
    """Let every write to SQLite wait for its turn, in each connection that is opened from now on."""
    connection_created.connect(_watch, dispatch_uid="turns")


def _watch(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    wrappers = connection.execute_wrappers
    if connection.vendor == "sqlite" and _in_turn not in wrappers:
        wrappers.insert(0, _in_turn)  # not at the end, where `execute_wrapper` removes its own


def _in_turn(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """Execute what takes SQLite's lock, a transaction's beginning or a write without one, in turn.

    The turn ends when the lock is taken, so a transaction never waits for one. Raise
    `OperationalError` when others were in front for as long as one may wait.
    """
    connection = context["connection"]
    if connection.in_atomic_block or not sql.startswith(_BEGINNINGS):
        return execute(sql, params, many, context)
    until = getattr(_limit, "until", None)
    patience = connection.settings_dict["OPTIONS"].get("timeout", 5)
    if not door.enter(patience if until is None else max(until - monotonic(), 0)):
        raise OperationalError("database is locked, and others wait in front")
    try:
        return execute(sql, params, many, context)
    finally:
        door.leave()
