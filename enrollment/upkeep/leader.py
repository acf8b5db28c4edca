"""What one process of several does: locks of PostgreSQL, each held by a connection of its own.

A lock goes with the connection, so a process that was killed or cut off holds none. SQLite has no such locks:
who uses it for long locks a file of `DATA_DIR`, and commands beside each other lock that folder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.translation import gettext
from prometheus_client import Gauge

from recognition.exceptions import RecognitionError

_OURS: Final = 0x66616365  # the first of the two numbers of our locks
_LEADER: Final = 1
SETTING_UP: Final = 2
_AT_WORK: Final = 3  # shared by all workers
_SERVING: Final = "serving"  # the file that a server and its workers with SQLite share a lock of

# A machine that vanishes, or a network that is cut, ends the connection at PostgreSQL after a minute: by itself it
# would keep for two hours what the machine had locked, such as the journal's end, for which all others wait.
_KEEPALIVE: Final = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 60000"
)

LEADS: Final = Gauge(
    "faces_backlog_leader",
    "1 on the one server that does what is done once for all of them, 0 on the others.",
)


def free_locks_of_vanished() -> None:
    """Have PostgreSQL free what a machine has locked that vanishes, of each connection from now on."""
    connection_created.connect(_keep_alive, dispatch_uid="keepalive")


def _keep_alive(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(_KEEPALIVE)


class ServerRuns(RecognitionError):
    """A server, or a worker, uses what a command is about to replace."""

    code = "server_runs"
    status = 409


def refuse_beside_server() -> None:
    """Raise `ServerRuns` while a server (on PostgreSQL the one that leads) or a worker uses the database."""
    if _is_used():
        raise ServerRuns(
            gettext(
                "A server of this installation is running, or a worker, or the import of a watched folder. "
                "Stop them all, then run this again."
            )
        )


def _is_used() -> bool:
    if connections[DEFAULT_DB_ALIAS].vendor == "postgresql":
        probe = connections[DEFAULT_DB_ALIAS].copy()
        ask = "SELECT pg_try_advisory_lock(%s, %s)"
        try:
            return not all(_ask(probe, ask, _OURS, lock) for lock in (_LEADER, _AT_WORK))
        finally:
            probe.close()
    with suppress(OSError), _serving_file().open("r+b") as file:  # none, or another account's
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _serving_file() -> Path:
    return settings.DATA_DIR / _SERVING


@contextmanager
def at_work() -> Iterator[None]:
    """Have `refuse_beside_server` refuse beside this process."""
    if connections[DEFAULT_DB_ALIAS].vendor == "postgresql":
        connection = connections[DEFAULT_DB_ALIAS].copy()
        with closing(connection):
            _ask(connection, "SELECT pg_advisory_lock_shared(%s, %s)", _OURS, _AT_WORK)
            yield
        return
    with ExitStack() as held:
        with suppress(OSError):  # as in `Leadership.held`
            fcntl.flock(held.enter_context(_serving_file().open("ab")), fcntl.LOCK_SH)
        yield


class Leadership:
    """Whether this process leads those that use the same database.

    The one that leads does so until it ends or loses its connection; then the first that asks leads.
    """

    def __init__(self) -> None:
        self._holder: Any = None  # the connection, or the file, that holds the lock

    def held(self) -> bool:
        """Return whether this process leads; it does from now on if nobody else does.

        Raise `DatabaseError` when PostgreSQL does not answer.
        """
        if connections[DEFAULT_DB_ALIAS].vendor != "postgresql":
            if self._holder is None:
                # None on a full disk, of another account, or on a network: the work is done all the same.
                with suppress(OSError):
                    self._holder = _serving_file().open("ab")
                    fcntl.flock(self._holder, fcntl.LOCK_SH)
            LEADS.set(1)
            return True
        if self._holder is not None:
            with suppress(DatabaseError):
                _ask(self._holder, "SELECT 1")
                return True
            self.give_up()
        connection = connections[DEFAULT_DB_ALIAS].copy()
        leads = False
        try:
            leads = bool(_ask(connection, "SELECT pg_try_advisory_lock(%s, %s)", _OURS, _LEADER))
        finally:
            if leads:
                self._holder = connection
            else:
                connection.close()
            LEADS.set(leads)
        return leads

    def give_up(self) -> None:
        """Let another process lead."""
        held, self._holder = self._holder, None
        LEADS.set(0)
        if held is not None:
            held.close()


@contextmanager
def one_at_a_time(task: int, alias: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Wait until no other process with the same database is inside for this task."""
    if connections[alias].vendor != "postgresql":
        with _folder_locked(settings.DATA_DIR):
            yield
        return
    connection = connections[alias].copy()
    try:
        _ask(connection, "SELECT pg_advisory_lock(%s, %s)", _OURS, task)
        yield
    finally:
        connection.close()


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system may not lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _ask(connection: Any, question: str, *values: int) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        return cursor.fetchone()[0]
