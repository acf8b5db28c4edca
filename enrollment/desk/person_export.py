"""Everything that is kept of a person, in one ZIP for that person.

It holds the pictures and documents as they are stored, `person.json` for programs, `vectors.json`
with the computed numbers, and a page to read in each language. Of other persons it says nothing but
that there was another: what it is about belongs to one person.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.translation import gettext

from enrollment import journal
from enrollment.corrections import CHANGEABLE
from enrollment.exceptions import PictureMissing
from enrollment.gallery import pictures_of, read_document, read_picture
from enrollment.imports import FileStatus
from enrollment.models import (
    DECISION_LABELS,
    Action,
    Channel,
    Consent,
    FaceEmbedding,
    FaceImage,
    Feedback,
    ImportFile,
    JournalChain,
    JournalEntry,
    JournalSubject,
    Person,
    SearchEntry,
)

FORMAT: Final = 1
PAGES: Final = {"pt-br": "pessoa.html", "en": "person.html"}  # by language


def export_person(person: Person, file: IO[bytes]) -> dict[str, Any]:
    """Write the ZIP to the file; return what `person.json` says.

    A picture whose file is missing is listed without one. Raise `StorageUnavailable` when the
    storage does not answer.
    """
    content = _described(person)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _add_files(archive, person, content)
        archive.writestr("person.json", _as_json(content))
        archive.writestr("vectors.json", _as_json(_vectors(person)))
        for language, name in PAGES.items():
            with translation.override(language):
                shown = {"is_of": _in_words(content), "language": language}
                page = render_to_string("enrollment/desk/export.html", shown)
            archive.writestr(name, page)
    journal.record(
        journal.Action.EXPORTED, person=person, facts={"count": len(content["pictures"])}
    )
    return content


def export_name(person: Person) -> str:
    """Return the file's name, which names nobody."""
    return f"person-{person.pk}-{timezone.localdate():%Y-%m-%d}.zip"


def _history(person: Person) -> Iterator[dict[str, Any]]:
    """Yield the journal's lines about the person, the oldest first, without what names others."""
    lines = JournalSubject.objects.filter(person_pk__in=journal.with_merged({person.pk}))
    lines = lines.filter(entry__chain=JournalChain.Name.CHANGES).select_related("entry")
    for line in lines.order_by("entry__at", "entry_id"):
        yield {
            "at": line.entry.at,
            "who": line.entry.who,
            "kind": line.entry.kind,
            "channel": line.entry.channel,
            "action": line.entry.action,
            "facts": line.entry.facts,
            "details": line.personal or {},
        }


def _described(person: Person) -> dict[str, Any]:
    details = {name: getattr(person, name) for name in CHANGEABLE}
    details |= {"created_at": person.created_at, "updated_at": person.updated_at}
    return {
        "format": FORMAT,
        "made_at": timezone.now(),
        "person": details,
        "consents": [_consent(each) for each in person.consents.prefetch_related("purposes")],
        "pictures": [_picture(each) for each in pictures_of(person).order_by("pk")],
        "searches": list(_searches(person)),
        "feedback": [_feedback(each) for each in person.feedback.order_by("pk")],
        "imports": list(_imports(person)),
        "history": list(_history(person)),
    }


