"""`manage.py upgrade` on a data folder that version 1.0 wrote: all of it, or nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from rest_framework.authtoken.models import Token

from enrollment.desk import Ground, erase_by_id
from enrollment.gallery import search_gallery
from enrollment.models import ErasedId, FaceEmbedding, FaceImage, Person
from enrollment.upkeep import safe_copy, upgrades
from enrollment.upkeep.leader import Leadership
from recognition.embedding import embed_uploads
from recognition.networks import find_weights
from recognition.vector_store import get_vector_store, reset_vector_store
from tests.enrollment.gallery import MODEL
from tests.gallery_folder import ROOT, gallery_environment

# Written by commit dd11403, with `migrate`, `createsuperuser`, `drf_create_token` and `enroll` of four drawn
# pictures of three people.
VERSION_1 = Path(__file__).parent.parent / "cases" / "data_of_version_1.0.zip"
OLD_WEIGHTS = "mobilenetv3_large_9ba3a6c31a489788"


@pytest.fixture
def data(tmp_path, settings, weights, django_db_blocker) -> Iterator[Path]:
    """A data folder of version 1.0, which this process uses as its own."""
    folder = tmp_path / "data"
    with zipfile.ZipFile(VERSION_1) as archive:
        archive.extractall(folder)
    settings.DATA_DIR = folder
    settings.MEDIA_ROOT = folder / "media"
    options = settings.STORAGES["default"]["OPTIONS"] | {"location": folder / "media"}
    default = settings.STORAGES["default"] | {"OPTIONS": options}
    settings.STORAGES = settings.STORAGES | {"default": default}
    settings.RECOGNITION |= {"MILVUS_URI": str(folder / "milvus_face.db")}
    reset_vector_store()
    with django_db_blocker.unblock():
        connection.close()
        own = connection.settings_dict["NAME"]
        connection.settings_dict["NAME"] = str(folder / "db.sqlite3")
        yield folder
        reset_vector_store()
        connection.close()
        connection.settings_dict["NAME"] = own
        ContentType.objects.clear_cache()  # of that database


def upgrade(*words: str) -> tuple[str, str]:
    """Return what the command printed, and its error."""
    output = io.StringIO()
    try:
        call_command("upgrade", "--no-progress", *words, stdout=output)
    except CommandError as error:
        return output.getvalue(), str(error)
    return output.getvalue(), ""


def state(data: Path) -> dict[str, Any]:
    """Return every row of SQL, the digest of every picture file, and every vector with its id."""
    connection.close()
    with closing(sqlite3.connect(data / "db.sqlite3")) as database:
        rows = list(database.iterdump())
    files = sorted(path for path in (data / "media").rglob("*") if path.is_file())
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    store = get_vector_store()
    vectors = {name: sorted(map(str, store.iterate(name))) for name in store.partitions()}
    reset_vector_store()
    return {"rows": rows, "files": digests, "vectors": vectors}


def picture(person_id: str) -> bytes:
    with FaceImage.objects.filter(person__person_id=person_id).latest("pk").image.open() as file:
        return file.read()


def test_version_1_is_migrated_embedded_again_and_found(data):
    before = state(data)
    assert list(before["vectors"]) == ["cosface_resnet50_82d39c6f61948d8f", OLD_WEIGHTS]
    output, error = upgrade()
    assert error == ""
    assert "Embedded, and found by searches: 4 pictures." in output
    assert "This is version 2." in output
    assert set(Person.objects.values_list("person_id", flat=True)) == {
        "529.982.247-25",
        "João",
        "ana",
    }
    embeddings = embed_uploads([picture("ana")], MODEL)[1]
    ((hit,),) = search_gallery(embeddings, 1)
    assert hit.person.person_id == "ana" and hit.similarity > 0.99
    fingerprint = find_weights(MODEL).fingerprint
    assert FaceEmbedding.objects.filter(model=MODEL).count() == 4
    assert FaceEmbedding.objects.filter(fingerprint=fingerprint, status="indexed").count() == 4
    assert OLD_WEIGHTS not in get_vector_store().partitions()
    assert Token.objects.count() == 1
    assert state(data)["files"] == before["files"]
    assert upgrade()[0].startswith("This is version 2.")  # there is nothing left to do


@pytest.mark.parametrize("more", [{"NO_FACE_POLICY": "error"}, {"DETECTOR": "none"}])
def test_server_that_demands_a_face_or_looks_for_none_is_upgraded(data, settings, more):
    """Nothing is enrolled with the new weights yet, so a drawn picture is tried, without a face."""
    settings.RECOGNITION = settings.RECOGNITION | more
    assert upgrade("--no-reindex")[1] == ""


def test_undone_upgrade_leaves_what_was(data):
    before = state(data)
    upgrade("--no-reindex")
    assert FaceEmbedding.objects.count() == 8
    Person.objects.create(person_id="came since")
    assert "Now go back to the earlier version" in upgrade("--undo")[0]
    assert state(data) == before
    assert "There is no copy to put back" in upgrade("--undo")[1]


def test_nobody_erased_comes_back_when_an_upgrade_is_undone_before_a_server_ran(data):
    upgrade("--no-reindex")
    erase_by_id("ana", Ground.REQUEST)
    assert "or until somebody is erased" in upgrade("--undo")[1]
    assert not Person.objects.filter(person_id="ana").exists()
    assert not (data / "upgrade" / "previous").exists()


def a_table_is_in_the_way(data: Path) -> str:
    """Break the fourth migration of several: those before it are written by then."""
    with closing(sqlite3.connect(data / "db.sqlite3")) as database:
        database.execute("CREATE TABLE enrollment_accesstoken (id integer)")
    return "already exists"


def pictures_cannot_be_read(data: Path) -> str:
    """Break the embedding, after the migrations were found to be good."""
    for file in (data / "media").rglob("*.jpg"):
        file.write_bytes(b"no picture")
    return "Of 4 pictures that were found before, only 0 would be."


def rows_are_lost(data: Path) -> str:
    """Have a migration lose a row, by a trigger on a table that it changes."""
    with closing(sqlite3.connect(data / "db.sqlite3")) as database:
        database.execute(
            "CREATE TRIGGER lose AFTER INSERT ON django_migrations BEGIN"
            " DELETE FROM enrollment_faceembedding WHERE id = 1; END"
        )
        database.commit()
    return "There were"


@pytest.mark.parametrize(
    "cause",
    [a_table_is_in_the_way, pictures_cannot_be_read, rows_are_lost],
    ids=lambda cause: cause.__name__,
)
def test_failed_upgrade_leaves_rows_files_and_vectors_as_they_were(data, cause):
    reason = cause(data)
    before = state(data)
    _output, error = upgrade()
    assert reason in error and "everything was put back as it was before" in error
    assert state(data) == before
    assert not (data / "upgrade" / "unfinished").exists()


def test_what_cannot_work_is_told_before_anything_is_touched(data, no_weights):
    before = state(data)
    _output, error = upgrade()
    assert "has no weights on this server" in error
    assert state(data) == before
    assert not (data / "upgrade").exists()


def test_full_disk_is_told_before_anything_is_touched(data, monkeypatch):
    before = state(data)
    room = type("Room", (), {"free": 100_000})
    monkeypatch.setattr(safe_copy.shutil, "disk_usage", lambda _path: room)
    assert "Make space there" in upgrade()[1]
    assert state(data) == before


@pytest.mark.parametrize("part", ["SQL", "vectors"])
def test_disk_that_fills_up_during_the_copy_leaves_everything_as_it_was(data, monkeypatch, part):
    """SQLite's own error was a traceback, and half a copy stayed: a quota is not seen before."""
    before = state(data)
    with monkeypatch.context() as full:
        if part == "SQL":
            full.setattr(safe_copy.sqlite3, "connect", _full_database)
        else:
            full.setattr(safe_copy.shutil, "copytree", _no_space)
        error = upgrade()[1]
    assert "cannot be made in DATA_DIR" in error and "Nothing was changed" in error
    assert list((data / "upgrade").iterdir()) == [] and state(data) == before


