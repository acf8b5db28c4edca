"""Bring the data of an earlier version up to this one, or leave it as it was.

With SQLite both databases are copied first and put back when anything fails. PostgreSQL migrates within
one transaction, which is rolled back. Re-embedding comes after, and only adds until it was checked.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

from django.contrib.auth import get_user_model
from django.core import checks
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment.index import Track, untracked
from enrollment.models import FaceEmbedding, FaceImage, Person
from enrollment.upkeep import safe_copy
from enrollment.upkeep.leader import SETTING_UP, one_at_a_time, refuse_beside_server
from enrollment.upkeep.reconciliation import pictures_to_embed, reconcile
from enrollment.upkeep.trial import Trial
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError
from recognition.networks import find_weights
from recognition.vector_store import get_vector_store

logger = logging.getLogger(__name__)

FEWEST_FOUND: Final = 0.5  # of the pictures that searches found before
LOCK_SECONDS: Final = 30  # that a migration waits for a table which a server uses

Say = Callable[[str], object]


class UpgradeFailed(RecognitionError):
    """The upgrade did not succeed; the message says what of it is left."""

    code = "upgrade_failed"
    status = 500


class _CheckFailed(RecognitionError):
    """The migrated data does not pass a check."""

    code = "check_failed"
    status = 500


def upgrade(say: Say, *, reindex: bool = True, track: Track = untracked) -> None:
    """Migrate SQL, embed what other weights embedded, and check both.

    Without `reindex` the embedding is left to `reconcile`. `say` gets a sentence for each step. Raise
    `UpgradeFailed` with everything put back, and any `RecognitionError` before anything was changed.
    Processes that do so at the same time wait for each other.
    """
    with one_at_a_time(SETTING_UP):
        _upgrade(say, reindex=reindex, track=track)


def _upgrade(say: Say, *, reindex: bool, track: Track) -> None:
    if not connection.introspection.table_names():
        _run_migrations()
        return
    resumed = _finish_unfinished(say, reindex)
    pending = _pending()
    to_embed = 0 if pending or not reindex else pictures_to_embed()
    if not pending and not to_embed and not resumed:
        return
    _check_alone()
    trial = Trial()
    trial.load_model()
    if connection.vendor == "sqlite":
        _with_copy(say, resumed=resumed, reindex=reindex, track=track)
    else:
        _in_transaction(say, reindex=reindex, track=track)
    if reindex:
        reconcile(mend=True, track=track)  # now what was replaced may go


def _check_alone() -> None:
    """Raise any `RecognitionError` while a server uses what is copied and may be put back."""
    if connection.vendor == "sqlite":
        refuse_beside_server()
    get_vector_store().ping()


def undo(say: Say) -> None:
    """Put back what the last upgrade began with. Raise `UpgradeFailed` when there is no copy of it."""
    with one_at_a_time(SETTING_UP):
        _check_alone()
        safe_copy.forget_old_copies()  # no server may have run since somebody was erased
        if not safe_copy.is_kept():
            raise UpgradeFailed(
                _(
                    "There is no copy to put back: they are made with SQLite only, and kept for a week, or until "
                    "somebody is erased."
                )
            )
        safe_copy.put_back("previous")
    say(_("The databases are as they were before the upgrade. Now go back to the earlier version."))


def _finish_unfinished(say: Say, reindex: bool) -> bool:
    """Settle an upgrade that was cut off. Return whether it is to be gone on with."""
    if not safe_copy.is_unfinished():
        return False
    _check_alone()
    if not safe_copy.is_migrated() or _pending():
        say(_("An upgrade was cut off. Everything is put back first."))
        try:
            safe_copy.put_back()
        except OSError as error:
            raise UpgradeFailed(
                _(
                    "Not everything could be put back yet: %(failure)s The copy is whole, in "
                    "DATA_DIR/upgrade. Mend that and run it again."
                )
                % {"failure": _reason(error)}
            ) from error
        return False
    if not reindex:
        safe_copy.keep()  # from here on new data may come
    return reindex


def _pending() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _with_copy(say: Say, *, resumed: bool, reindex: bool, track: Track) -> None:
    if not resumed:
        safe_copy.make()
        say(_("Copied: the SQL database and the embedded vector database."))
    try:
        if not resumed:
            _migrate(say)
            safe_copy.note_migrated()
        if reindex:
            _reindex(say, track)
    except KeyboardInterrupt:
        if not safe_copy.is_migrated():
            safe_copy.put_back()
        raise
    except Exception as error:
        reason = _reason(error)
        try:
            safe_copy.put_back()
        except Exception as failure:
            raise UpgradeFailed(
                _(
                    "The upgrade failed: %(reason)s Nor could everything be put back yet: %(failure)s The copy is "
                    "whole, in DATA_DIR/upgrade. Mend that and run it again: it puts everything back first."
                )
                % {"reason": reason, "failure": _reason(failure)}
            ) from failure
        raise UpgradeFailed(
            _(
                "The upgrade failed, and everything was put back as it was before: %(reason)s Mend that and "
                "run it again, or go on with the earlier version."
            )
            % {"reason": reason}
        ) from error
    safe_copy.keep()
    say(
        _(
            "The copy is kept for a week, in DATA_DIR/upgrade; 'script/manage upgrade --undo' puts it back. "
            "It holds biometric data: delete it when you are content."
        )
    )


def _in_transaction(say: Say, *, reindex: bool, track: Track) -> None:
    try:
        with transaction.atomic(durable=True):
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                # Otherwise a table with rows to be checked at the end cannot be altered.
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            _migrate(say)
    except Exception as error:
        raise UpgradeFailed(
            _(
                "The upgrade failed, and the SQL database is as it was before: %(reason)s Mend that and run "
                "it again, or go on with the earlier version."
            )
            % {"reason": _reason(error)}
        ) from error
    if not reindex:
        return
    try:
        _reindex(say, track)
    except Exception as error:
        raise UpgradeFailed(
            _(
                "The SQL database was migrated and checked, but the pictures could not all be embedded: "
                "%(reason)s Nothing was deleted. Mend that and run it again."
            )
            % {"reason": _reason(error)}
        ) from error


def _migrate(say: Say) -> None:
    """Migrate SQL, then check it. Raise for whatever is wrong."""
    before = _row_counts()
    pending = _pending()
    _run_migrations()
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            (found,) = cursor.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise _CheckFailed(_("The SQL database is damaged (%(found)s).") % {"found": found})
    connection.check_constraints()
    errors = [
        message
        for message in checks.run_checks(databases=["default"])
        if message.level >= checks.ERROR and not message.is_silenced()
    ]
    if errors:
        raise _CheckFailed(f"{errors[0].msg} {errors[0].hint or ''}")
    after = {table: count for table, count in _row_counts().items() if table in before}
    if after != before:
        raise _CheckFailed(
            _("There were %(before)s rows, and now there are %(after)s.")
            % {"before": before, "after": after}
        )
    trial = Trial()
    trial.read_picture()
    trial.embed()
    say(
        ngettext(
            "Migrated and checked: %(count)d migration.",
            "Migrated and checked: %(count)d migrations.",
            pending,
        )
        % {"count": pending}
    )


def _run_migrations() -> None:
    """Do what `manage.py migrate` does, which would wait for the lock that this process holds."""
    call_command(migrate.Command(), verbosity=0)
    call_command("createcachetable", verbosity=0)


def _row_counts() -> dict[str, int]:
    """Count what no migration may lose. By SQL, since the models may be newer than the tables.

    A new database whose first migrations were cut off lacks some of the tables.
    """
    counts = {}
    models = (Person, FaceImage, FaceEmbedding, get_user_model())
    tables = {model._meta.db_table for model in models} & {*connection.introspection.table_names()}
    with connection.cursor() as cursor:
        for table in sorted(tables):
            cursor.execute(f"SELECT count(*) FROM {connection.ops.quote_name(table)}")  # noqa: S608
            counts[table] = cursor.fetchone()[0]
    return counts


def _reindex(say: Say, track: Track) -> None:
    """Embed what other weights embedded, and check that it is found. Deletes nothing."""
    before = _found_pictures()
    result = reconcile(mend=True, keep=True, files=False, track=track)
    for reason, count in result.unmended.most_common():
        say(f"{count} × {reason}")
    now = _found_pictures(fingerprint=find_weights(get_settings().default_model).fingerprint)
    if now < FEWEST_FOUND * before:
        raise _CheckFailed(
            _("Of %(before)d pictures that were found before, only %(now)d would be.")
            % {"before": before, "now": now}
        )
    trial = Trial()
    for step in (trial.read_picture, trial.embed, trial.search):
        step()
    say(
        ngettext(
            "Embedded, and found by searches: %(count)d picture.",
            "Embedded, and found by searches: %(count)d pictures.",
            now,
        )
        % {"count": now}
    )


def _found_pictures(**weights: str) -> int:
    rows = FaceEmbedding.objects.filter(
        model=get_settings().default_model, status=FaceEmbedding.Status.INDEXED, **weights
    )
    return rows.order_by().values("face_image").distinct().count()


def _reason(error: Exception) -> str:
    if isinstance(error, RecognitionError):
        return error.message
    logger.error("The upgrade failed", exc_info=error)
    reason = f"{type(error).__name__}: {error}."
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or "disk is full" in str(error):  # as SQLite says it
        # What was put back, or fell short of it, left room again: it looks as if there were enough.
        reason += " " + _("It takes more room on the disk of DATA_DIR than is free now: make some.")
    return reason
