"""The picture storage. Files on the local disk survive a power loss, as the rows in SQL do."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from django.core.files.storage import FileSystemStorage
from django.db.models.fields.files import FieldFile
from django.utils.functional import Promise

from enrollment.exceptions import ConsentNotFound, PictureMissing, StorageUnavailable
from enrollment.models import Consent, FaceEmbedding, FaceImage
from recognition.sentences import gettext

logger = logging.getLogger(__name__)

Failure = FaceEmbedding.Failure


class DurableStorage(FileSystemStorage):
    """A file storage that flushes each saved file and its folder entries to the disk, and leaves
    nothing of one that a full disk did not take whole."""

    def _save(self, name: str, content: IO[bytes]) -> str:
        try:
            saved: str = super()._save(name, content)  # type: ignore[misc]  # missing in the stubs
            path, root = Path(self.path(saved)), Path(self.location)
            sync(path)
            for folder in path.parents:
                sync(folder)
                if folder == root:
                    break
        except OSError:
            with suppress(OSError):
                self.delete(name)
            raise
        return saved


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_document(consent: Consent) -> bytes:
    """Return the bytes of the document. Raise what `read_picture` raises, and `ConsentNotFound` for a
    consent without one."""
    if not consent.document:
        raise ConsentNotFound(
            gettext("This consent was recorded without a document, so there is none to read.")
        )
    return _read(consent.document, gettext("The file of this document is missing."))


def read_picture(picture: FaceImage) -> bytes:
    """Return the bytes of the stored file.

    Raise `PictureMissing` when it does not exist and `StorageUnavailable` when it cannot be read.
    """
    return _read(picture.image, Failure.PICTURE_MISSING.label)


def _read(stored: FieldFile, missing: str | Promise) -> bytes:
    whose = f"{stored.instance._meta.model_name} {stored.instance.pk}"
    try:
        with stored.open("rb") as file:
            return bytes(file.read())
    except FileNotFoundError as error:
        logger.exception("The file of %s is missing", whose)
        raise PictureMissing(missing) from error
    except Exception as error:  # noqa: BLE001 (each storage fails with classes of its own)
        logger.exception("The file of %s cannot be read from its storage", whose)
        raise StorageUnavailable(Failure.STORAGE_UNAVAILABLE.label) from error