def _in_words(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content with the words of the active language in place of codes."""
    words: dict[str, dict[Any, Any]] = {
        "source": dict(FaceImage.Source.choices),
        "channel": dict([*SearchEntry.Channel.choices, *Channel.choices]),
        "decision": dict(DECISION_LABELS),
        "verdict": dict(Feedback.Verdict.choices),
        "action": dict(Action.choices),
        "status": {
            FileStatus.ENROLLED: gettext("added"),
            FileStatus.SKIPPED: gettext("skipped"),
            FileStatus.REFUSED: gettext("refused"),
            FileStatus.IGNORED: gettext("ignored"),
        },
    }

    def told(each: dict[str, Any]) -> dict[str, Any]:
        return {
            name: words[name].get(value, value) if name in words else value
            for name, value in each.items()
        }

    return content | {
        name: [told(each) for each in content[name]]
        for name in ("pictures", "searches", "feedback", "imports", "history")
    }


def _consent(consent: Consent) -> dict[str, Any]:
    return {
        "day": consent.day,
        "expires": consent.expires,
        "purposes": [purpose.name for purpose in consent.purposes.all()],
        "document": consent.file_name or None,
        "file": document_name(consent) if consent.document else None,
        "recorded_at": consent.created_at,
    }


def document_name(consent: Consent) -> str:
    """Return the document's name in the ZIP."""
    _folder, _dot, kind = (consent.document.name or "").rpartition(".")
    return f"documents/{consent.pk}.{kind}"


def _picture(picture: FaceImage) -> dict[str, Any]:
    _folder, _dot, kind = (picture.image.name or "").rpartition(".")
    return {
        "number": picture.pk,
        "file": f"pictures/{picture.pk}.{kind}",
        "original_path": picture.original_path,
        "source": picture.source,
        "created_at": picture.created_at,
        "sha256_of_upload": picture.content_hash,
        "width": picture.width,
        "height": picture.height,
        "embeddings": [
            {
                "model": row.model,
                "weights": row.fingerprint,
                "status": row.status,
                "face": row.face,
                "created_at": row.created_at,
            }
            for row in picture.embeddings.all()
        ],
        # Whom a picture resembles is about somebody else, too: only the reason is told.
        "doubts": [doubt.code for doubt in picture.doubts.all()],
    }


def _searches(person: Person) -> Iterator[dict[str, Any]]:
    """Yield the searches that showed the person: of the journal, and older ones of the search log."""
    keys = journal.with_merged({person.pk})
    lines = JournalEntry.objects.filter(chain=JournalChain.Name.SEARCHES)
    known = set()
    for line in lines.filter(subjects__person_pk__in=keys).distinct().order_by("number"):
        known.add(line.request_id)
        for pk, similarity, decision in line.facts.get("shown", ()):
            if pk in keys:
                yield {
                    "at": line.at,
                    "who": line.who,
                    "channel": line.channel,
                    "decision": decision,
                    "similarity": similarity,
                    "request_id": line.request_id,
                }
    for entry in SearchEntry.objects.filter(person=person).order_by("pk").iterator():
        if entry.request_id and entry.request_id in known:
            continue
        yield {
            "at": entry.created_at,
            "who": entry.username,
            "channel": entry.channel,
            "decision": entry.decision,
            "similarity": entry.similarity,
            "request_id": entry.request_id,
        }


def _feedback(said: Feedback) -> dict[str, Any]:
    return {
        "at": said.created_at,
        "who": said.username,
        "verdict": said.verdict,
        "decision": said.decision,
        "similarity": said.similarity,
    }


def _imports(person: Person) -> Iterator[dict[str, Any]]:
    """Yield the files of imports whose report names the person."""
    theirs = Q(person_pk__in=journal.with_merged({person.pk})) | Q(person_id=person.person_id)
    for row in ImportFile.objects.filter(theirs).select_related("job").order_by("pk").iterator():
        yield {
            "at": row.job.created_at,
            "who": row.job.username,
            "file": row.path,
            "status": row.status,
        }


def _vectors(person: Person) -> list[dict[str, Any]]:
    rows = FaceEmbedding.objects.filter(face_image__person=person, vector__isnull=False)
    return [
        {
            "picture": row.face_image_id,
            "model": row.model,
            "weights": row.fingerprint,
            "vector": [float(f"{value:.8g}") for value in row.computed_array()],
        }
        for row in rows.order_by("pk")
    ]


def _add_files(archive: zipfile.ZipFile, person: Person, content: dict[str, Any]) -> None:
    """Store the pictures and documents; the description of what is missing, or was deleted meanwhile,
    loses its file."""
    pictures = {picture.pk: picture for picture in person.face_images.all()}
    for each in content["pictures"]:
        _add(archive, each, pictures.get(each["number"]), read_picture)
    documents = {document_name(consent): consent for consent in person.consents.all()}
    for each in content["consents"]:
        _add(archive, each, documents.get(each["file"]), read_document)


def _add(archive: zipfile.ZipFile, described: dict[str, Any], kept: Any, read: Any) -> None:
    if kept is not None:
        with suppress(PictureMissing):
            # Pictures are compressed already.
            archive.writestr(described["file"], read(kept), zipfile.ZIP_STORED)
            return
    described["file"] = None


def _as_json(content: Any) -> str:
    return json.dumps(content, cls=DjangoJSONEncoder, ensure_ascii=False, indent=1)
