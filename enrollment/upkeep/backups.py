"""What a backup holds, how it is taken while others write, how an installation is made from it.

SQL rows as JSON lines (SQLite and PostgreSQL read each other's), the stored pictures, and the weights
that made the vectors, with their thresholds. Milvus is made again from the vectors in the rows.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.exceptions import FieldDoesNotExist
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.core.management import call_command
from django.core.management.color import no_style
from django.core.serializers.base import DeserializationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, connection, connections, models, transaction
from django.db.migrations import RunPython, RunSQL
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone
from django.utils.translation import gettext

from enrollment import index
from enrollment.exceptions import StorageUnavailable
from enrollment.models import FaceEmbedding, FaceImage, VectorDeletion
from enrollment.upkeep.archive import (
    ArchiveRefused,
    ArchiveWriter,
    Entry,
    read_entries,
    verify_archive,
)
from enrollment.upkeep.reconciliation import Track, batches, untracked
from recognition.conf import get_settings
from recognition.networks import usable_names
from recognition.networks.descriptor import descriptor_path
from recognition.networks.loader import find_weights, weights_files
from recognition.vector_store import get_vector_store

FORMAT: Final = 1  # raised when an older program could not read what is written
MANIFEST: Final = "manifest.json"
DELETED: Final = "deleted.json"
SNAPSHOT: Final = "snapshot"  # the alias of the connection that sees one moment
ROWS_AN_ENTRY: Final = 1_000

# Made by `migrate`, never replaced.
MADE_BY_MIGRATE: Final = {"contenttypes.contenttype", "auth.permission"}
# What is of use to this installation only. Milvus is made anew, so there is nothing to forget in it.
LEFT_OUT: Final = MADE_BY_MIGRATE | {
    "sessions.session",
    "enrollment.vectordeletion",
    "django_tasks_database.dbtaskresult",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands first in a backup: enough to say whether it can be read here."""

    format: int
    created_at: str
    migrations: dict[str, list[str]]  # of each application whose rows are in it
    rows: dict[str, int]  # of each model
    vectors: list[dict[str, Any]]  # model, fingerprint of the weights, count


@dataclass(slots=True)
class BackupReport:
    rows: dict[str, int]
    pictures: int = 0
    missing: list[int] = field(default_factory=list)  # pictures whose file the storage lacks


@dataclass(slots=True)
class RestoreReport:
    rows: dict[str, int]
    pictures: int = 0
    indexed: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


# Taking one


def backup(path: Path, track: Track = untracked) -> BackupReport:
    """Writes everything as it is at one moment to `path`; others go on reading and writing.

    A picture that is deleted while this runs is left out. Raises `StorageUnavailable` when the storage
    fails, `OSError` when the file cannot be written; then there is no file.
    """
    with ArchiveWriter(path) as archive, _snapshot():
        manifest = _manifest()
        archive.add(MANIFEST, _as_json(asdict(manifest)))
        report = BackupReport(manifest.rows)
        _add_weights(archive, manifest)
        _add_pictures(archive, report, track)
        for model in _models():
            _add_rows(archive, model)
    return report


@contextmanager
def _snapshot() -> Iterator[None]:
    """A second connection that goes on seeing the rows as they are at its first query."""
    view = connections["default"].copy(SNAPSHOT)
    if view.vendor == "sqlite":
        # IMMEDIATE, as everywhere else, would keep all others from writing.
        view.settings_dict["OPTIONS"] |= {"transaction_mode": "DEFERRED"}
    connections[SNAPSHOT] = view
    try:
        with transaction.atomic(using=SNAPSHOT):
            if view.vendor == "postgresql":
                with view.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
    finally:
        view.close()
        del connections[SNAPSHOT]


def _models() -> list[type[models.Model]]:
    """The models whose rows are backed up; those that others name by natural keys come first."""
    every = serializers.sort_dependencies(
        [(config, None) for config in apps.get_app_configs()], allow_cycles=True
    )
    return [
        model
        for model in every
        if model._meta.label_lower not in LEFT_OUT and model._meta.managed and not model._meta.proxy
    ]


def _all(model: type[models.Model]) -> models.QuerySet[Any]:
    return model._base_manager.using(SNAPSHOT).order_by("pk")


