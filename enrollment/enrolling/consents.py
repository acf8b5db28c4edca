"""Record consents with their documents, and remove them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from django.core.files import File
from django.utils.translation import gettext

from enrollment import journal
from enrollment.exceptions import ConsentNotFound, StorageUnavailable, UnknownPurpose
from enrollment.models import Consent, Person, Purpose, note_removals, today


def purposes_named(names: Iterable[str]) -> list[Purpose]:
    """Return the purposes with these names. Raise `UnknownPurpose`, which lists the known ones."""
    known = {purpose.name: purpose for purpose in Purpose.objects.all()}
    wanted = dict.fromkeys(names)
    if unknown := [name for name in wanted if name not in known]:
        message = gettext(
            "No purpose is called '%(name)s'. Known: %(known)s. The administrator makes others in the admin."
        )
        raise UnknownPurpose(message % {"name": unknown[0][:100], "known": ", ".join(known) or "-"})
    return [known[name] for name in wanted]


def add_consent(
    person: Person,
    *,
    document: File[Any] | None = None,
    day: date,
    expires: date | None = None,
    purposes: Iterable[Purpose] = (),
) -> Consent:
    """Record a consent of the person, with the document as it was uploaded.

    Raise `ValidationError` for invalid values and `StorageUnavailable` when the document cannot be
    kept; then nothing is recorded.
    """
    consent = Consent(person=person, day=day, expires=expires)
    if document:
        consent.file_name = (document.name or "")[:255]
        consent.document = document
    consent.full_clean()
    stored = ""
    try:
        with journal.changes():
            if document:
                _store(consent)
                stored = consent.document.name or ""
            consent.save()
            consent.purposes.set(purposes)
            _journal(consent, "recorded")
    except BaseException:
        if stored:
            note_removals(files=[stored])
        raise
    return consent


def record_first_consent(person: Person, details: Mapping[str, Any]) -> None:
    """Record the consent that an import knows of a new person; see `Upload.details`."""
    if purposes := details.get("purposes"):
        known = Purpose.objects.filter(pk__in=purposes)
        add_consent(person, day=details.get("consent_day") or today(), purposes=known)


def _store(consent: Consent) -> None:
    try:
        consent.document.save(consent.file_name, consent.document.file, save=False)
    except Exception as error:
        raise StorageUnavailable(
            gettext("The storage does not take the document, so nothing was recorded.")
        ) from error


def consent_of(person: Person, number: int) -> Consent:
    """Return one consent of the person. Raise `ConsentNotFound`."""
    consent: Consent | None = person.consents.filter(pk=number).first()
    if consent is None:
        message = gettext("%(person)s has no consent %(number)d, or not any more.")
        raise ConsentNotFound(message % {"person": person, "number": number})
    return consent


def remove_consent(person: Person, number: int) -> None:
    """Remove a consent that was recorded by mistake, with its document."""
    with journal.changes():
        consent = consent_of(person, number)
        note_removals(files=[consent.document.name or ""])
        _journal(consent, "removed")
        consent.delete()


def change_purposes(
    persons: Collection[int], purposes: Collection[int], *, given: bool
) -> dict[str, list[list[int]]]:
    """Give the purposes to the newest consent in force of each person, or take them from all of these.

    Persons and purposes are keys. Who has no consent in force stays as they are. Runs in the caller's
    transaction; returns what `give_purposes_back` takes: keys of consents and purposes, in pairs.
    """
    through = Consent.purposes.through
    consents = Consent.objects.in_force().filter(person__in=persons)
    have = through.objects.filter(consent__in=consents, purpose__in=purposes)
    if not given:
        pairs = [list(pair) for pair in have.values_list("consent", "purpose")]
        have.delete()
        return {"taken": pairs}
    newest = dict(consents.order_by("day", "pk").values_list("person", "pk"))
    held = set(have.values_list("consent__person", "purpose"))
    pairs = [
        [consent, purpose]
        for person, consent in newest.items()
        for purpose in purposes
        if (person, purpose) not in held
    ]
    _pair(pairs)
    return {"given": pairs}


def give_purposes_back(facts: Mapping[str, Any]) -> None:
    """Take back what `change_purposes` did, of the consents and purposes that are still there."""
    for consent, purpose in facts.get("given", ()):
        Consent.purposes.through.objects.filter(consent=consent, purpose=purpose).delete()
    if taken := facts.get("taken"):
        there = set(
            Consent.objects.filter(pk__in=[pair[0] for pair in taken]).values_list("pk", flat=True)
        )
        known = set(Purpose.objects.values_list("pk", flat=True))
        _pair([pair for pair in taken if pair[0] in there and pair[1] in known])


def _pair(pairs: Iterable[Sequence[int]]) -> None:
    through = Consent.purposes.through
    through.objects.bulk_create(
        (through(consent_id=consent, purpose_id=purpose) for consent, purpose in pairs),
        ignore_conflicts=True,
        batch_size=1000,
    )


def erase_consents(person_pk: int) -> None:
    """Delete the consents of an erased person with their documents, in the caller's transaction."""
    consents = Consent.objects.filter(person_id=person_pk)
    documents = list(consents.values_list("document", flat=True))
    if documents:
        note_removals(files=documents)
        consents.delete()


def _journal(consent: Consent, act: str) -> None:
    facts = {"consent": consent.pk, "act": act, "day": consent.day, "expires": consent.expires}
    journal.record(journal.Action.CHANGED, person=consent.person, facts=facts)