def _full_database(*paths: Path) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_disk_that_fills_up_during_a_migration_needs_more_room_than_it_seems(data, monkeypatch):
    """It was to be mended, and had room again as soon as everything was put back."""
    monkeypatch.setattr(upgrades, "_run_migrations", _full_database)
    error = upgrade()[1]
    assert "everything was put back" in error and "more room on the disk of DATA_DIR" in error


def test_upgrade_beside_a_running_server_is_refused(data):
    """With a Milvus server nothing had told of it; put back, the databases lost what it wrote meanwhile."""
    server, before = Leadership(), state(data)
    assert server.held()
    for words in ((), ("--undo",)):
        assert "A server of this installation is running" in upgrade(*words)[1]
    assert state(data) == before
    server.give_up()
    assert not upgrade()[1]


@pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="only Linux tells who waits for a lock"
)
def test_second_upgrade_waits_for_the_first(data, monkeypatch):
    """It took the first for one that was cut off, and put everything back beneath it."""
    data.chmod(0o700)
    second = []

    def migrate() -> None:
        command = [sys.executable, "manage.py", "upgrade", "--no-progress"]
        same = gallery_environment(data)
        process = subprocess.Popen(command, cwd=ROOT, env=same, stderr=subprocess.PIPE, text=True)
        second.append(process)
        waits = re.compile(rf"-> FLOCK .* {process.pid} ")
        while process.poll() is None and not waits.search(Path("/proc/locks").read_text()):
            time.sleep(0.1)
        run_migrations()

    run_migrations = upgrades._run_migrations
    monkeypatch.setattr(upgrades, "_run_migrations", migrate)
    assert upgrade()[1] == ""
    (process,) = second
    assert (process.communicate()[1], process.returncode) == ("", 0)
    assert [place.name for place in (data / "upgrade").iterdir()] == ["previous"]