def _manifest() -> Manifest:
    loader = MigrationLoader(connections[SNAPSHOT])
    labels = {model._meta.app_label for model in _models()}
    migrations = {
        label: sorted(name for app, name in loader.applied_migrations if app == label)
        for label in sorted(labels)
    }
    computed = _all(FaceEmbedding).filter(vector__isnull=False).order_by()
    groups = computed.values("model", "fingerprint").annotate(count=models.Count("pk"))
    return Manifest(
        format=FORMAT,
        created_at=timezone.now().isoformat(),
        migrations=migrations,
        rows={model._meta.label_lower: _all(model).count() for model in _models()},
        vectors=list(groups.order_by("model", "fingerprint")),
    )


def _add_weights(archive: ArchiveWriter, manifest: Manifest) -> None:
    used = {(group["model"], group["fingerprint"]) for group in manifest.vectors}
    for name in usable_names():
        for weights in weights_files(name):
            if (name, weights.fingerprint) in used:
                archive.add(f"weights/{weights.path.name}", weights.path.read_bytes())
                if (path := descriptor_path(weights.path)).exists():
                    archive.add(f"weights/{path.name}", path.read_bytes())


def _add_pictures(archive: ArchiveWriter, report: BackupReport, track: Track) -> None:
    deleted = []
    pictures = _all(FaceImage).iterator(ROWS_AN_ENTRY)
    total = report.rows["enrollment.faceimage"]
    for picture in track(pictures, gettext("Pictures"), total):
        content = _read(picture)
        if content is not None:
            archive.add(f"files/{picture.image.name}", content)
            report.pictures += 1
        elif FaceImage.objects.filter(pk=picture.pk).exists():
            report.missing.append(picture.pk)
        else:
            deleted.append(picture.pk)
    archive.add(DELETED, _as_json(deleted))


def _read(picture: FaceImage) -> bytes | None:
    """The stored file; None when the storage says that there is none."""
    try:
        with picture.image.storage.open(picture.image.name) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except Exception as error:
        raise StorageUnavailable(
            gettext("The storage of the pictures does not give picture %(pk)d: %(error)s")
            % {"pk": picture.pk, "error": error}
        ) from error


def _add_rows(archive: ArchiveWriter, model: type[models.Model]) -> None:
    rows = _all(model).iterator(ROWS_AN_ENTRY)
    for number, batch in enumerate(batches(rows, ROWS_AN_ENTRY)):
        lines = serializers.serialize("jsonl", batch, use_natural_foreign_keys=True, cls=_Exact)
        archive.add(f"rows/{model._meta.label_lower}/{number:06}.jsonl", lines.encode())


