"""Take an erased person out of imports and their reports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from django.db import transaction
from django.db.models import Q

from enrollment import journal
from enrollment.enrolling import mentions
from enrollment.imports.found_files import FileStatus
from enrollment.imports.staging import face_of, file_of, found_in
from enrollment.models import ImportFile, ImportJob
from recognition.sentences import gettext

_FIELDS: Final = (
    *(
        "path",
        "person_id",
        "person_pk",
        "picture_pk",
        "details",
        "reason",
        "warnings",
        "candidates",
    ),
    *("step", "status", "rank", "is_kept", "has_face", "address"),
)


def forget_in_imports(pk: int, person_id: str) -> None:
    """Blank what names the person, in the caller's transaction; their files go after the commit.

    A file of theirs that is still to be enrolled is refused.
    """
    if not ImportJob.objects.exists():
        return
    keys = journal.with_merged({pk})
    theirs = Q(person_pk__in=keys) | Q(person_id=person_id)
    theirs |= Q(path__contains=person_id) | Q(reason__contains=person_id)
    theirs |= Q(reason__contains=json.dumps(person_id, ensure_ascii=False)[1:-1])  # in a sentence
    rows = ImportFile.objects.filter(theirs | ~Q(warnings=[])).select_related("job")
    changed = [row for row in rows.iterator(500) if _forget(row, keys, person_id)]
    ImportFile.objects.bulk_update(changed, _FIELDS, batch_size=100)
    labels = ImportJob.objects.filter(label__contains=person_id).values_list("pk", "label")
    named = [pk for pk, label in labels if mentions(label, person_id)]
    ImportJob.objects.filter(pk__in=named).update(label="")
    gone = [row for row in changed if not row.is_kept]

    def delete_files() -> None:
        _delete_files(gone)

    transaction.on_commit(delete_files, robust=True)


def _forget(row: ImportFile, keys: set[int], person_id: str) -> bool:
    """Take the person out of the row; return whether they were in it."""
    is_theirs = row.person_pk in keys or row.person_id == person_id
    is_theirs = is_theirs or mentions(row.path, person_id)
    if not is_theirs and not mentions(" ".join([row.reason, *row.warnings]), person_id):
        return False
    row.reason = "" if mentions(row.reason, person_id) else row.reason
    row.warnings = [text for text in row.warnings if not mentions(text, person_id)]
    if is_theirs:
        row.path, row.person_id, row.details, row.candidates = "", "", {}, []
        row.address = ""
        row.person_pk = row.picture_pk = None
        row.is_kept = row.has_face = False
        if row.step != ImportFile.Step.DONE:
            row.step, row.status = ImportFile.Step.DONE, FileStatus.REFUSED
            row.rank = ImportFile.Rank.REFUSED
            row.reason = gettext("The person was erased.")
    return True


def _delete_files(rows: Iterable[ImportFile]) -> None:
    for row in rows:
        file_of(row).unlink(missing_ok=True)
        face_of(row).unlink(missing_ok=True)
        found_in(row).unlink(missing_ok=True)
