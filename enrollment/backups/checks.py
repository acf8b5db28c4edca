"""Check that a backup can be restored, before anything is written.

Correct checksums prove nothing about who made the backup, so every entry is checked.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Final

from django.core import serializers
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.utils.translation import gettext

from enrollment.backups.archive import ArchiveRefused, Entry
from enrollment.backups.contents import DELETED, ERASED, MANIFEST, Manifest, backed_up_models
from enrollment.corrections import RESTORABLE
from enrollment.models import (
    Consent,
    FaceEmbedding,
    FaceImage,
    Person,
    TrashedPart,
    from_lines,
    validate_not_blank,
)
from recognition.vector_store import EMBEDDING_DIM

_ROWS: Final = re.compile(r"([a-z_]+\.[a-z_]+)/\d{6,}\.jsonl", re.ASCII)
_WEIGHTS: Final = re.compile(r"\w[\w.-]*\.(safetensors|ckpt|npz|json)", re.ASCII)
VECTOR_BYTES: Final = 4 * EMBEDDING_DIM
_NO_VECTOR: Final = bytes(VECTOR_BYTES)  # stands for a missing vector, which is valid


class Malformed(Exception):
    """Part of a backup is not as this program writes it; the message names the part."""


def refused(what: object) -> ArchiveRefused:
    """Return the error for a malformed part of a backup."""
    return ArchiveRefused(
        gettext(
            "The backup is damaged or was altered: %(what)s. Nothing was changed. Use another backup."
        )
        % {"what": what}
    )


def older() -> str:
    """Return the message that the backup comes from a version too old to be restored here."""
    return gettext(
        "The backup was made by a version too old for this one to read. Restore it with the version "
        "that made it, then update that installation."
    )


def manifest_of(content: Any) -> Manifest:
    """Return the manifest in the parsed JSON. Raise `Malformed` when it is not valid."""
    try:
        manifest = Manifest(**content)
        texts = [manifest.created_at, *manifest.migrations, *manifest.rows]
        texts += [name for names in manifest.migrations.values() for name in names]
        texts += [group[key] for group in manifest.vectors for key in ("model", "fingerprint")]
        counts = [manifest.format, *manifest.rows.values()]
        counts += [group["count"] for group in manifest.vectors]
        lists = [*manifest.migrations.values(), manifest.vectors]
    except (TypeError, AttributeError, KeyError) as error:
        raise Malformed(MANIFEST) from error
    good = (
        all(isinstance(text, str) for text in texts)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(item, list) for item in lists)
    )
    if not good:
        raise Malformed(MANIFEST)
    return manifest


def check_entries(entries: Iterable[Entry], manifest: Manifest) -> None:
    """Check every entry without writing anything. Raise `ArchiveRefused` for the first bad one."""
    loaded: Counter[str] = Counter()
    for entry in entries:
        try:
            _check_entry(entry, loaded)
        except Malformed as error:
            raise refused(error) from error
    if loaded != Counter(manifest.rows):
        raise ArchiveRefused(gettext("Rows of the backup are missing. Use another backup."))


def _check_entry(entry: Entry, loaded: Counter[str]) -> None:
    kind, _slash, name = entry.name.partition("/")
    if kind == "files":
        check_file_name(name)
    elif kind == "weights":
        if not _WEIGHTS.fullmatch(name):
            raise Malformed(_shown(entry.name))
    elif kind == "rows":
        match = _ROWS.fullmatch(name)
        if not match:
            raise Malformed(_shown(entry.name))
        loaded[match[1]] += _check_rows(entry, match[1])
    elif kind in (DELETED, ERASED):
        _check_keys(entry)
    elif kind != MANIFEST:
        raise Malformed(_shown(entry.name))


def _check_keys(entry: Entry) -> None:
    try:
        ids = json.loads(entry.content)
    except (ValueError, RecursionError) as error:
        raise Malformed(entry.name) from error
    if not isinstance(ids, list) or not all(type(pk) is int for pk in ids):
        raise Malformed(entry.name)


def check_file_name(name: str) -> None:
    """Raise `Malformed` unless the name is a plain path below the storage's root."""
    parts = name.split("/")
    odd = any(part in ("", ".", "..") or not part.isprintable() for part in parts)
    too_long = len(name) > (FaceImage._meta.get_field("image").max_length or 0)
    if odd or too_long or set(name) & {"\\", ":"} or PurePosixPath(name).is_absolute():
        raise Malformed(_shown(name))


def _check_rows(entry: Entry, label: str) -> int:
    """Check that all rows of the entry belong to the model; return their number."""
    if label not in {model._meta.label_lower for model in backed_up_models()}:
        return entry.content.count(b"\n")  # a model of another version: loading it reports that
    count = 0
    try:
        lines = io.StringIO(entry.content.decode(), newline="\n")
        for row in serializers.deserialize("jsonl", lines, handle_forward_references=True):
            _check_row(row.object, label)
            count += 1
    except Malformed:
        raise
    except Exception as error:  # noqa: BLE001 (whatever Django's deserializer meets in foreign text)
        if FieldDoesNotExist in (type(error), type(error.__cause__)):
            raise ArchiveRefused(f"{older()} ({type(error).__name__}: {error})") from error
        raise Malformed(f"{_shown(entry.name)} ({type(error).__name__})") from error
    return count


def _check_row(row: models.Model, label: str) -> None:
    if row._meta.label_lower != label:
        raise Malformed(f"{label}: {row._meta.label_lower}")
    if isinstance(row, FaceImage):
        check_file_name(row.image.name or "")
    elif isinstance(row, Consent):
        if row.document:
            check_file_name(row.document.name or "")
    elif isinstance(row, Person):
        validate_not_blank(row.person_id)
    elif (
        isinstance(row, FaceEmbedding)
        and len(_NO_VECTOR if row.vector is None else row.vector) != VECTOR_BYTES
    ):
        raise Malformed(f"{label}: vector")
    elif isinstance(row, TrashedPart):
        _check_part(row)


def _check_part(part: TrashedPart) -> None:
    """Check what a part of the trash would restore."""
    if part.file:
        check_file_name(part.file)
    for row in from_lines(part.content):
        label = row._meta.label_lower
        if not isinstance(row, RESTORABLE):
            raise Malformed(f"enrollment.trashedpart: {label}")
        if isinstance(row, FaceImage) and row.image.name != part.file:
            raise Malformed(f"{label}: image")
        _check_row(row, label)


def _shown(name: str) -> str:
    return repr(name[:100])
