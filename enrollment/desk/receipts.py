"""Erase a person and certify it: a receipt, signed with the installation's key.

A receipt holds no face and no name beyond the id that was asked for. It is given out once and not
kept: what is kept of it lacks that id, and with the id the same receipt can be made again.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db.models import Model, Q, QuerySet
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from enrollment import corrections, index, journal
from enrollment.backups import backups_holding
from enrollment.exceptions import NotInTrash, PersonMerged, PersonNotFound, ReceiptRefused
from enrollment.gallery import get_person
from enrollment.installation_key import installation_key, is_signed
from enrollment.models import (
    BackupRecord,
    Consent,
    Doubt,
    FaceEmbedding,
    FaceImage,
    Feedback,
    MergedId,
    Person,
    Probe,
    Receipt,
    Removal,
    SearchEntry,
    from_lines,
    normalised,
)
from recognition.private_file import whole_file

FORMAT: Final = 1
LANGUAGES: Final = ("pt-br", "en")
_DATA: Final = re.compile(r'<pre id="receipt" hidden>(.*?)</pre>', re.DOTALL)

Signed = dict[str, Any]  # `receipt`, `public_key`, `signature`


class Ground(Enum):
    """Why somebody is erased."""

    REQUEST = "request"
    WITHDRAWAL = "withdrawal"  # of their consent

    @property
    def label(self) -> str:
        return str(_GROUNDS[self])


_GROUNDS: Final = {
    Ground.REQUEST: _("asked to be erased"),
    Ground.WITHDRAWAL: _("withdrew their consent"),
}


@dataclass(frozen=True, slots=True)
class _Case:
    """A person who is about to be erased: how much there is of each kind, and where else it is."""

    person_id: str
    removed: dict[str, int]
    removals: QuerySet[Removal]  # as which the removal of vectors and files will be noted
    backups: list[BackupRecord]


def erase_with_receipt(person: Person, ground: Ground = Ground.REQUEST) -> Signed:
    """Erase the person with everything, and return the signed receipt.

    Files and vectors are removed before it returns where storage and vector database answer; what
    still waits is told in the receipt, and the server removes it.
    """
    person_id = person.person_id
    with journal.changes():
        trashed = corrections.deleted_rows(person_id=person_id)
        case = _case(person_id, [person, *person.merged_ids.all(), *trashed])
        case.removed["pictures"] = corrections.erase_person(person)  # of the trash, too
        receipt = _begun(case)
    return _completed([(case, receipt)], ground)[0]


def erase_by_id(person_id: str, ground: Ground = Ground.REQUEST) -> Signed:
    """Erase whoever has this id, or had it and is in the trash, and return the signed receipt.

    Raise `PersonNotFound`, of which `PersonMerged` says that the id stands for somebody else.
    """
    try:
        return erase_with_receipt(get_person(person_id), ground)
    except PersonMerged:
        raise
    except PersonNotFound:
        with suppress(NotInTrash):
            return _erase_trashed(normalised(person_id), ground)
        raise


def _erase_trashed(person_id: str, ground: Ground) -> Signed:
    with journal.changes():
        corrections.trashed_person(person_id)  # or raise
        case = _case(person_id, corrections.deleted_rows(person_id=person_id))
        corrections.erase_trashed_person(person_id)
        receipt = _begun(case)
    return _completed([(case, receipt)], ground)[0]


def erase_item_with_receipts(pk: int) -> list[Signed]:
    """Erase an item of the trash; return a signed receipt for each deleted person in it.

    Raise `NotInTrash` when it is gone.
    """
    with journal.changes():
        cases = [
            _case(part.person_id, from_lines(part.content))
            for part in corrections.deleted_persons(item=pk)
        ]
        corrections.erase_item(pk)
        begun = [(case, _begun(case)) for case in cases]
    return _completed(begun, Ground.REQUEST)


def _case(person_id: str, rows: Iterable[Model]) -> _Case:
    """Count what there is of the persons among the rows, in the gallery and in the trash."""
    rows = list(rows)
    keys = corrections.keys_of(rows)
    pictures = FaceImage.objects.filter(person__in=keys)
    embeddings = FaceEmbedding.objects.filter(face_image__in=pictures)
    consents = Consent.objects.filter(person__in=keys)
    trashed = corrections.trashed_of(keys)
    removed = {
        "persons": sum(isinstance(row, Person) for row in rows),
        "pictures": pictures.count() + len(trashed.files),
        "vectors": embeddings.filter(vector__isnull=False).count() + trashed.vectors,
        "doubts": Doubt.objects.filter(face_image__in=pictures).count() + trashed.doubts,
        "consents": consents.count(),
        "feedback": Feedback.objects.filter(person__in=keys).count(),
        "kept_faces": Probe.objects.filter(person__in=keys).count(),
        "search_log_entries_without_the_person_now": trashed.searches
        + SearchEntry.objects.filter(person__in=keys).count(),
    }
    files = [
        *pictures.values_list("image", flat=True),
        *consents.values_list("document", flat=True),
        *trashed.files,
    ]
    vectors = [*embeddings.values_list("pk", flat=True), *trashed.embeddings]
    removals = Removal.objects.filter(
        Q(file__in=[file for file in files if file]) | Q(embedding_id__in=vectors)
    )
    moments = [row.created_at for row in rows if isinstance(row, Person)]
    moments += [
        row.former_created_at for row in rows if isinstance(row, MergedId) and row.former_created_at
    ]
    return _Case(person_id, removed, removals, list(backups_holding(min(moments))))


def _begun(case: _Case) -> Receipt:
    """Store a receipt, and so its number, in the transaction that erases."""
    receipt: Receipt = Receipt.objects.create(
        subject=_subject(case.person_id), content={"removed": case.removed}
    )
    return receipt


def _completed(begun: Iterable[tuple[_Case, Receipt]], ground: Ground) -> list[Signed]:
    """Remove files and vectors, now that the erasure is committed, and sign what was done."""
    index.remove_deleted.func()
    signed = []
    for case, receipt in begun:
        receipt.content = {
            "format": FORMAT,
            "number": receipt.pk,
            "made_at": receipt.made_at.isoformat(),
            "ground": ground.value,
            "removed": case.removed,
            "still_to_be_removed": case.removals.count(),
            "journal": journal.head(),
            "backups": [
                {
                    "number": record.pk,
                    "made_at": record.made_at.isoformat(),
                    "keep_until": record.keep_until and record.keep_until.isoformat(),
                }
                for record in case.backups
            ],
        }
        receipt.save(update_fields=["content"])
        signed.append(_signed(receipt, case.person_id))
    return signed


def receipt_again(number: int, person_id: str) -> Signed:
    """Return the receipt with this number once more. Raise `ReceiptRefused` for another id."""
    receipt = Receipt.objects.filter(pk=number).first()
    if receipt is None or receipt.subject != _subject(person_id):
        message = gettext(
            "There is no receipt %(number)d about this id, or installation_key was another one when it "
            "was made. Look at its number and the id, or bring the old key back."
        )
        raise ReceiptRefused(message % {"number": number})
    return _signed(receipt, person_id)


def _subject(person_id: str) -> str:
    return installation_key().digest_of(f"receipt {normalised(person_id)}")


def _signed(receipt: Receipt, person_id: str) -> Signed:
    key = installation_key()
    content = receipt.content | {"person_id": person_id}
    signature = b64encode(key.sign(_canonical(content))).decode()
    return {"receipt": content, "public_key": key.public_pem, "signature": signature}


def _canonical(content: Any) -> bytes:
    """Return the bytes that are signed: JSON with sorted keys, without spaces, in UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def save_receipt(signed: Signed, folder: Path) -> list[Path]:
    """Write the receipt as JSON and as a page into the folder; return the files."""
    name = f"receipt-{signed['receipt']['number']}"
    files = {"json": receipt_json(signed), "html": receipt_page(signed)}
    paths = [folder / f"{name}.{suffix}" for suffix in files]
    for path, content in zip(paths, files.values(), strict=True):
        with whole_file(path) as file:
            file.write(content.encode())
    return paths


