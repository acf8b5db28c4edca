"""A table of people inside a ZIP: which pictures are whose, and what their new persons get."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError

from enrollment.enrolling import DETAILS, clean_person_id
from enrollment.imports.found_files import NOBODYS, FoundFile, find_files
from enrollment.imports.spreadsheet_cells import is_shortened, shortened_id, unescaped
from enrollment.imports.zip_archive import MAX_FILES, BadArchive
from enrollment.models import Person
from recognition.sentences import Sentence, joined
from recognition.sentences import gettext as _

PERSON_ID: Final = "person_id"
PICTURE: Final = "picture"
_DELIMITERS: Final = (",", ";", "\t")
_MOST_BYTES: Final = 20 * 1024**2
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def find_table(folder: Path) -> Path | None:
    """Return the CSV with the columns `person_id` and `picture` in the folder or the only one in it.

    Raise `BadArchive` where there are several, or one that is not UTF-8.
    """
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for place in [folder, *(inside if len(inside) == 1 else [])]:
        tables = [path for path in sorted(place.glob("*")) if _is_table(path)]
        if len(tables) > 1:
            message = _("The ZIP holds several tables of people: %(names)s. Leave one.")
            names = ", ".join(path.name for path in tables)
            raise BadArchive(message % {"names": names[:500]})
        if tables:
            return tables[0]
    return None


def _is_table(path: Path) -> bool:
    if path.suffix.lower() != ".csv" or not path.is_file() or path.name.startswith("."):
        return False
    return _delimiter(_text(path)) is not None


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        message = _("The table %(name)s is larger than %(limit)d MB. Split it.")
        raise BadArchive(message % {"name": path.name, "limit": _MOST_BYTES >> 20})
    with suppress(UnicodeDecodeError):
        text = path.read_text("utf-8-sig")
        if "\0" not in text:  # which SQL cannot store
            return text
    message = _("The table %(name)s is not UTF-8. In a spreadsheet, save it as “CSV UTF-8”.")
    raise BadArchive(message % {"name": path.name})


def _delimiter(text: str) -> str | None:
    """Return what parts the columns, None unless they are those of a table of pictures."""
    first = text.partition("\n")[0].strip("\r")
    for delimiter in _DELIMITERS:
        names = {
            name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])
        }
        if {PERSON_ID, PICTURE} <= names:
            return delimiter
    return None


def read_table(table: Path) -> list[FoundFile]:
    """Return a file for each row of the table, then those in its folder that it does not name.

    Raise `BadArchive` for more addresses than a ZIP may hold files.
    """
    pictures = find_files(table.parent, "unnamed")
    by_name = {_folded(found.shown_path): found for found in pictures if not found.reason}
    rows = list(_rows(_text(table), table.name, by_name))
    if sum(bool(row.address) for row in rows) > MAX_FILES:
        message = _("The table %(name)s names more than %(limit)d addresses. Split it.")
        raise BadArchive(message % {"name": table.name, "limit": MAX_FILES})
    known: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        for name, value in row.details.items():
            known[row.person_id].setdefault(name, value)
    read = []
    for row in rows:
        details = dict(known[row.person_id]) if not row.reason else {}
        read.append(replace(row, name=details.pop("name", ""), details=details))
    named = {row.path for row in rows}
    reason = _("The table %(table)s has no row for this file.") % {"table": table.name}
    for found in pictures:
        if found.path not in named and found.path != table.resolve():
            is_picture = not found.reason
            read.append(
                replace(
                    found,
                    person_id="",
                    reason=reason if is_picture else found.reason,
                    code=NOBODYS if is_picture else "",
                )
            )
    return read


def _rows(text: str, table: str, by_name: Mapping[str, FoundFile]) -> Iterator[FoundFile]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text) or ",")
    names = [name.strip().lower() for name in next(reader)]
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        values = dict(zip(names, (unescaped(cell.strip()) for cell in cells), strict=False))
        place = _("%(table)s, line %(line)d") % {"table": table, "line": reader.line_num}
        yield _row(values, place, by_name)


def _row(values: Mapping[str, str], place: str, by_name: Mapping[str, FoundFile]) -> FoundFile:
    given = values.get(PICTURE, "")
    found = by_name.get(_folded(given))
    if not found and _ADDRESS.match(given):
        return _row_of_address(values, place, given)
    path = found.path if found else Path("-")
    shown = found.shown_path if found else place
    try:
        person_id, details = _person(values)
    except ValidationError as error:
        why = joined(error.messages)
        reason = Sentence("%(place)s: %(why)s", {"place": place, "why": why}) if found else why
        return FoundFile(path, shown, reason=reason, code=NOBODYS if found else "")
    reason = "" if found else _no_picture(given)
    return FoundFile(path, shown, person_id, reason=reason, details=details)


def _row_of_address(values: Mapping[str, str], place: str, address: str) -> FoundFile:
    # Neither where it is nor what follows a question mark stays: that may be as good as a password.
    name = posixpath.basename(re.split(r"[?#]", address.partition("://")[2])[0])[:100]
    path, shown = Path(name or "-"), f"{place}: {name}" if name else place
    try:
        person_id, details = _person(values)
    except ValidationError as error:
        return FoundFile(path, shown, reason=joined(error.messages))
    return FoundFile(path, shown, person_id, details=details, address=address)


def _no_picture(given: str) -> str:
    if not given:
        return _("The row names no picture.")
    message = _("The ZIP has no picture '%(path)s' beside or below the table.")
    return message % {"path": given[:200]}


def _person(values: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the id and the details of a row. Raise `ValidationError`."""
    if is_shortened(values.get(PERSON_ID, "")):
        raise ValidationError(shortened_id(values[PERSON_ID]))
    person_id = clean_person_id(values.get(PERSON_ID, ""))
    details: dict[str, Any] = {
        name: values[name] for name in ("name", *DETAILS) if values.get(name)
    }
    if "keep_until" in details:
        try:
            details["keep_until"] = date.fromisoformat(details["keep_until"])
        except ValueError as error:
            message = _("'%(given)s' is no day. Write it as 2027-12-31.")
            raise ValidationError(message % {"given": details["keep_until"][:40]}) from error
    person = Person(person_id=person_id, **details)
    person.clean_fields(exclude=["cover", "search_text", "id_key", "name_key"])
    return person_id, details


def _folded(path: str) -> str:
    """Return the path as it is compared: programs differ in accents, case and slashes."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()
