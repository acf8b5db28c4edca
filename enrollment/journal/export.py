"""The journal as rows of a CSV file or JSON lines, for a log host."""

from __future__ import annotations

from typing import Any, Final

from enrollment.models import JournalEntry

COLUMNS: Final = (
    "chain",
    "number",
    "at",
    "action",
    "who",
    "kind",
    "via",
    "address",
    "channel",
    "request_id",
    "facts",
    "persons",
    "previous_hash",
    "hash",
)


def as_row(line: JournalEntry) -> dict[str, Any]:
    """Return the line with all that its hash is made of, and the names that are still there."""
    persons = [
        {
            "person": subject.person_pk,
            "role": subject.role,
            "personal": subject.personal,
            "salt": subject.salt,
            "personal_hash": subject.personal_hash,
        }
        for subject in line.subjects.all()
    ]
    given = {"at": line.at.isoformat(), "persons": persons}
    return {name: given.get(name, getattr(line, name, None)) for name in COLUMNS}
