"""Compare the picture storage with SQL: files without a row, and rows without a file, of pictures and of
the documents of consents.

Files of deleted pictures that the trash holds are accounted for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

from django.core.files.storage import Storage
from django.db import DatabaseError
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from enrollment import index
from enrollment.exceptions import StorageUnavailable
from enrollment.index import Track, batches, untracked
from enrollment.models import DOCUMENTS_FOLDER, Consent, FaceImage, TrashedPart
from enrollment.upkeep.drift import Kind, Reconciliation
from recognition.log_text import first_line

logger = logging.getLogger(__name__)

FOLDERS: Final = ("pictures", DOCUMENTS_FOLDER)  # see enrollment.models.picture_path
KEPT_BY_SERVER: Final = timedelta(days=7)  # files without a row, in case SQL is an older copy
# More files without a row than a crash leaves; DATABASE_URL may name the wrong database.
LEFTOVER_FILES: Final = 100
LEFTOVER_SHARE: Final = 0.1
NAMES_A_QUERY: Final = 1_000


def delete_leftover_files() -> None:
    """Delete the files that no row has named for a week, such as those of uploads that were cut off; log
    how many, and what is wrong with others."""
    result = Reconciliation()
    try:
        compare_files(result, mend=True, before=timezone.now() - KEPT_BY_SERVER)
    except StorageUnavailable as error:
        logger.warning("%s", error)
    if result.deleted_files:
        logger.warning("Deleted %d stored files that no row named", result.deleted_files)
    for reason, count in result.unmended.items():
        logger.warning("The stored files differ from SQL: %d × %s", count, reason)


def compare_files(
    result: Reconciliation, *, mend: bool, before: datetime, track: Track = untracked
) -> None:
    """Record the differences in `result` and, with `mend`, delete files without a row that were stored
    before `before`. Younger ones are kept, as their rows may follow. Raise `StorageUnavailable`."""
    try:
        _compare_files(result, mend=mend, before=before, track=track)
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001 (each storage fails with classes of its own)
        message = _(
            "The stored files cannot be compared with SQL: %(error)s. Check that the disk or the bucket is "
            "there and may be listed; then run 'manage.py reindex'."
        )
        raise StorageUnavailable(message % {"error": first_line(error).rstrip(".")}) from error


def _compare_files(result: Reconciliation, *, mend: bool, before: datetime, track: Track) -> None:
    storage = FaceImage._meta.get_field("image").storage
    files = chain.from_iterable(_stored_files(storage, folder) for folder in FOLDERS)
    unnamed = set(track(files, _("Listing files"), None))
    stored = len(unnamed)
    pictures = FaceImage.objects.order_by("pk").values_list("pk", "image")
    documents = Consent.objects.exclude(document="").order_by("pk").values_list("pk", "document")
    missing = _take_named(storage, unnamed, pictures)
    without_document = _take_named(storage, unnamed, documents)
    unnamed.difference_update(
        TrashedPart.objects.exclude(file="").values_list("file", flat=True).iterator()
    )
    result.note(Kind.MISSING_FILE, missing)
    result.note(Kind.MISSING_DOCUMENT, without_document)
    result.note(Kind.ORPHAN_FILE, sorted(unnamed))
    if mend:
        belong_together = len(unnamed) < stored
        _note_missing(result, missing, without_document)
        for names in batches(sorted(unnamed), NAMES_A_QUERY):  # deleted or restored meanwhile
            unnamed -= index.files_in_use(names)
        _delete_leftovers(result, storage, unnamed, before, belong_together=belong_together)


def _take_named(storage: Storage, unnamed: set[str], rows: QuerySet[Any]) -> list[int]:
    """Take out of `unnamed` the files that these rows (key, file) name; return the keys whose file is
    missing."""
    missing = []
    for pk, name in rows.iterator():
        if name in unnamed:
            unnamed.discard(name)
        elif not storage.exists(name):
            missing.append(pk)
    return missing


def _note_missing(result: Reconciliation, pictures: list[int], consents: list[int]) -> None:
    if pictures:
        reason = _(
            "The picture's stored file is missing. Bring it back from a backup or delete the picture."
        )
        result.unmended[reason] += len(pictures)
    if consents:
        reason = _(
            "The document of a consent is missing. Bring it back from a backup or remove the consent."
        )
        result.unmended[reason] += len(consents)


def _delete_leftovers(
    result: Reconciliation,
    storage: Storage,
    unnamed: set[str],
    before: datetime,
    *,
    belong_together: bool,
) -> None:
    if len(unnamed) > max(LEFTOVER_FILES, LEFTOVER_SHARE * FaceImage.objects.count()):
        reason = _(
            "The picture file is named by no row, as are too many others to be left over from a "
            "crash. Check that DATABASE_URL names the right database; then delete them by hand."
        )
        result.unmended[reason] += len(unnamed)
        return
    old = [name for name in unnamed if _modified_at(storage, name) < before]
    if old and not belong_together:
        reason = _(
            "The picture file is named by no row, and so are all others: SQL and the pictures are of "
            "two installations. Check DATABASE_URL, DATA_DIR and S3_BUCKET; if they are right, delete "
            "the files by hand."
        )
        result.unmended[reason] += len(old)
        return
    for name in old:
        storage.delete(name)
    result.deleted_files += len(old)
    if young := len(unnamed) - len(old):
        result.notes.append(
            ngettext(
                "%(count)d new picture file without a row is left: it may belong to an upload.",
                "%(count)d new picture files without a row are left: they may belong to uploads.",
                young,
            )
            % {"count": young}
        )


def _stored_files(storage: Storage, folder: str) -> Iterator[str]:
    try:
        folders, files = storage.listdir(folder)
    except FileNotFoundError:
        return
    yield from (f"{folder}/{name}" for name in files if name)
    for name in folders:
        yield from _stored_files(storage, f"{folder}/{name}")


def _modified_at(storage: Storage, name: str) -> datetime:
    try:
        return storage.get_modified_time(name)
    except FileNotFoundError:
        return timezone.now()
