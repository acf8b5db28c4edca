"""Backups on record, and erasures that a restore does not undo."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from enrollment import corrections
from enrollment.backups import BackupState, backups_holding, snapshot, state_of
from enrollment.corrections import erasures
from enrollment.models import BackupRecord, ErasedId, FaceImage, Person, TrashItem
from enrollment.upkeep import BacklogThread, backlog
from tests.commands import run
from tests.enrollment.gallery import enroll, stored
from tests.enrollment.test_backup import empty
from tests.pictures import draw_picture

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("weights", "data_folder"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backup with two pictures of Ana and one of Bia."""
    enroll("ana", draw_picture((112, 112), seed=1), draw_picture((112, 112), seed=2))
    enroll("bia", draw_picture((112, 112), seed=3))
    path = tmp_path / "faces.tar"
    run("backup", path, "--keep-days", 7)
    return path


def enrolled() -> list[str]:
    return list(Person.objects.order_by("person_id").values_list("person_id", flat=True))


def erase(person_id: str) -> None:
    corrections.erase_person(Person.objects.get(person_id=person_id))


def files() -> int:
    return sum(path.is_file() for path in Path(default_storage.location).rglob("*"))


def test_a_backup_is_on_record_until_somebody_says_that_it_is_deleted(file):
    record = BackupRecord.objects.get()
    assert (record.persons, record.pictures, record.file) == (2, 3, str(file))
    assert record.size == file.stat().st_size
    assert record.keep_until == timezone.localdate() + timedelta(days=7)
    line = run("backups")
    assert str(file) in line and "there" in line
    ana = Person.objects.get(person_id="ana")
    assert list(backups_holding(ana.created_at)) == [record]
    assert not backups_holding(timezone.now()).exists()
    file.rename(file.with_name("moved.tar"))
    assert state_of(record) is BackupState.ELSEWHERE
    with pytest.raises(CommandError, match="No backup on record has the number 99"):
        run("backups", "--deleted", 99)
    assert "1 backup is noted as deleted." in run("backups", "--deleted", record.pk)
    record.refresh_from_db()
    assert state_of(record) is BackupState.DELETED
    assert not backups_holding(ana.created_at).exists()


def test_overdue_backups_are_deleted_with_their_lists(file, settings):
    BackupRecord.objects.update(keep_until=timezone.localdate())
    assert "0 backups were deleted." in run("backups", "--delete-overdue")
    BackupRecord.objects.update(keep_until=timezone.localdate() - timedelta(days=1))
    assert "overdue: to be deleted" in run("backups")
    assert corrections.list_beside(file).exists()
    assert "1 backup was deleted." in run("backups", "--delete-overdue")
    assert not file.exists() and not corrections.list_beside(file).exists()
    settings.BACKUP_KEEP_DAYS = 0
    run("backup", file)
    assert BackupRecord.objects.last().keep_until is None


def test_a_later_backup_of_the_same_name_is_not_deleted_for_the_earlier(file):
    """As a job does that moves each day's backup away, or deletes it, and makes the next."""
    file.rename(file.with_name("moved.tar"))
    run("backup", file, "--keep-days", 30)
    early = BackupRecord.objects.order_by("pk")[0]
    early.keep_until = timezone.localdate() - timedelta(days=1)
    early.save()
    assert state_of(early) is BackupState.REPLACED
    assert "0 backups were deleted." in run("backups", "--delete-overdue")
    assert file.exists()
    assert "another backup has its name" in run("backups")
    run("backups", "--deleted", early.pk)
    assert [state_of(each).name for each in BackupRecord.objects.order_by("pk")] == [
        "DELETED",
        "THERE",
    ]


def test_what_cannot_be_put_on_record_is_no_backup(file, monkeypatch):
    def full(*_given):
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(snapshot, "new_record", full)
    second = file.with_name("second.tar")
    with pytest.raises(OperationalError):
        run("backup", second)
    assert not second.exists() and BackupRecord.objects.count() == 1


def test_a_backup_is_on_record_before_it_has_its_name(file, monkeypatch):
    """Of one that was killed in between nobody was told when it was overdue, nor whom it should not hold."""
    seen = []

    def record_and_refuse(*_given, **_named):
        seen.append(BackupRecord.objects.last().file)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.link", record_and_refuse)
    monkeypatch.setattr(Path, "touch", record_and_refuse)  # without nameless files
    second = file.with_name("second.tar")
    with pytest.raises(CommandError, match="cannot be written"):
        run("backup", second)
    assert seen == [str(second)]
    assert not second.exists() and BackupRecord.objects.count() == 1


def test_a_backup_whose_list_is_not_written_is_on_record_all_the_same(file, monkeypatch):
    """No record is left of a backup whose file is taken away: receipts would name it."""

    def locked():
        raise OperationalError("database is locked")

    monkeypatch.setattr(snapshot, "write_erased_lists", locked)
    second = file.with_name("second.tar")
    run("backup", second)
    assert second.exists() and state_of(BackupRecord.objects.last()) is BackupState.THERE


