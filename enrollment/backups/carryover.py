"""What outlives a restore: the erasures since the backup, and the backups on record."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext

from enrollment import corrections
from enrollment.backups.archive import ArchiveRefused
from enrollment.backups.contents import Manifest
from enrollment.backups.records import new_record
from enrollment.corrections import Erased, list_beside, read_erased_list, remembered
from enrollment.exceptions import NotInTrash
from enrollment.installation_key import installation_key
from enrollment.models import BackupRecord, ErasedId, FaceImage, Receipt

OUTLIVING: Final = {BackupRecord, ErasedId, Receipt}  # their rows outlive every restore


@dataclass(slots=True)
class Outliving:
    """What was known here, or lay beside the backup, before its rows took the place of all others."""

    erased: list[Erased]
    backups: list[BackupRecord]
    receipts: list[Receipt]
    brought_back: set[str]  # digests of what was erased and is not any more
    notes: list[str] = field(default_factory=list)

    def put_back(self) -> None:
        """Add it to the restored rows, in the transaction of the restore.

        After the commit the lists beside the backups are written anew.
        """

        def write_lists() -> None:  # no partial, as in enrollment.index.removals
            corrections.write_erased_lists(self.brought_back)

        transaction.on_commit(write_lists, robust=True)
        corrections.remember_again(self.erased)
        for receipt in self.receipts:  # their numbers were given out
            Receipt.objects.update_or_create(pk=receipt.pk, defaults=_values(receipt))
        known = set(BackupRecord.objects.values_list("made_at", "file"))
        BackupRecord.objects.bulk_create(
            record for record in self.backups if (record.made_at, record.file) not in known
        )


def outliving(path: Path, manifest: Manifest, *, without_erasures: bool) -> Outliving:
    """Return what must outlive the restore of this backup.

    With `without_erasures`, what was erased since is not in it: where some of it was noted with keys
    that are not here, only that, for the rest can be erased again.

    Raise `ArchiveRefused` when the list beside it is damaged or, without `without_erasures`, when
    what was erased since was noted with a key that is not here.
    """
    made_at = datetime.fromisoformat(manifest.created_at)
    beside = _read_list(path)
    here = remembered()
    # Also of what is known here: the key may have been lost since.
    since = [*remembered(made_at), *(beside or ())]
    own = installation_key().name
    foreign = {each.key for each in since} - {own}
    if foreign and not without_erasures:
        raise ArchiveRefused(
            gettext(
                "Who was erased after this backup cannot be told: it was noted with the key %(key)s, and that "
                "of this installation is another. Put the old file installation_key into %(folder)s, or "
                "say --without-erasures to restore them too."
            )
            % {"key": ", ".join(sorted(foreign)), "folder": settings.DATA_DIR.name}
        )
    notes = []
    if beside is None and not here:
        notes.append(
            gettext(
                "No list of erasures lies beside the backup (%(name)s) and none is known here: whoever "
                "was erased after %(moment)s is enrolled again. Erase them once more, by their receipts."
            )
            % {
                "name": list_beside(path).name,
                "moment": date_format(localtime(made_at), "DATETIME_FORMAT"),
            }
        )
    backups = [_without_number(record) for record in BackupRecord.objects.all()]
    backups.append(new_record(path, path.stat().st_size, made_at, manifest.rows))
    given_up = (foreign or {own}) if without_erasures else set()
    dropped = {each.digest for each in since if each.key in given_up}
    erased = [each for each in [*here, *(beside or ())] if each.digest not in dropped]
    return Outliving(erased, _once(backups), list(Receipt.objects.all()), dropped, notes)


def _read_list(path: Path) -> list[Erased] | None:
    try:
        return read_erased_list(list_beside(path))
    except (ValueError, OSError) as error:
        message = gettext(
            "The list of erasures beside the backup, %(name)s, is damaged. Nothing was changed."
        )
        raise ArchiveRefused(message % {"name": list_beside(path).name}) from error


def _values(receipt: Receipt) -> dict[str, Any]:
    return {name: getattr(receipt, name) for name in ("made_at", "subject", "content")}


def _without_number(record: BackupRecord) -> BackupRecord:
    record.pk = None
    record._state.adding = True
    return record


def _once(records: list[BackupRecord]) -> list[BackupRecord]:
    """Return the records without a second one of the same file and moment; the first is kept."""
    return list({(each.made_at, each.file): each for each in reversed(records)}.values())[::-1]


def erase_again() -> tuple[int, int]:
    """Erase who and what is here though it was erased; return the persons and pictures."""
    persons, pictures, items = corrections.returned()
    for person in persons:
        corrections.erase_person(person)
    for item in items:
        with suppress(NotInTrash):  # erased with the person
            corrections.erase_item(item)
    moved = FaceImage.objects.filter(pk__in=pictures)
    count = moved.count()
    moved.delete()
    return len(persons), count
