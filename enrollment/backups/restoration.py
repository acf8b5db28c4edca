"""Restore an installation from a backup, completely or not at all."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.exceptions import FieldDoesNotExist
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.core.management import call_command
from django.core.management.color import no_style
from django.core.serializers.base import DeserializationError
from django.db import DatabaseError, connection, transaction
from django.db.migrations import RunPython, RunSQL
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.models import Max
from django.utils.translation import gettext

from enrollment import index, journal
from enrollment.backups.archive import ArchiveRefused, Entry, read_entries, verify_archive
from enrollment.backups.carryover import OUTLIVING, erase_again, outliving
from enrollment.backups.checks import Malformed, check_entries, manifest_of, older, refused
from enrollment.backups.contents import (
    DELETED,
    ERASED,
    FORMAT,
    MADE_BY_MIGRATE,
    MANIFEST,
    ROWS_AN_ENTRY,
    Manifest,
    backed_up_models,
)
from enrollment.corrections import highest_keys
from enrollment.exceptions import StorageUnavailable
from enrollment.imports import stop_imports_without_files
from enrollment.index import Track, batches, index_batches, untracked
from enrollment.models import (
    Consent,
    FaceEmbedding,
    FaceImage,
    IdempotentRequest,
    JournalChain,
    JournalEntry,
    JournalSubject,
    Removal,
    TrashedPart,
    TrashItem,
    note_removals,
)
from recognition.conf import get_settings
from recognition.networks import usable_names
from recognition.networks.weights import find_weights
from recognition.private_file import AS_USUAL, whole_file
from recognition.vector_store import get_vector_store

DataMigration = Callable[[Any, Any], None]


@dataclass(slots=True)
class RestoreReport:
    rows: dict[str, int]
    pictures: int = 0
    indexed: int = 0
    failed: int = 0
    erased_persons: int = 0  # who were erased after the backup was made
    erased_pictures: int = 0
    notes: list[str] = field(default_factory=list)


def restore(
    path: Path,
    *,
    overwrite: bool = False,
    without_erasures: bool = False,
    track: Track = untracked,
) -> RestoreReport:
    """Restore the installation from a backup; on failure nothing is changed.

    Whom this installation, or the list beside the backup, knows to be erased is erased again, unless
    `without_erasures` says that they are to come back.

    Nothing is written before all checksums are verified. Raise `ArchiveRefused` for a backup that
    is damaged or newer than this program and, without `overwrite`, when the installation is not
    empty. Raise `VectorStoreLocked` while a server runs and `StorageUnavailable` when pictures
    cannot be written.
    """
    total = verify_archive(path)
    manifest = _read_manifest(path)
    repeated = _check_versions(manifest)
    _prepare_tables()
    check_entries(track(read_entries(path), gettext("Checking"), total), manifest)
    if not overwrite:
        _check_empty()
    get_vector_store().ping()
    report = RestoreReport(manifest.rows)
    lasting = outliving(path, manifest, without_erasures=without_erasures)
    report.notes += lasting.notes
    before = _known_files()
    with ExitStack() as undo:
        with transaction.atomic(durable=True):
            _replace_rows(track(read_entries(path), gettext("Restoring"), total), report, undo)
            for migrate_rows in repeated:
                migrate_rows(apps, None)
            lasting.put_back()
            stop_imports_without_files()
            _reset_sequences()  # receipts come back with their numbers
            report.erased_persons, report.erased_pictures = erase_again()
            _record_unused_files(before)
            facts = {"made_at": manifest.created_at, "rows": sum(manifest.rows.values())}
            journal.record(journal.Action.BACKUP_RESTORED, facts=facts)
            # Last: an old vector with the id of a restored row would be taken for that row's face.
            get_vector_store().clear()
        undo.pop_all()
    _index(report, track)
    report.notes += _notes_on_weights(manifest)
    return report


def _read_manifest(path: Path) -> Manifest:
    with closing(read_entries(path)) as entries:
        entry = next(entries, None)
        text = entry.content if entry and entry.name == MANIFEST else None
    if text is None:
        raise ArchiveRefused(
            gettext("%(file)s is no backup of this program.") % {"file": path.name}
        )
    try:
        content = json.loads(text)
        given = content.get("format") if isinstance(content, dict) else None
        if isinstance(given, int) and given > FORMAT:
            raise ArchiveRefused(_newer())
        return manifest_of(content)
    except (Malformed, ValueError, RecursionError) as error:
        raise refused(MANIFEST) from error


def _newer() -> str:
    return gettext(
        "The backup was made by a newer version of this program. Update this installation "
        "('git pull', then 'script/manage upgrade'), then restore it."
    )


def _check_versions(manifest: Manifest) -> list[DataMigration]:
    """Return the data migrations that the rows of the backup have not been through.

    Refuse a backup of a newer version, or one that lacks what other data migrations compute.

    Fields added since get their defaults. Data migrations with the hint `repeated_by_restore` can be
    called with the present models.
    """
    loader = MigrationLoader(connection)
    theirs = {(app, name) for app, names in manifest.migrations.items() for name in names}
    if theirs - set(loader.disk_migrations):
        raise ArchiveRefused(_newer())
    lacking = [
        migration
        for (app, name), migration in sorted(loader.disk_migrations.items())
        if app in manifest.migrations and (app, name) not in theirs
    ]
    computing = [
        operation
        for migration in lacking
        for operation in migration.operations
        if isinstance(operation, RunPython | RunSQL)
    ]
    if not all(operation.hints.get("repeated_by_restore") for operation in computing):
        raise ArchiveRefused(older())
    return [operation.code for operation in computing if isinstance(operation, RunPython)]


def _prepare_tables() -> None:
    """Create the tables of a new installation. Raise `ArchiveRefused` if migrations are pending."""
    if not connection.introspection.table_names():
        call_command("migrate", verbosity=0)
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise ArchiveRefused(
            gettext("The SQL database is not up to date. Run 'script/manage upgrade', then again.")
        )


def _check_empty() -> None:
    # The journal has lines from the first start on.
    journals = (JournalChain, JournalEntry, JournalSubject)
    every = [*apps.get_app_config("enrollment").get_models(), get_user_model()]
    holders = [model for model in every if model not in {*journals, *OUTLIVING}]
    counts = {model._meta.verbose_name_plural: model._base_manager.count() for model in holders}
    if not any(counts.values()):
        # A Milvus server may belong to another installation that is in use.
        counts[gettext("vectors in Milvus")] = get_vector_store().row_count()
    held = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if held:
        raise ArchiveRefused(
            gettext(
                "This installation is not empty: %(held)s. Restore into a new one (set DATA_DIR, and "
                "MILVUS_URI if it names a server), or say --overwrite to delete all of it, accounts too, "
                "and put the backup in its place."
            )
            % {"held": held}
        )


def _replace_rows(entries: Iterable[Entry], report: RestoreReport, undo: ExitStack) -> None:
    _empty_tables()
    deleted: list[int] = []
    erased: list[int] = []
    for entry in entries:
        kind, _slash, name = entry.name.partition("/")
        if kind == "files":
            _restore_file(name, entry.content, undo)
        elif kind == "weights":
            _restore_weights(name, entry.file, report, undo)
        elif kind == "rows":
            _load(entry.content)
        elif kind == DELETED:
            deleted = json.loads(entry.content)
        elif kind == ERASED:
            erased = json.loads(entry.content)
    FaceImage.objects.filter(pk__in=deleted).delete()
    TrashItem.objects.filter(pk__in=erased).delete()
    report.pictures = FaceImage.objects.count()
    Removal.objects.all().delete()
    _release_requests()
    FaceEmbedding.objects.filter(status=FaceEmbedding.Status.INDEXED).update(
        status=FaceEmbedding.Status.PENDING
    )
    _reset_sequences()


def _release_requests() -> None:
    """Delete idempotent requests of deleted accounts and release the unfinished ones.

    New accounts could get the keys of the deleted ones, and nobody here carries out unfinished
    requests.
    """
    accounts = map(str, get_user_model().objects.values_list("pk", flat=True))
    IdempotentRequest.objects.exclude(owner__in=["", *accounts]).delete()
    IdempotentRequest.objects.filter(status=None).update(started_at=None)


def _empty_tables() -> None:
    kept = {apps.get_model(label)._meta.db_table for label in MADE_BY_MIGRATE}
    there = connection.introspection.django_table_names(only_existing=True, include_views=False)
    tables = sorted(set(there) - kept)
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))


def _load(content: bytes) -> None:
    """Save the rows of one entry."""
    try:
        # Split at newlines only: names may contain other characters that `splitlines` splits at.
        for row in serializers.deserialize("jsonl", io.StringIO(content.decode(), newline="\n")):
            with journal.rows_restored():
                row.save(force_insert=True)
    except (DeserializationError, FieldDoesNotExist, DatabaseError, ValueError) as error:
        raise ArchiveRefused(f"{older()} ({type(error).__name__}: {error})") from error


def _reset_sequences() -> None:
    """Set the id sequences after the restored rows, which came with their ids.

    So it is done with the keys of rows in the trash, which may be higher: they come back with them.
    """
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), backed_up_models()):
            cursor.execute(statement)
        for model, key in highest_keys().items():
            if key > (model._base_manager.aggregate(last=Max("pk"))["last"] or 0):
                _set_sequence(cursor, model._meta.db_table, key)


def _set_sequence(cursor: Any, table: str, key: int) -> None:
    """Let the next row of the table get a key above this one."""
    if connection.vendor == "postgresql":
        cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, key])
    else:
        cursor.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = %s", [table])
        key = max(key, cursor.fetchone()[0] or 0)
        cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
        cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, key])


def _storage() -> Storage:
    return FaceImage._meta.get_field("image").storage


def _restore_file(name: str, content: bytes, undo: ExitStack) -> None:
    storage = _storage()
    try:
        if storage.exists(name):
            with storage.open(name) as file:
                if file.read() == content:
                    return
            storage.delete(name)
        saved = storage.save(name, ContentFile(content))
    except Exception as error:
        raise StorageUnavailable(
            gettext(
                "The storage of the pictures does not take them, so nothing was restored: %(error)s"
            )
            % {"error": error}
        ) from error
    undo.callback(storage.delete, saved)
    if saved != name:
        raise StorageUnavailable(
            gettext("The storage of the pictures is in use by others, so nothing was restored.")
        )


def _restore_weights(name: str, content: IO[bytes], report: RestoreReport, undo: ExitStack) -> None:
    """Write a weights file or its descriptor unless one is there; never overwrite."""
    path = get_settings().weights_dir / Path(name).name
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, AS_USUAL) as file:
            shutil.copyfileobj(content, file)
        undo.callback(path.unlink)
    except OSError as error:
        message = gettext("The weights %(file)s could not be written to WEIGHTS_DIR: %(reason)s.")
        report.notes.append(message % {"file": path.name, "reason": error.strerror})


def _known_files() -> set[str]:
    """Return the names of all picture files, including deleted ones in the trash or that still wait
    for removal."""
    waiting = Removal.objects.exclude(file="").values_list("file", flat=True)
    trashed = TrashedPart.objects.exclude(file="").values_list("file", flat=True)
    documents = Consent.objects.exclude(document="").values_list("document", flat=True)
    pictures = FaceImage.objects.values_list("image", flat=True)
    return {*pictures, *documents, *waiting, *trashed}


def _record_unused_files(names: set[str]) -> None:
    """Record files for removal that the restored rows do not use."""
    for batch in batches(sorted(names), ROWS_AN_ENTRY):
        note_removals(files=set(batch) - index.files_in_use(batch))


def _index(report: RestoreReport, track: Track) -> None:
    """Copy every stored vector to Milvus. If interrupted, `reindex` finishes it."""
    ids = list(FaceEmbedding.objects.filter(vector__isnull=False).values_list("pk", flat=True))
    for batch, begun in index_batches(ids, track):
        done = index.index_rows(batch, begun=begun)
        report.indexed += done.indexed
        report.failed += done.failed
    get_vector_store().flush()


def _notes_on_weights(manifest: Manifest) -> Iterator[str]:
    current = {name: find_weights(name).fingerprint for name in usable_names()}
    for group in manifest.vectors:
        if current.get(group["model"]) != group["fingerprint"]:
            yield (
                gettext(
                    "%(count)d vectors of %(model)s were made with weights that are not in use here "
                    "(%(fingerprint)s). Put that file into WEIGHTS_DIR, or embed the pictures again with "
                    "'manage.py reindex'."
                )
                % group
            )
