"""Back up everything as it is at one moment, while others go on writing.

A backup has the SQL rows as JSON lines, which SQLite and PostgreSQL can exchange, the stored
pictures, and the weights that made the vectors, with their thresholds. Milvus is rebuilt from the
vectors in the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.db import connection, connections, models, transaction
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone
from django.utils.translation import gettext

from enrollment import journal
from enrollment.backups.archive import ArchiveWriter, new_archive
from enrollment.backups.contents import (
    DELETED,
    ERASED,
    FORMAT,
    MANIFEST,
    ROWS_AN_ENTRY,
    Manifest,
    backed_up_models,
)
from enrollment.backups.records import new_record
from enrollment.corrections import write_erased_lists
from enrollment.exceptions import StorageUnavailable
from enrollment.gallery import sync
from enrollment.index import Track, batches, untracked
from enrollment.models import (
    BackupRecord,
    Consent,
    ErasedId,
    FaceEmbedding,
    FaceImage,
    TrashedPart,
    TrashItem,
    as_lines,
)
from recognition.networks import NETWORKS
from recognition.networks.descriptor import descriptor_path
from recognition.networks.weights import int8_file, weights_files
from recognition.private_file import whole_file

SNAPSHOT: Final = "snapshot"  # alias of the database connection that reads the snapshot


@dataclass(slots=True)
class BackupReport:
    rows: dict[str, int]
    pictures: int = 0
    missing: list[int] = field(default_factory=list)  # pictures whose file the storage lacks


def backup(path: Path, track: Track = untracked, *, keep_days: int | None = None) -> BackupReport:
    """Write a consistent backup to `path` and put it on record; others can read and write meanwhile.

    A picture that is deleted during the backup is left out. Raise `StorageUnavailable` when the
    picture storage fails, `OSError` when the file cannot be written or another has got its name meanwhile, and
    `DatabaseError` when it cannot be put on record; then no file of this backup is left.
    """
    with ExitStack() as undo:
        with whole_file(path, may_replace=False) as file:
            with new_archive(file) as archive, _snapshot() as made_at:
                manifest = _manifest(made_at)
                report = _fill(archive, manifest, track)
            file.flush()
            os.fsync(file.fileno())
            # Before it has its name: without a record nobody is told when it is overdue, nor whom it
            # should not hold any more. A kill in between leaves a record without a file.
            record = new_record(path, file.tell(), made_at, manifest.rows, keep_days)
            record.save()
            undo.callback(record.delete)
        undo.callback(path.unlink)
        sync(path.parent)  # so that the new name survives a power loss
        facts = {"rows": sum(report.rows.values()), "pictures": report.pictures}
        journal.record(journal.Action.BACKED_UP, facts=facts)
        # One that cannot be written is logged: the next erasure, or `manage.py backups`, writes it.
        transaction.on_commit(write_erased_lists, robust=True)
        undo.pop_all()
    return report


def _fill(archive: ArchiveWriter, manifest: Manifest, track: Track) -> BackupReport:
    archive.add(MANIFEST, _as_json(asdict(manifest)))
    report = BackupReport(manifest.rows)
    _add_weights(archive, manifest)
    _add_pictures(archive, report, track)
    _add_trash(archive, report)
    _add_documents(archive)
    for model in backed_up_models():
        _add_rows(archive, model)
    return report


@contextmanager
def _snapshot() -> Iterator[datetime]:
    """Open a second connection that goes on seeing the rows as they are now; yield the moment.

    Whoever is erased from that moment on is in the backup, and on the list beside it.
    """
    made_at = timezone.now()
    _await_erasures()
    view = connections["default"].copy(SNAPSHOT)
    if view.vendor == "sqlite":
        # IMMEDIATE, the project's default, would block all other writers.
        view.settings_dict["OPTIONS"] |= {"transaction_mode": "DEFERRED"}
    connections[SNAPSHOT] = view
    try:
        with transaction.atomic(using=SNAPSHOT):
            if view.vendor == "postgresql":
                with view.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            _all(BackupRecord).exists()  # from its first query on the connection sees no change
            yield made_at
    finally:
        view.close()
        del connections[SNAPSHOT]


def _await_erasures() -> None:
    """Wait for erasures that have begun: older than the backup, they are on no list beside it."""
    with transaction.atomic():  # SQLite lets one write at a time
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {ErasedId._meta.db_table} IN SHARE MODE")


def _all(model: type[models.Model]) -> models.QuerySet[Any]:
    return model._base_manager.using(SNAPSHOT).order_by("pk")


def _manifest(made_at: datetime) -> Manifest:
    loader = MigrationLoader(connections[SNAPSHOT])
    labels = {model._meta.app_label for model in backed_up_models()}
    migrations = {
        label: sorted(name for app, name in loader.applied_migrations if app == label)
        for label in sorted(labels)
    }
    computed = _all(FaceEmbedding).filter(vector__isnull=False).order_by()
    groups = computed.values("model", "fingerprint").annotate(count=models.Count("pk"))
    return Manifest(
        format=FORMAT,
        created_at=made_at.isoformat(),
        migrations=migrations,
        rows={model._meta.label_lower: _all(model).count() for model in backed_up_models()},
        vectors=list(groups.order_by("model", "fingerprint")),
    )


def _add_weights(archive: ArchiveWriter, manifest: Manifest) -> None:
    used = {(group["model"], group["fingerprint"]) for group in manifest.vectors}
    for name in NETWORKS:
        files = list(weights_files(name))
        needed = [file for file in files if (name, file.fingerprint) in used]
        int8 = int8_file(name)  # which serves only beside what it was made from
        if int8 and (name, int8.fingerprint) in used:
            needed = [int8, *dict.fromkeys([*files[:1], *needed])]
        for weights in needed:
            archive.add(f"weights/{weights.path.name}", weights.path.read_bytes())
            if (path := descriptor_path(weights.path)).exists():
                archive.add(f"weights/{path.name}", path.read_bytes())


def _add_pictures(archive: ArchiveWriter, report: BackupReport, track: Track) -> None:
    deleted = []
    pictures = _all(FaceImage).values_list("pk", "image").iterator(ROWS_AN_ENTRY)
    total = report.rows["enrollment.faceimage"]
    for pk, name in track(pictures, gettext("Pictures"), total):
        content = _read(pk, name)
        if content is not None:
            archive.add(f"files/{name}", content)
            report.pictures += 1
        elif FaceImage.objects.filter(pk=pk).exists():
            report.missing.append(pk)
        else:
            deleted.append(pk)
    archive.add(DELETED, _as_json(deleted))


def _add_trash(archive: ArchiveWriter, report: BackupReport) -> None:
    """Add the files that the trash holds."""
    erased = set()
    parts = _all(TrashedPart).exclude(file="").values_list("item", "picture_pk", "file")
    for item, pk, name in parts.iterator(ROWS_AN_ENTRY):
        content = _read(pk, name)
        if content is not None:
            archive.add(f"files/{name}", content)
        elif TrashItem.objects.filter(pk=item).exists():
            report.missing.append(pk)
        elif not FaceImage.objects.filter(image=name).exists():
            erased.add(item)
    archive.add(ERASED, _as_json(sorted(erased)))


def _add_documents(archive: ArchiveWriter) -> None:
    """Add the documents of consents."""
    documents = _all(Consent).exclude(document="").values_list("pk", "document")
    for pk, name in documents.iterator(ROWS_AN_ENTRY):
        content = _read(pk, name)
        if content is not None:
            archive.add(f"files/{name}", content)


def _read(pk: int, name: str) -> bytes | None:
    """Return the stored file of a picture, or None when it does not exist.

    Raise `StorageUnavailable`.
    """
    try:
        with FaceImage._meta.get_field("image").storage.open(name) as file:
            return bytes(file.read())
    except FileNotFoundError:
        return None
    except Exception as error:
        raise StorageUnavailable(
            gettext("The storage of the pictures does not give picture %(pk)d: %(error)s")
            % {"pk": pk, "error": error}
        ) from error


def _add_rows(archive: ArchiveWriter, model: type[models.Model]) -> None:
    rows = _all(model).iterator(ROWS_AN_ENTRY)
    for number, batch in enumerate(batches(rows, ROWS_AN_ENTRY)):
        lines = as_lines(batch, use_natural_foreign_keys=True)
        archive.add(f"rows/{model._meta.label_lower}/{number:06}.jsonl", lines.encode())


def _as_json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()