@pytest.mark.parametrize("content", ["notes of somebody", None])
def test_what_is_overdue_and_has_to_be_left_is_told(file, monkeypatch, content):
    """What does not say which backup it is, and what this account may not read; others are deleted."""
    second = file.with_name("second.tar")
    run("backup", second)
    BackupRecord.objects.update(keep_until=timezone.localdate() - timedelta(days=1))
    opened = Path.open
    if content:
        file.write_text(content)
    else:

        def forbidden(path, *given, **named):
            if path == file:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *given, **named)

        monkeypatch.setattr(Path, "open", forbidden)
    reason = "damaged, or no backup" if content else "Permission denied"
    with pytest.raises(CommandError, match=rf"(?s)not deleted:\n.*{file}: {reason}.*--deleted"):
        run("backups", "--delete-overdue")
    assert file.exists() and not second.exists()
    assert "overdue: to be deleted" in run("backups")


def test_who_is_erased_as_the_backup_begins_is_on_the_list_beside_it(tmp_path, monkeypatch):
    """The rows are those of the first query: whoever is erased from then on is in the backup."""
    enroll("bia", draw_picture((112, 112), seed=3))
    loader = snapshot.MigrationLoader

    def erased_meanwhile(connection):
        made = loader(connection)
        erase("bia")
        return made

    monkeypatch.setattr(snapshot, "MigrationLoader", erased_meanwhile)
    path = tmp_path / "faces.tar"
    run("backup", path)
    record = BackupRecord.objects.get()
    assert record.persons == 1
    assert len(json.loads(corrections.list_beside(path).read_text())) == 2  # she and her picture


def test_who_is_being_erased_as_the_backup_begins_is_not_in_it(tmp_path, monkeypatch):
    """An erasure that is older than the backup, but was not yet committed, is on no list beside it."""
    enroll("bia", draw_picture((112, 112), seed=3))
    path, reads = tmp_path / "faces.tar", threading.Event()
    loader = snapshot.MigrationLoader
    monkeypatch.setattr(snapshot, "MigrationLoader", lambda view: reads.set() or loader(view))

    def back_up():
        run("backup", path)
        connection.close()

    backup = threading.Thread(target=back_up)
    with transaction.atomic():
        erase("bia")
        backup.start()
        assert not reads.wait(0.5), "It reads beside the erasure."
    backup.join(60)
    assert BackupRecord.objects.get().persons == 0


def test_lists_beside_a_backup_that_are_written_at_once_leave_the_newest(file, monkeypatch):
    """Two servers erase: the one that read first writes last."""
    remembered, erased_by_another = erasures.remembered, ["ana"]

    def overtaken(since=None):
        read = remembered(since)
        if erased_by_another:
            erase(erased_by_another.pop())
        return read

    monkeypatch.setattr(erasures, "remembered", overtaken)
    erase("bia")
    listed = json.loads(corrections.list_beside(file).read_text())
    assert len(listed) == 5  # two people, three pictures
    assert set(file.parent.glob("faces.tar*")) == {file, corrections.list_beside(file)}


def test_each_server_lists_what_was_erased_through_others(file):
    """The backup lies on this machine, and the server that erased is on another."""
    thread = BacklogThread()
    thread._list_erased()
    corrections.list_beside(file).unlink()
    thread._list_erased()
    assert not corrections.list_beside(file).exists()  # there is nothing new to write
    with mock.patch.object(erasures, "write_erased_lists"):
        erase("ana")
    assert not corrections.list_beside(file).exists()
    thread._list_erased()
    assert len(json.loads(corrections.list_beside(file).read_text())) == 3


def test_list_that_could_not_be_written_is_written_within_the_hour(file, monkeypatch):
    """Nobody else would be erased for weeks, and a new machine would bring this one back."""
    thread = BacklogThread()
    with monkeypatch.context() as full:
        full.setattr(erasures, "whole_file", _no_room)
        erase("ana")
        thread._list_erased()
    assert json.loads(corrections.list_beside(file).read_text()) == []
    thread._list_erased()
    assert json.loads(corrections.list_beside(file).read_text()) == []  # not every minute
    monkeypatch.setattr(backlog, "LISTS_KEPT", 0.0)
    thread._lists_due = time.monotonic()
    thread._list_erased()
    listed = corrections.list_beside(file).stat()
    assert len(json.loads(corrections.list_beside(file).read_text())) == 3
    thread._list_erased()
    assert corrections.list_beside(file).stat() == listed  # nor again what is there


