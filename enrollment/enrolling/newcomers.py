"""Create somebody whom an import would have brought, had it not refused the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enrollment import journal
from enrollment.enrolling.consents import record_first_consent
from enrollment.enrolling.corrections import CHANGEABLE, create_person
from enrollment.enrolling.zip_import import details_of
from enrollment.models import ImportFile, Person


def create_newcomer(given: Mapping[str, Any], row: ImportFile | None) -> Person:
    """Create somebody new of whom the picture is this file of an import, if there is one.

    `given` are `CHANGEABLE` fields; where it says nothing they are as the import has them for its new
    persons, with a consent to its purposes. What the row says of whom it names is only for that id.
    Raise the errors of `create_person`.
    """
    details: dict[str, Any] = {}
    if row is not None:
        is_named = row.person_id == given.get("person_id")
        details = details_of(row if is_named else ImportFile(job=row.job))
    known = {name: value for name, value in details.items() if name in CHANGEABLE}
    with journal.changes():
        person = create_person(**known | {name: each for name, each in given.items() if each})
        record_first_consent(person, details)
    return person