class _Exact(DjangoJSONEncoder):
    """Django's own cuts times to milliseconds."""

    def default(self, value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else super().default(value)


def _as_json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()


# Making an installation from one


def restore(path: Path, *, overwrite: bool = False, track: Track = untracked) -> RestoreReport:
    """Makes this installation what it was when the backup was taken: all of it or, on failure, none.

    Nothing is written before every hash was verified. Raises `ArchiveRefused` for a backup that is
    damaged or newer than this program and, unless `overwrite`, when this installation holds anything;
    `VectorStoreLocked` beside a running server; `StorageUnavailable` when pictures cannot be written.
    """
    total = verify_archive(path)
    manifest = _read_manifest(path)
    _check_versions(manifest)
    _prepare_tables()
    if not overwrite:
        _check_empty()
    get_vector_store().ping()
    report = RestoreReport(manifest.rows)
    before = set(FaceImage.objects.values_list("image", flat=True))
    with ExitStack() as undo:
        with transaction.atomic(durable=True):
            _replace_rows(track(read_entries(path), gettext("Restoring"), total), report, undo)
            # Last: an old vector under a restored id would be taken for somebody else's face.
            get_vector_store().clear()
        undo.pop_all()
    _delete_files(before)
    _index(report, track)
    report.notes += _notes_on_weights(manifest)
    return report


def _read_manifest(path: Path) -> Manifest:
    entry = next(read_entries(path), None)
    content = json.loads(entry.content) if entry and entry.name == MANIFEST else {}
    written_by_newer = content.get("format", 0) > FORMAT
    if content and not written_by_newer:
        return Manifest(**content)
    raise ArchiveRefused(
        _newer()
        if written_by_newer
        else gettext("%(file)s is no backup of this program.") % {"file": path.name}
    )


def _newer() -> str:
    return gettext(
        "The backup was made by a newer version of this program. Update this installation "
        "('git pull', then 'script/manage migrate'), then restore it."
    )


def _check_versions(manifest: Manifest) -> None:
    """Rows of an older version take defaults for new fields; what a migration computes they lack."""
    loader = MigrationLoader(connection)
    theirs = {(app, name) for app, names in manifest.migrations.items() for name in names}
    if theirs - set(loader.disk_migrations):
        raise ArchiveRefused(_newer())
    for key, migration in loader.disk_migrations.items():
        computes = any(isinstance(item, RunPython | RunSQL) for item in migration.operations)
        if key[0] in manifest.migrations and key not in theirs and computes:
            raise ArchiveRefused(_older())


def _older() -> str:
    return gettext(
        "The backup was made by a version too old for this one to read. Restore it with the version "
        "that made it, then update that installation."
    )


def _prepare_tables() -> None:
    """A new installation gets its tables; one that holds something is not changed unasked."""
    if not connection.introspection.table_names():
        call_command("migrate", verbosity=0)
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise ArchiveRefused(
            gettext("The SQL database is not up to date. Run 'script/manage migrate', then again.")
        )


def _check_empty() -> None:
    holders = [*apps.get_app_config("enrollment").get_models(), get_user_model()]
    counts = {model._meta.verbose_name_plural: model._base_manager.count() for model in holders}
    if not any(counts.values()):
        # A Milvus server may be another installation's that is in use.
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
    loaded: Counter[str] = Counter()
    deleted: list[int] = []
    for entry in entries:
        kind, _slash, name = entry.name.partition("/")
        if kind == "files":
            _restore_file(name, entry.content, undo)
            report.pictures += 1
        elif kind == "weights":
            _restore_weights(name, entry.content, report, undo)
        elif kind == "rows":
            loaded[name.partition("/")[0]] += _load(entry.content)
        elif kind == DELETED:
            deleted = json.loads(entry.content)
    if loaded != Counter(report.rows):
        raise ArchiveRefused(gettext("Rows of the backup are missing. Use another backup."))
    FaceImage.objects.filter(pk__in=deleted).delete()
    VectorDeletion.objects.all().delete()
    FaceEmbedding.objects.filter(status=FaceEmbedding.Status.INDEXED).update(
        status=FaceEmbedding.Status.PENDING
    )
    _reset_sequences()


def _empty_tables() -> None:
    kept = {apps.get_model(label)._meta.db_table for label in MADE_BY_MIGRATE}
    there = connection.introspection.django_table_names(only_existing=True, include_views=False)
    tables = sorted(set(there) - kept)
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))


def _load(content: bytes) -> int:
    """Writes the rows of one entry; returns how many."""
    count = 0
    try:
        # By lines of the file: a name may hold what Python, too, takes for the end of a line.
        for row in serializers.deserialize("jsonl", io.StringIO(content.decode(), newline="\n")):
            row.save(force_insert=True)
            count += 1
    except (DeserializationError, FieldDoesNotExist, DatabaseError, ValueError) as error:
        raise ArchiveRefused(f"{_older()} ({type(error).__name__}: {error})") from error
    return count


def _reset_sequences() -> None:
    """Rows were written with their ids, of which PostgreSQL's counters know nothing."""
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), _models()):
            cursor.execute(statement)


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


def _restore_weights(name: str, content: bytes, report: RestoreReport, undo: ExitStack) -> None:
    """Puts a weights file or its descriptor where there is none; never in the place of another."""
    path = get_settings().weights_dir / Path(name).name
    if path.exists():
        return
    try:
        fresh = path.with_name(f"{path.name}.part")
        fresh.write_bytes(content)
        fresh.replace(path)
        undo.callback(path.unlink)
    except OSError as error:
        message = gettext("The weights %(file)s could not be written to WEIGHTS_DIR: %(reason)s.")
        report.notes.append(message % {"file": path.name, "reason": error.strerror})


def _delete_files(names: set[str]) -> None:
    """Of the pictures that were here before, those that the backup does not have."""
    for batch in batches(sorted(names), ROWS_AN_ENTRY):
        kept = FaceImage.objects.filter(image__in=batch).values_list("image", flat=True)
        for name in set(batch).difference(kept):
            _storage().delete(name)


def _index(report: RestoreReport, track: Track) -> None:
    """Copies every stored vector to Milvus; what is cut off here `reindex` finishes."""
    ids = list(FaceEmbedding.objects.filter(vector__isnull=False).values_list("pk", flat=True))
    for batch in batches(track(ids, gettext("Indexing"), len(ids)), index.BATCH_SIZE):
        done = index.index_rows(batch)
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
