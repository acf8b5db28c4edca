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
from datetime import datetime
from enum import Enum
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db.models import Q, QuerySet
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from enrollment import index, journal
from enrollment.enrolling import erase_person, installation_key, is_signed
from enrollment.exceptions import ReceiptRefused
from enrollment.models import (
    Consent,
    Doubt,
    FaceEmbedding,
    FaceImage,
    Person,
    Receipt,
    Removal,
    SearchEntry,
    normalised,
)
from enrollment.upkeep.backup_records import backups_holding

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


def erase_with_receipt(person: Person, ground: Ground = Ground.REQUEST) -> Signed:
    """Erase the person with everything, and return the signed receipt.

    Files and vectors are removed before it returns where storage and vector database answer; what
    still waits is told in the receipt, and the server removes it.
    """
    held = list(backups_holding(person.created_at))
    with journal.changes():
        removed = _counted(person)
        ours = _removals(person)
        removed["pictures"] = erase_person(person)  # of the trash, too
        receipt = Receipt.objects.create(
            subject=_subject(person.person_id), content={"removed": removed}
        )
    index.remove_deleted.func()
    receipt.content = {
        "format": FORMAT,
        "number": receipt.pk,
        "made_at": receipt.made_at.isoformat(),
        "ground": ground.value,
        "removed": removed,
        "still_to_be_removed": ours.count(),
        "journal": journal.head(),
        "backups": [
            {
                "number": record.pk,
                "made_at": record.made_at.isoformat(),
                "keep_until": record.keep_until and record.keep_until.isoformat(),
            }
            for record in held
        ],
    }
    receipt.save(update_fields=["content"])
    return _signed(receipt, person.person_id)


def _removals(person: Person) -> QuerySet[Removal]:
    """Return what the removal of this person's vectors and files will be noted as."""
    pictures = FaceImage.objects.filter(person=person)
    files = [
        *pictures.values_list("image", flat=True),
        *person.consents.values_list("document", flat=True),
    ]
    vectors = FaceEmbedding.objects.filter(face_image__in=pictures).values_list("pk", flat=True)
    return Removal.objects.filter(
        Q(file__in=[file for file in files if file]) | Q(embedding_id__in=list(vectors))
    )


def _counted(person: Person) -> dict[str, int]:
    """Count what is about to be removed, by kind."""
    pictures = FaceImage.objects.filter(person=person)
    vectors = FaceEmbedding.objects.filter(face_image__in=pictures, vector__isnull=False)
    return {
        "persons": 1,
        "pictures": 0,
        "vectors": vectors.count(),
        "doubts": Doubt.objects.filter(face_image__in=pictures).count(),
        "consents": Consent.objects.filter(person=person).count(),
        "search_log_entries_without_the_person_now": SearchEntry.objects.filter(
            person=person
        ).count(),
    }


def receipt_again(number: int, person_id: str) -> Signed:
    """Return the receipt with this number once more. Raise `ReceiptRefused` for another id."""
    receipt = Receipt.objects.filter(pk=number).first()
    if receipt is None or receipt.subject != _subject(person_id):
        message = gettext(
            "There is no receipt %(number)d about this id. Look at its number and the id."
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
    """Return the receipt in a JSON file or a page. Raise `ReceiptRefused`."""
    found = _DATA.search(text)
    try:
        signed = json.loads(html.unescape(found[1]) if found else text)
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
