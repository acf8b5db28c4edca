"""Searches that come together are logged together, and each for itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence, Sized
from contextlib import closing
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError, connection, transaction

from enrollment import journal
from enrollment.gallery import SearchHit, note_search, search_log
from enrollment.journal import Author, GroupCommit, group_commit, turns
from enrollment.models import AuthorKind, FaceImage, JournalEntry, Person, SearchEntry
from recognition.decision import Decision

pytestmark = pytest.mark.django_db(transaction=True)

WAIT = 10  # seconds until a test gives up


@pytest.fixture(autouse=True)
def _patient(monkeypatch) -> None:
    """On a busy machine threads may need longer than a second to come together."""
    monkeypatch.setattr(group_commit, "LOCK_WAIT_SECONDS", float(WAIT))


def at_once(commit: GroupCommit[Any], calls: Sequence[Callable[[], None]]) -> list[list[Any]]:
    """Make the calls in a thread each, all but the first while that one writes; return what was
    written, in the order of the tries."""
    tries: list[list[Any]] = []
    begun, go_on = threading.Event(), threading.Event()
    write = commit._write

    def hold(items: Sequence[Any]) -> None:
        tries.append(list(items))
        if len(tries) == 1:
            begun.set()
            assert go_on.wait(WAIT)
        write(items)

    def work(call: Callable[[], None]) -> None:
        with closing(connection):
            call()

    threads = [threading.Thread(target=work, args=(call,), daemon=True) for call in calls]
    commit._write = hold
    try:
        threads[0].start()
        assert begun.wait(WAIT)
        for thread in threads[1:]:
            thread.start()
        end = monotonic() + WAIT
        while len(commit._waiting) < len(threads) - 1 and monotonic() < end:
            sleep(0.002)
        go_on.set()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
    finally:
        commit._write = write
    return tries


def tries_of(
    write: Callable[[Sequence[str]], None], items: str
) -> tuple[list[str], dict[str, Any]]:
    """Store these letters at once; return those of each try, and the error of each."""
    commit: GroupCommit[str] = GroupCommit(write)
    errors: dict[str, Any] = {}

    def store(item: str) -> None:
        try:
            commit.store(item)
        except (DatabaseError, ValueError) as error:
            errors[item] = error

    tries = at_once(commit, [lambda item=item: store(item) for item in items])
    return ["".join(sorted(each)) for each in tries], errors


def hit(person: Person) -> SearchHit:
    return SearchHit(1, 0.5, Decision.UNKNOWN, FaceImage(pk=1, person=person))


def test_searches_at_once_are_one_transaction_and_each_line_has_its_own_author(caplog):
    ana = Person.objects.create(person_id="ana")
    gone = Person(pk=ana.pk + 1, person_id="gone")  # deleted since the search
    found = {"maria": ana, "rui": ana, "eve": gone, "bia": ana, "caio": ana}

    def search(name: str) -> None:
        request: Any = SimpleNamespace(user=User(username=name))
        author = Author(name, AuthorKind.ACCOUNT, address=f"10.0.0.{len(name)}", channel="api")
        with journal.acting(lambda: author):
            note_search(request, "api", "m", [[hit(found[name])]])

    with caplog.at_level(logging.WARNING, "enrollment.gallery.search_log"):
        tries = at_once(search_log._log, [lambda name=name: search(name) for name in found])
    # One alone, the others together, each of them again because of the one that cannot be stored as it is,
    # and that one without the person: its line of whom it showed was lost.
    assert [len(each) for each in tries] == [1, 4, 1, 1, 1, 1, 1]
    entries = SearchEntry.objects.all()
    shown = {name: None if person == gone else person for name, person in found.items()}
    assert {entry.username: entry.person for entry in entries} == shown and len(entries) == 5
    lines = JournalEntry.objects.filter(action="searched")
    assert {line.who: line.subjects.get().person_pk for line in lines} == {
        name: person.pk for name, person in found.items()
    }
    assert all(line.address == f"10.0.0.{len(line.who)}" for line in lines)
    assert not journal.verify().problems
    assert "Not in the search log" not in caplog.text


def test_those_who_wait_are_written_by_one_and_nobody_waits_alone():
    tries, errors = tries_of(lambda items: None, "abcdef")
    assert (tries, errors) == (["a", "bcdef"], {})


def test_what_is_wrong_with_one_concerns_that_one_alone():
    def write(items: Sequence[str]) -> None:
        if "c" in items:
            raise ValueError("c")

    tries, errors = tries_of(write, "abcd")
    assert tries[:2] == ["a", "bcd"] and sorted(tries[2:]) == ["b", "c", "d"]
    assert list(errors) == ["c"] and isinstance(errors["c"], ValueError)


def test_what_is_wrong_with_the_database_is_not_tried_again_for_each():
    def write(items: Sequence[str]) -> None:
        if "b" in items:
            raise OperationalError("disk full")

    tries, errors = tries_of(write, "abc")
    assert tries == ["a", "bc"] and sorted(errors) == ["b", "c"]


def test_nobody_waits_longer_for_others_than_for_the_database(monkeypatch):
    sqlite = connection.vendor == "sqlite"
    monkeypatch.setattr(group_commit, "LOCK_WAIT_SECONDS" if sqlite else "END_SECONDS", 0.05)
    written: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def write(items: Sequence[str]) -> None:
        begun.set()
        assert go_on.wait(WAIT)
        written.extend(items)

    commit: GroupCommit[str] = GroupCommit(write)

    def first() -> None:
        with closing(connection):
            commit.store("first")

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    assert begun.wait(WAIT)
    with pytest.raises(OperationalError, match="others were written"):
        commit.store("second")
    go_on.set()
    thread.join(WAIT)
    commit.store("third")
    assert written == ["first", "third"]


def test_who_waits_to_write_goes_before_the_next_group():
    """Groups followed each other so closely that others found SQLite free by chance only."""
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite lets one write at a time.")
    begun, go_on = threading.Event(), threading.Event()
    seen: list[list[str]] = []

    def write(items: Sequence[str]) -> None:
        seen.append(list(Person.objects.values_list("person_id", flat=True)))
        begun.set()
        assert go_on.wait(WAIT)

    commit: GroupCommit[str] = GroupCommit(write)

    def begin(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            with closing(connection):
                work()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def wait_for(line: Sized) -> None:
        end = monotonic() + WAIT
        while not len(line) and monotonic() < end:
            sleep(0.002)

    threads = [begin(lambda: commit.store("first"))]
    assert begun.wait(WAIT)
    threads.append(begin(lambda: Person.objects.create(person_id="ana")))
    wait_for(turns.door._waiting)
    threads.append(begin(lambda: commit.store("second")))
    wait_for(commit._waiting)
    go_on.set()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert seen == [[], ["ana"]]


def test_a_write_whose_turn_does_not_come_is_told_as_a_lock(monkeypatch):
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite lets one write at a time.")
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        assert turns.door.enter(WAIT)
        begun.set()
        go_on.wait(WAIT)
        turns.door.leave()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert begun.wait(WAIT)
    with pytest.raises(OperationalError, match="database is locked"):
        Person.objects.create(person_id="ana")
    with pytest.raises(OperationalError, match="database is locked"):
        Person.objects.filter(person_id="ana").update(name="Ana")
    assert not Person.objects.exists()  # who reads does not wait
    go_on.set()
    thread.join(WAIT)
    Person.objects.create(person_id="ana")


def test_the_door_lets_in_one_at_a_time_in_the_order_of_their_coming():
    door = turns.Door()
    assert door.enter(0) and door.enter(0)  # again: inside already
    came: list[int] = []
    gave_up: list[bool] = []

    def come(number: int) -> None:
        assert door.enter(WAIT)
        came.append(number)
        door.leave()

    threads = []
    for number in range(4):
        if number == 2:
            hasty = threading.Thread(target=lambda: gave_up.append(not door.enter(0.01)))
            hasty.start()
            hasty.join(WAIT)
        threads.append(threading.Thread(target=come, args=(number,), daemon=True))
        threads[-1].start()
        end = monotonic() + WAIT
        while len(door._waiting) <= number and monotonic() < end:
            sleep(0.002)
    door.leave()
    assert came == [] and gave_up == [True]
    door.leave()
    for thread in threads:
        thread.join(WAIT)
    assert came == [0, 1, 2, 3] and door.enter(0)


def test_within_a_transaction_it_is_a_part_of_that():
    commit: GroupCommit[str] = GroupCommit(
        lambda items: Person.objects.bulk_create(Person(person_id=item) for item in items)
    )
    with transaction.atomic():
        commit.store("ana")
        transaction.set_rollback(True)
    assert not Person.objects.exists()
    commit.store("bia")
    assert Person.objects.get().person_id == "bia"
