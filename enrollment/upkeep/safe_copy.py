"""A copy of SQLite and of the embedded vector database, to put everything back as it was.

It lies in `DATA_DIR/upgrade`: `making` is not complete yet, `unfinished` belongs to an upgrade that has
not ended, and `previous` is what the last upgrade began with. Pictures are not copied: an upgrade neither
changes nor deletes their files before it has succeeded.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import connection, connections
from django.utils.translation import gettext

from enrollment.models import ErasedId
from recognition.conf import MIB, get_settings
from recognition.exceptions import RecognitionError
from recognition.vector_store import get_vector_store, reset_vector_store

KEPT_SECONDS: Final = 7 * 24 * 3600  # it holds biometric data
MAKING_TAKES: Final = 24 * 3600  # seconds, at most
_DATABASE: Final = "db.sqlite3"
_VECTORS: Final = "vectors"
_PARTITIONS: Final = "partitions.json"  # those of a Milvus server, which is not copied
_MIGRATED: Final = "migrated"


class NoRoom(RecognitionError):
    """The disk has no room for the copy."""

    code = "no_room"
    status = 507


class NoCopy(RecognitionError):
    """The copy could not be made."""

    code = "no_copy"
    status = 500


def is_unfinished() -> bool:
    """Return whether an upgrade began and did not end."""
    return _place("unfinished").exists()


def is_migrated() -> bool:
    """Return whether the unfinished upgrade has passed its first checks."""
    return (_place("unfinished") / _MIGRATED).exists()


def is_kept() -> bool:
    """Return whether the copy of the last upgrade is there."""
    return _place("previous").exists()


def note_migrated() -> None:
    (_place("unfinished") / _MIGRATED).touch()


def make() -> None:
    """Copy both databases. No other process may write them. Raise `NoRoom` or `NoCopy`."""
    _check_room()
    making = _place("making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        _fill(making)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(making, ignore_errors=True)
        raise NoCopy(
            gettext(
                "The copy to put everything back from cannot be made in DATA_DIR: %(reason)s. Nothing was "
                "changed. Mend that, then run it again."
            )
            % {"reason": getattr(error, "strerror", None) or error}
        ) from error
    making.rename(_place("unfinished"))


def _fill(making: Path) -> None:
    making.mkdir(mode=0o700, parents=True)
    making.parent.chmod(0o700)
    connection.ensure_connection()
    with closing(sqlite3.connect(making / _DATABASE)) as target:
        connection.connection.backup(target)
    shutil.copymode(_database(), making / _DATABASE)
    store = get_vector_store()
    if not store.is_embedded:
        (making / _PARTITIONS).write_text(json.dumps(store.partitions()))
    elif _vectors().exists():
        reset_vector_store()  # closes its files
        shutil.copytree(_vectors(), making / _VECTORS)
    os.sync()


def keep() -> None:
    """Mark the upgrade as done. Its copy replaces that of the one before."""
    shutil.rmtree(_place("previous"), ignore_errors=True)
    _place("unfinished").rename(_place("previous"))


def put_back(name: str = "unfinished") -> None:
    """Replace both databases by the copy `name`, then delete it. May be interrupted and run again."""
    copy = _place(name)
    reset_vector_store()
    connections.close_all()
    for log in ("-wal", "-shm", "-journal"):  # of the database that is replaced
        _database().with_name(_database().name + log).unlink(missing_ok=True)
    fresh = _database().with_name(f"{_database().name}.part")
    shutil.copy2(copy / _DATABASE, fresh)
    fresh.replace(_database())
    if (copy / _PARTITIONS).exists():
        _drop_partitions_except(json.loads((copy / _PARTITIONS).read_text()))
    else:
        shutil.rmtree(_vectors(), ignore_errors=True)
        if (copy / _VECTORS).exists():
            shutil.copytree(copy / _VECTORS, _vectors())
    os.sync()
    shutil.rmtree(copy)


def forget_old_copies() -> None:
    """Delete the copy of the last upgrade when it is a week old, or somebody was erased since.

    Also one that was not completed, a day after that: no upgrade makes it beside a server.
    """
    making = _place("making")
    if making.exists() and making.stat().st_mtime < time.time() - MAKING_TAKES:
        shutil.rmtree(making)
    previous = _place("previous")
    if not previous.exists():
        return
    made = previous.stat().st_mtime
    since = datetime.fromtimestamp(made, UTC)
    if made < time.time() - KEPT_SECONDS or ErasedId.objects.filter(erased_at__gt=since).exists():
        shutil.rmtree(previous)


def _drop_partitions_except(kept: list[str]) -> None:
    store = get_vector_store()
    for name in set(store.partitions()) - set(kept):
        store.drop_partition(name)


def _check_room() -> None:
    database = _size(_database())
    # SQLite writes tables that a migration changes a second time.
    needed = 2 * database + (_size(_vectors()) if get_vector_store().is_embedded else 0)
    free = shutil.disk_usage(settings.DATA_DIR).free
    if free < needed:
        raise NoRoom(
            gettext(
                "The disk of DATA_DIR has %(free)d MB left; the copy to put everything back from needs "
                "%(needed)d MB. Make space there, then run it again."
            )
            % {"free": free // MIB, "needed": needed // MIB + 1}
        )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _place(name: str) -> Path:
    return settings.DATA_DIR / "upgrade" / name


def _database() -> Path:
    return Path(connection.settings_dict["NAME"])


def _vectors() -> Path:
    return Path(get_settings().milvus_uri)
