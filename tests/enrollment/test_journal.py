"""The journal: what is written by whom, and whether a changed line is found."""

from __future__ import annotations

import pytest

from enrollment import enrolling, journal
from enrollment.journal import Action
from enrollment.models import JournalEntry, JournalSubject

pytestmark = pytest.mark.django_db


def test_corrections_are_journalled_and_chained() -> None:
    ana = enrolling.create_person("ana", name="Ana")
    enrolling.change_person(ana, name="Ana Lima")
    bia = enrolling.create_person("bia")
    enrolling.merge_persons(bia, ana)

    lines = list(JournalEntry.objects.order_by("number"))
    assert [line.action for line in lines] == ["created", "changed", "created", "merged"]
    assert [line.number for line in lines] == [1, 2, 3, 4]
    assert [line.previous_hash for line in lines] == ["", *(line.hash for line in lines[:-1])]
    assert journal.head() == lines[-1].hash
    changed = lines[1].subjects.get().personal
    assert changed["before"] == {"name": "Ana"}
    assert changed["after"] == {"name": "Ana Lima"}


def test_what_fails_is_not_journalled() -> None:
    enrolling.create_person("ana")
    with pytest.raises(ValueError, match="undone"), journal.changes():
        enrolling.create_person("bia")
        raise ValueError("undone")
    with journal.changes():
        with pytest.raises(ValueError, match="undone"), journal.changes():
            enrolling.create_person("bia")
            raise ValueError("undone")
        enrolling.create_person("caio")
    assert JournalEntry.objects.count() == 2


def test_erased_person_is_nowhere_in_the_journal() -> None:
    ana = enrolling.create_person("ana-1234", name="Ana Lima")
    old = enrolling.create_person("ana-old", name="Old")
    enrolling.merge_persons(ana, old)
    enrolling.erase_person(ana)
    assert not JournalSubject.objects.exclude(personal=None).exists()
    assert not JournalSubject.objects.exclude(salt="").exists()
    last = JournalEntry.objects.latest("number")
    assert (last.action, last.kind) == (Action.ERASED, "server")
