"""Append lines to the journal, in the transaction of what they tell of."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, transaction
from django.utils import timezone

from enrollment.journal.authors import current_author
from enrollment.models import Action, JournalChain, JournalEntry, JournalSubject, Person
from recognition.api.request_id import current_request_id

CHANGES = JournalChain.Name.CHANGES
SEARCHES = JournalChain.Name.SEARCHES
_OF_SEARCHES = frozenset({Action.SEARCHED, Action.VERIFIED})
Role = JournalSubject.Role
MOST_LISTED: Final = 100  # pictures whose ids a line names
Line = tuple[JournalEntry, list[JournalSubject]]

# In SQL, as every search waits for it: Django takes 0.4 ms longer for lock and end, and 0.5 ms for ten subjects.
_LOCK: Final = "SELECT number, hash FROM enrollment_journalchain WHERE name = %s"
_END: Final = "UPDATE enrollment_journalchain SET number = %s, hash = %s WHERE name = %s"
_SUBJECT: Final = (
    "INSERT INTO enrollment_journalsubject (entry_id, person_pk, role, personal, salt, personal_hash) "
    "VALUES (%s, %s, %s, %s, %s, %s)"
)

_waiting: ContextVar[list[Line] | None] = ContextVar("journal_waiting", default=None)


@contextmanager
def changes(*, durable: bool = False) -> Iterator[None]:
    """A transaction whose lines are appended as its last act.

    The chain's end is locked from the first line to the commit. With all lines at the end, nobody
    waits for long, and two transactions that lock persons in other orders never deadlock over it.
    Lines of a block that fails are dropped with its changes.
    """
    outer = _waiting.get()
    if outer is not None:
        begun = len(outer)
        try:
            with transaction.atomic(durable=durable):
                yield
        except BaseException:
            del outer[begun:]
            raise
        return
    lines: list[Line] = []
    token = _waiting.set(lines)
    try:
        with transaction.atomic(durable=durable):
            yield
            if lines and connection.vendor == "postgresql":
                # Checked at the commit, references would lock rows of others who wait for the chain.
                with connection.cursor() as cursor:
                    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
            _append(lines)
    finally:
        _waiting.reset(token)


@contextmanager
def collected() -> Iterator[list[Line]]:
    """Collect the lines of the block, by whoever acts in it, for `append`; none is written here."""
    lines: list[Line] = []
    token = _waiting.set(lines)
    try:
        yield lines
    finally:
        _waiting.reset(token)


def append(lines: list[Line]) -> None:
    """Append collected lines; within `changes`, or a transaction of the caller."""
    waiting = _waiting.get()
    if waiting is None:
        _append(lines)
    else:
        waiting += lines


def record(
    action: Action,
    *,
    person: Person | None = None,
    persons: Iterable[tuple[str, Person]] = (),
    facts: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    changes_of: Mapping[int, Mapping[str, Any]] | None = None,
) -> JournalEntry:
    """Journal what was done, by whoever acts; within `changes`, or a transaction of the caller.

    `person` is whom it was done to, with the values `before` and `after` if any; `persons` are
    further ones with their `JournalSubject.Role`, of whom `changes_of` has `before` and `after` by
    primary key. `facts` must not name anybody: they are kept
    when a person is erased. The line gets its number and hash when it is appended.
    """
    subjects = []
    if person is not None:
        changed = {"before": _plain(before)} if before else {}
        changed |= {"after": _plain(after)} if after else {}
        subjects.append(_subject("", person, changed))
    told = changes_of or {}
    subjects += [_subject(role, other, _plain(told.get(other.pk, {}))) for role, other in persons]
    return add_line(action, subjects, facts or {})


def add_line(
    action: Action, subjects: list[JournalSubject], facts: Mapping[str, Any]
) -> JournalEntry:
    """Add a line with these unsaved subjects; see `record`."""
    author = current_author()
    request_id = current_request_id()
    entry = JournalEntry(
        chain=SEARCHES if action in _OF_SEARCHES else CHANGES,
        at=timezone.now(),
        action=action,
        who=author.who,
        kind=author.kind,
        via=author.via[:100],
        address=author.address[:45],
        channel=author.channel,
        request_id="" if request_id == "-" else request_id,
        facts=_plain(facts),
    )
    lines = _waiting.get()
    if lines is not None:
        lines.append((entry, subjects))
    else:
        with transaction.atomic():
            _append([(entry, subjects)])
    return entry


def record_shown(
    action: Action, shown: Iterable[tuple[int, float, str | None]], facts: Mapping[str, Any]
) -> None:
    """Journal a search or verification that showed persons: primary key, cosine and decision of each.

    A person who was shown several times is named once, with the highest similarity.
    """
    best: dict[int, tuple[int, float, str]] = {}
    for pk, similarity, decision in shown:
        if pk not in best or similarity > best[pk][1]:
            best[pk] = (pk, similarity, decision or "")
    if best:
        subjects = [JournalSubject(person_pk=pk, role=Role.SHOWN) for pk in best]
        add_line(action, subjects, {**facts, "shown": list(best.values())})


def pictures(ids: Iterable[int]) -> dict[str, Any]:
    """Return the facts about these pictures: their number, and the ids of the first hundred."""
    listed = list(ids)
    return {"count": len(listed), "pictures": listed[:MOST_LISTED]}


def waiting_subjects() -> list[JournalSubject]:
    """Return the persons of lines that `changes` has not appended yet."""
    return [subject for _entry, subjects in _waiting.get() or () for subject in subjects]


def _subject(role: str, person: Person, changed: dict[str, Any]) -> JournalSubject:
    subject = JournalSubject(person_pk=person.pk, role=role, salt=secrets.token_hex(16))
    subject.personal = {"person_id": person.person_id, "name": person.name, **changed}
    subject.personal_hash = subject.compute_hash()
    return subject


def _plain(value: Any) -> Any:
    """Return the value as every database gives its JSON back: dates as texts, floats of 6 digits."""
    text = json.dumps(value, cls=DjangoJSONEncoder)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}") + 0.0)


def _append(lines: list[Line]) -> None:
    for name in (CHANGES, SEARCHES):
        ours = [line for line in lines if line[0].chain == name]
        if ours:
            _append_to(name, ours)


def _append_to(name: str, lines: list[Line]) -> None:
    number, last = lock_chain(name)
    for entry, subjects in lines:
        number += 1
        entry.pk, entry.number, entry.previous_hash = None, number, last  # not that of a former try
        entry.hash = last = entry.compute_hash(subjects)
    JournalEntry.objects.bulk_create(entry for entry, _subjects in lines)
    stored = JournalSubject._meta.get_field("personal").get_db_prep_save
    of_all = [
        (
            entry.pk,
            of.person_pk,
            str(of.role),
            stored(of.personal, connection),
            of.salt,
            of.personal_hash,
        )
        for entry, subjects in lines
        for of in subjects
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_SUBJECT, of_all)
        cursor.execute(_END, [number, last, name])


def lock_chain(name: str) -> tuple[int, str]:
    """Return number and hash of the chain's last line; nobody else can append until the commit."""
    # SQLite knows no FOR UPDATE and needs none: its transactions are alone from their beginning.
    locking = " FOR UPDATE" if connection.features.has_select_for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK + locking, [name])
        if not (end := cursor.fetchone()):
            JournalChain.objects.get_or_create(pk=name)  # another process may be faster
            cursor.execute(_LOCK + locking, [name])
            end = cursor.fetchone()
    return end[0], end[1]


def head(name: str = CHANGES) -> str:
    """Return the hash of the chain's last line; empty before the first."""
    hashes = JournalChain.objects.filter(pk=name).values_list("hash", flat=True)
    return hashes.first() or ""