def test_migration_that_was_cut_off_is_put_back_and_done_anew(data):
    safe_copy.make()
    call_command("migrate", "enrollment", "0012", verbosity=0)
    with pytest.raises(CommandError, match="cut off"):
        call_command("serve")
    output, error = upgrade()
    assert error == ""
    assert "cut off. Everything is put back first." in output
    assert "found by searches: 4 pictures" in output


@pytest.mark.parametrize("app", ["auth", "enrollment"])
def test_first_start_that_was_cut_off_goes_on(data, app):
    connection.close()
    (data / "db.sqlite3").unlink()
    call_command("migrate", app, "0001", verbosity=0)
    output, error = upgrade("--no-reindex")
    assert error == "" and "Migrated and checked" in output
    assert Person.objects.count() == Token.objects.count() == 0


def test_copy_that_cannot_be_put_back_yet_is_told_and_put_back_by_the_next_upgrade(
    data, monkeypatch
):
    before = state(data)
    a_table_is_in_the_way(data)
    with monkeypatch.context() as full:
        full.setattr(safe_copy.shutil, "copy2", _no_space)
        _output, error = upgrade()
    assert "already exists" in error
    assert "Nor could everything be put back yet: OSError: [Errno 28]" in error
    assert "more room on the disk" in error
    with monkeypatch.context() as full:
        full.setattr(safe_copy.shutil, "copy2", _no_space)
        again = upgrade()[1]
    assert "The copy is whole, in DATA_DIR/upgrade" in again and "more room on the disk" in again
    with closing(sqlite3.connect(data / "upgrade" / "unfinished" / "db.sqlite3")) as database:
        database.execute("DROP TABLE enrollment_accesstoken")
    output, error = upgrade()
    assert error == "" and "Everything is put back first" in output
    assert state(data)["files"] == before["files"]
    assert Person.objects.count() == 3


def _no_space(*paths: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_embedding_that_was_cut_off_goes_on(data, monkeypatch):
    with monkeypatch.context() as interrupted:
        interrupted.setattr("enrollment.upkeep.upgrades.reconcile", _interrupt)
        assert "Run it again" in upgrade()[1]
    assert safe_copy.is_migrated()
    output, error = upgrade()
    assert error == "" and "Copied" not in output
    assert "found by searches: 4 pictures" in output
    assert not safe_copy.is_unfinished()


def _interrupt(**options: Any) -> None:
    raise KeyboardInterrupt


def test_server_start_migrates_and_leaves_the_embedding(data):
    output, error = upgrade("--no-reindex")
    assert error == ""
    assert "Migrated and checked" in output and "found by searches" not in output
    assert FaceEmbedding.objects.filter(model=MODEL).count() == 4
    assert upgrade("--no-reindex") == ("", "")


def test_start_leaves_the_warnings_to_the_server_and_tells_errors(data, settings):
    """Each start had shown the warnings twice: of `upgrade`, and of `serve`."""
    data.chmod(0o755)
    said = io.StringIO()
    call_command("upgrade", "--no-reindex", skip_checks=False, stdout=said, stderr=said)
    assert "enrollment.W001" not in said.getvalue()
    settings.DATA_DIR = data / "db.sqlite3" / "below a file"
    with pytest.raises(SystemCheckError, match=r"enrollment\.E001"):
        call_command("upgrade", "--no-reindex", skip_checks=False)


def test_copy_is_deleted_when_somebody_is_erased(data):
    upgrade("--no-reindex")
    safe_copy.forget_old_copies()
    copy = data / "upgrade" / "previous"
    assert copy.exists()
    ErasedId.objects.create(digest="d", key="k")
    safe_copy.forget_old_copies()
    assert not copy.exists()


def assert_deleted_after(seconds: float, copy: Path) -> None:
    safe_copy.forget_old_copies()
    assert copy.exists()
    then = time.time() - seconds - 60
    os.utime(copy, (then, then))
    safe_copy.forget_old_copies()
    assert not copy.exists()


def test_copy_that_was_cut_off_is_deleted_after_a_day(data):
    making = data / "upgrade" / "making"
    making.mkdir(parents=True)
    (making / "db.sqlite3").write_bytes(b"faces")
    assert_deleted_after(safe_copy.MAKING_TAKES, making)


def test_copy_is_deleted_after_a_week(data):
    upgrade("--no-reindex")
    assert (data / "upgrade").stat().st_mode & 0o077 == 0
    assert_deleted_after(safe_copy.KEPT_SECONDS, data / "upgrade" / "previous")
