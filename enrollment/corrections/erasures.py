"""Remember what was erased, and erase it again when a restore brings it back.

A person is recognised by row number and the moment of enrolment, a picture by the random name of its
file: both stay the same through renames, merges and moves, and nobody else ever has them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from enrollment.installation_key import installation_key
from enrollment.models import (
    BackupRecord,
    ErasedId,
    FaceImage,
    MergedId,
    Person,
    TrashedPart,
    from_lines,
)
from recognition.private_file import whole_file

logger = logging.getLogger(__name__)

ROWS_AT_A_TIME: Final = 5_000
LIST_SUFFIX: Final = ".erased"
MOST_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Erased:
    """An erased person or picture, as `ErasedId` keeps it."""

    digest: str
    key: str
    erased_at: str  # ISO 8601


def person_mark(pk: int, created_at: datetime) -> str:
    """Return what tells this person from everybody else, in any backup."""
    return f"person {pk} {created_at.astimezone(UTC).isoformat()}"


def picture_mark(file: str) -> str:
    """Return what tells the picture with this stored file from all others, in any backup."""
    return f"picture {file}"


def remember_erased(marks: Iterable[str]) -> None:
    """Remember persons and pictures that are being erased, in the caller's transaction.

    After the commit the lists beside the backups on record are written anew. The log tells once when the
    key is another than before.
    """
    key, now = installation_key(), timezone.now()
    last = ErasedId.objects.order_by("-pk").values_list("key", flat=True).first()
    if last and last != key.name:
        logger.warning(
            "What was erased until now was noted with another installation_key. If that is lost, bring the "
            "old file back: without it backups of before are restored only with --without-erasures."
        )
    ErasedId.objects.bulk_create(
        [
            ErasedId(digest=key.digest_of(mark), key=key.name, erased_at=now)
            for mark in dict.fromkeys(marks)
        ],
        batch_size=ROWS_AT_A_TIME,
        ignore_conflicts=True,
    )
    transaction.on_commit(write_erased_lists, robust=True)


def marks_of(person: Person) -> list[str]:
    """Return the marks of the person, of whom was merged into them, and of all their pictures."""
    files = person.face_images.order_by("pk").values_list("image", flat=True)
    return [*_own_marks([person, *person.merged_ids.all()]), *map(picture_mark, files)]


def trashed_marks(content: str) -> list[str]:
    """Return the marks of the deleted person whose rows the trash holds as this text."""
    return _own_marks(from_lines(content))


def _own_marks(rows: Iterable[Model]) -> list[str]:
    marks = []
    for row in rows:
        if isinstance(row, Person):
            marks.append(person_mark(row.pk, row.created_at))
        elif isinstance(row, MergedId) and row.former_created_at:
            marks.append(person_mark(row.former_pk, row.former_created_at))
    return marks


def remembered(since: datetime | None = None) -> list[Erased]:
    """Return what this installation remembers, of erasures from `since` on."""
    rows = (
        ErasedId.objects.all() if since is None else ErasedId.objects.filter(erased_at__gte=since)
    )
    return [Erased(row.digest, row.key, row.erased_at.isoformat()) for row in rows]


def remember_again(erased: Iterable[Erased]) -> None:
    """Store what was read from another place, without what is there already."""
    rows = [ErasedId(digest=each.digest, key=each.key, erased_at=each.erased_at) for each in erased]
    ErasedId.objects.bulk_create(rows, batch_size=ROWS_AT_A_TIME, ignore_conflicts=True)


def returned() -> tuple[list[Person], list[int], list[int]]:
    """Return the persons, and the keys of pictures and of items of the trash, that are here though
    they were erased."""
    key = installation_key()
    digests = set(ErasedId.objects.filter(key=key.name).values_list("digest", flat=True))
    if not digests:
        return [], [], []
    persons = [
        person
        for person in Person.objects.order_by("pk").iterator(ROWS_AT_A_TIME)
        if key.digest_of(person_mark(person.pk, person.created_at)) in digests
    ]
    files = FaceImage.objects.order_by("pk").values_list("pk", "image")
    pictures = [pk for pk, file in files.iterator() if key.digest_of(picture_mark(file)) in digests]
    parts = TrashedPart.objects.exclude(content="").order_by("pk")
    items = {
        part.item_id
        for part in parts.iterator(ROWS_AT_A_TIME)
        if any(key.digest_of(mark) in digests for mark in _marks_of_part(part))
    }
    return persons, pictures, sorted(items)


def _marks_of_part(part: TrashedPart) -> list[str]:
    return [picture_mark(part.file)] if part.file else trashed_marks(part.content)


# The list beside a backup


def list_beside(backup: Path) -> Path:
    """Return where the list of erasures after this backup lies."""
    return backup.with_name(backup.name + LIST_SUFFIX)


def write_erased_lists(brought_back: Collection[str] = ()) -> None:
    """Write what was erased since, as hashes, beside each backup on record that is at its place.

    A new machine learns from it what its backup should not hold any more. The digests of what a
    restore has `brought_back` are taken off.
    """
    for record in BackupRecord.objects.on_hand():
        path = Path(record.file)
        try:
            if path.is_file():
                _write(list_beside(path), record.made_at, brought_back)
        except OSError as error:
            logger.warning(
                "The list of erasures beside backup %d cannot be written: %s",
                record.pk,
                error.strerror,
            )


def _write(path: Path, since: datetime, brought_back: Collection[str]) -> None:
    """Add to the list what it lacks. Who writes last of several looks after it, so none of them leaves
    an older one. What another installation erased stays, such as the one whose backup was tried out here."""
    erased = None
    with suppress(ValueError):  # damaged
        erased = read_erased_list(path)
    listed = {
        each.digest: each
        for each in erased or ()
        if each.digest not in brought_back
        and datetime.fromisoformat(each.erased_at).astimezone() >= since
    }

    def together() -> list[Erased]:
        known = (each for each in remembered(since) if each.digest not in listed)
        return [*listed.values(), *known]

    while erased != (erased := together()):
        with whole_file(path) as file:
            file.write(json.dumps([asdict(each) for each in erased], indent=0).encode())


def read_erased_list(path: Path) -> list[Erased] | None:
    """Return the list in the file, None without one. Raise `ValueError` for another content."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text())
        found = [Erased(**item) for item in content]
        for each in found:
            if len(each.digest) != 64 or len(each.key) > 16:
                raise ValueError("no digest")
            datetime.fromisoformat(each.erased_at)
    except FileNotFoundError:
        return None
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return found