def receipt_json(signed: Signed) -> str:
    return json.dumps(signed, ensure_ascii=False, indent=1) + "\n"


def receipt_page(signed: Signed) -> str:
    """Return the receipt as a page in Portuguese and English that holds the signed data, too."""
    receipt = dict(signed["receipt"])
    receipt["made_at"] = _moment(receipt["made_at"])
    receipt["backups"] = [
        each
        | {
            "made_at": _moment(each["made_at"]),
            "keep_until": each["keep_until"] and datetime.fromisoformat(each["keep_until"]).date(),
        }
        for each in receipt["backups"]
    ]
    parts = []
    for language in LANGUAGES:
        with translation.override(language):
            shown = {
                "receipt": receipt,
                "ground": Ground(receipt["ground"]).label,
                "language": language,
            }
            parts.append(render_to_string("enrollment/desk/receipt_part.html", shown))
    return render_to_string(
        "enrollment/desk/receipt_file.html",
        {
            "parts": parts,
            "number": receipt["number"],
            "signed": signed,
            "data": receipt_json(signed),
        },
    )


def _moment(text: str) -> datetime | None:
    moment = parse_datetime(text)
    return moment and timezone.localtime(moment, timezone.get_default_timezone())


def read_receipt(text: str) -> Signed:
    """Return the receipt in a JSON file, an answer of the API or a page. Raise `ReceiptRefused`."""
    found = _DATA.search(text)
    try:
        signed = json.loads(html.unescape(found[1]) if found else text)
        if "signature" not in signed:
            signed = signed["receipt"]
        fields = signed["receipt"], signed["public_key"], signed["signature"]
        whole = isinstance(fields[0], dict) and all(isinstance(each, str) for each in fields[1:])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable() from error
    if not whole:
        raise _unreadable()
    return dict(signed)


def _unreadable() -> ReceiptRefused:
    return ReceiptRefused(
        gettext(
            "This is no receipt of an erasure: a JSON file or a page that this service wrote is expected."
        )
    )


def verify_receipt(signed: Signed, by: Ed25519PublicKey) -> bool:
    """Return whether this key signed exactly this receipt."""
    try:
        signature = b64decode(signed["signature"], validate=True)
    except (NotBase64, ValueError):
        return False
    return is_signed(_canonical(signed["receipt"]), signature, by)


def says_the_same(page: str, signed: Signed) -> bool:
    """Return whether the page's text is what its signed data says, as this version words it."""
    return page.strip() == receipt_page(signed).strip()