def _no_room(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_who_was_erased_after_the_backup_is_erased_again(file):
    """Moved, renamed: it is the row and the file that are recognised, not what they were called."""
    moved = FaceImage.objects.filter(person__person_id="bia").get()
    ana = Person.objects.get(person_id="ana")
    corrections.move_pictures([moved.pk], ana)
    corrections.change_person(ana, person_id="ana lima")
    erase("ana lima")
    assert enrolled() == ["bia"] and files() == 0
    output = run("restore", file, "--overwrite")
    assert "Erased again, as they were after the backup: 1 person and 1 picture." in output
    assert enrolled() == ["bia"] and not FaceImage.objects.exists() and files() == 0
    assert stored() == []
    assert BackupRecord.objects.count() == 1
    enroll("ana", draw_picture((112, 112), seed=1))  # a new consent: a new person
    run("restore", file, "--overwrite")
    assert enrolled() == ["bia"]


def test_who_was_merged_into_an_erased_person_does_not_come_back_either(file):
    kept = Person.objects.get(person_id="bia")
    corrections.merge_persons(kept, Person.objects.get(person_id="ana"))
    erase("bia")
    assert "2 people and 0 pictures." in run("restore", file, "--overwrite")
    assert enrolled() == [] and files() == 0


def test_what_the_trash_held_is_erased_again(file):
    corrections.delete_person(Person.objects.get(person_id="ana"))
    second = file.with_name("second.tar")
    run("backup", second)
    corrections.erase_trashed_person("ana")
    for path in (file, second):
        run("restore", path, "--overwrite")
        assert enrolled() == ["bia"] and files() == 1
        assert not TrashItem.objects.exists()


def test_what_was_erased_comes_back_when_it_is_asked_for(file):
    erase("ana")
    run("restore", file, "--overwrite", "--without-erasures")
    assert enrolled() == ["ana", "bia"] and files() == 3
    run("restore", file, "--overwrite")
    assert enrolled() == ["ana", "bia"]


def test_a_new_machine_learns_it_from_the_list_beside_the_backup(file, settings, tmp_path):
    erase("ana")
    listed = corrections.list_beside(file)
    assert listed.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(listed.read_text())) == 3 and "ana" not in listed.read_text()
    key = settings.DATA_DIR / "installation_key"
    assert key.stat().st_mode & 0o777 == 0o600
    empty(settings)
    settings.DATA_DIR = tmp_path / "new"
    settings.DATA_DIR.mkdir()
    with pytest.raises(CommandError, match="noted with the key"):
        run("restore", file)
    assert enrolled() == []
    shutil.copy(key, settings.DATA_DIR)
    assert "1 person and 0 pictures" in run("restore", file)
    assert enrolled() == ["bia"] and files() == 1
    record = BackupRecord.objects.get()
    assert record.file == str(file)
    assert record.keep_until == timezone.localdate() + timedelta(days=settings.BACKUP_KEEP_DAYS)


def test_an_installation_that_tries_out_a_backup_leaves_its_list(file, settings):
    """Its server had written the list anew within the hour, without whom the other had erased since."""
    erase("ana")
    listed = json.loads(corrections.list_beside(file).read_text())
    empty(settings)
    run("restore", file)
    ErasedId.objects.all().delete()  # as before the other erased somebody
    corrections.write_erased_lists()
    assert json.loads(corrections.list_beside(file).read_text()) == listed
    later = file.with_name("later.tar")
    shutil.copy(corrections.list_beside(file), corrections.list_beside(later))
    run("backup", later)
    assert json.loads(corrections.list_beside(later).read_text()) == []  # they are not in it
    erase("bia")
    both = json.loads(corrections.list_beside(file).read_text())
    assert both[:3] == listed and len(both) > 3


def test_an_installation_that_lost_its_key_does_not_bring_anybody_back_unasked(file, settings):
    erase("ana")
    (settings.DATA_DIR / "installation_key").unlink()
    corrections.list_beside(file).unlink()
    with pytest.raises(CommandError, match="noted with the key"):
        run("restore", file, "--overwrite")
    assert enrolled() == ["bia"]
    later = file.with_name("later.tar")
    run("backup", later)  # of nobody who was erased before
    run("restore", later, "--overwrite")
    assert enrolled() == ["bia"]


def test_what_was_noted_with_the_present_key_is_erased_again_beside_a_lost_one(file, settings):
    """Only what cannot be told comes back unasked; said once more, the rest."""
    erase("bia")
    (settings.DATA_DIR / "installation_key").unlink()
    erase("ana")
    run("restore", file, "--overwrite", "--without-erasures")
    assert enrolled() == ["bia"]
    run("restore", file, "--overwrite")
    assert enrolled() == ["bia"]
    run("restore", file, "--overwrite", "--without-erasures")
    assert enrolled() == ["ana", "bia"]


def test_without_the_key_it_must_be_said_aloud(file, settings, tmp_path):
    erase("ana")
    empty(settings)
    settings.DATA_DIR = tmp_path / "new"
    settings.DATA_DIR.mkdir()
    run("restore", file, "--without-erasures")
    assert enrolled() == ["ana", "bia"]


def test_a_damaged_list_stops_the_restore_and_a_missing_one_is_told(file, settings):
    listed = corrections.list_beside(file)
    empty(settings)
    listed.write_text("[{}]")
    with pytest.raises(CommandError, match="is damaged. Nothing was changed"):
        run("restore", file)
    listed.unlink()
    assert "No list of erasures lies beside the backup (faces.tar.erased)" in run("restore", file)


def test_no_backup_holds_the_key(file, settings):
    erase("ana")
    assert ErasedId.objects.count() == 3
    again = file.with_name("second.tar")
    call_command("backup", str(again))
    key = (settings.DATA_DIR / "installation_key").read_bytes()
    body = b"".join(key.splitlines()[1:-1])
    assert body not in again.read_bytes()
