"""What several threads store at the same time, in one transaction: for all of them the disk is waited for once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Generic, TypeVar

from django.db import OperationalError, connection, transaction

from enrollment.journal.turns import LOCK_WAIT_SECONDS, short_wait

Item = TypeVar("Item")

# For a transaction that has begun and may store the item, and for others' on other databases than SQLite.
END_SECONDS: Final = 60.0


@dataclass(slots=True, eq=False)
class _Handed(Generic[Item]):
    """An item on its way. The future is True when it is stored, False when its thread is to write."""

    item: Item
    until: float  # as `time.monotonic` counts
    future: Future[bool] = field(default_factory=Future)


class GroupCommit(Generic[Item]):
    """Stores the items of many threads in few transactions.

    One thread at a time writes: its own item, and all that were handed over by the time its
    transaction had begun. The others wait until theirs is stored. Who comes alone writes at once.

    It is worth it wherever writers wait for each other: for SQLite's one lock, or for the end of the
    journal's chain, which a transaction of PostgreSQL holds until it is on the disk.
    """

    def __init__(self, write: Callable[[Sequence[Item]], None]) -> None:
        """`write` stores items in the transaction that it is called in, and once more each alone
        when that was rolled back."""
        self._write = write
        self._lock = threading.Lock()
        self._waiting: deque[_Handed[Item]] = deque()
        self._is_led = False  # a thread writes, or was told to

    def store(self, item: Item) -> None:
        """Return when the item is committed; within a transaction of the caller it is a part of that.

        Raise what is wrong with this item, or `OperationalError` when SQLite, or others who write to
        it, did not let it in within `LOCK_WAIT_SECONDS`.
        """
        if connection.in_atomic_block:
            with transaction.atomic():
                self._write([item])
            return
        limit = LOCK_WAIT_SECONDS if connection.vendor == "sqlite" else END_SECONDS
        own = _Handed(item, monotonic() + limit)
        with self._lock:
            leads, self._is_led = not self._is_led, True
            if not leads:
                self._waiting.append(own)
        if leads or not self._is_stored(own):
            self._lead(own)

    def _is_stored(self, own: _Handed[Item]) -> bool:
        """Wait until the item is stored; return False when it is this thread's turn to write."""
        try:
            return own.future.result(own.until - monotonic())
        except TimeoutError:
            if own.future.cancel():
                message = "others were written for as long as one may wait"
                raise OperationalError(message) from None
        try:
            return own.future.result(END_SECONDS)
        except TimeoutError:
            message = "the transaction that may store it has not ended"
            raise OperationalError(message) from None

    def _lead(self, own: _Handed[Item]) -> None:
        batch, errors = [own], list[BaseException | None]()
        try:
            with short_wait(own.until):
                errors = self._store_all(batch)
        except BaseException as error:  # noqa: BLE001 (it is raised, when the others know of it)
            errors = [error] * len(batch)
        self._call_next()
        for other, wrong in zip(batch[1:], errors[1:], strict=True):
            if wrong is None:
                other.future.set_result(True)
            else:
                other.future.set_exception(wrong)
        if errors[0] is not None:
            raise errors[0]

    def _store_all(self, batch: list[_Handed[Item]]) -> list[BaseException | None]:
        """Add what waits to the batch and store it; return what is wrong with each."""
        try:
            with transaction.atomic():
                batch += self._taken()
                self._write([each.item for each in batch])
        except OperationalError:  # of the database: to try each alone would take as long again
            raise
        except Exception as error:  # noqa: BLE001 (each gets its own)
            return [error] if len(batch) == 1 else [self._error_alone(each) for each in batch]
        return [None] * len(batch)

    def _error_alone(self, handed: _Handed[Item]) -> Exception | None:
        try:
            with transaction.atomic():
                self._write([handed.item])
        except Exception as error:  # noqa: BLE001 (it is for the thread that handed the item over)
            return error
        return None

    def _taken(self) -> list[_Handed[Item]]:
        """Take all that wait and have not given up."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        return [each for each in waiting if each.future.set_running_or_notify_cancel()]

    def _call_next(self) -> None:
        """Let the one who waits longest write; without any, whoever comes."""
        with self._lock:
            while self._waiting:
                longest = self._waiting.popleft().future
                if longest.set_running_or_notify_cancel():
                    longest.set_result(False)
                    return
            self._is_led = False
