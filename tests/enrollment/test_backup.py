"""`manage.py backup` and `restore`: all answers are the same afterwards, or nothing was changed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone
from rest_framework.authtoken.models import Token

from enrollment import corrections
from enrollment.backups import archive, contents, restoration, snapshot
from enrollment.corrections import delete_person, erase_item, restore
from enrollment.enrolling import job_folder
from enrollment.gallery.selectors import search_gallery
from enrollment.models import (
    BackupRecord,
    Doubt,
    FaceEmbedding,
    FaceImage,
    IdempotentRequest,
    ImportJob,
    Person,
    Removal,
    TrashedPart,
    TrashItem,
)
from enrollment.upkeep.leader import Leadership
from enrollment.upkeep.reconciliation import reconcile
from recognition.embedding import Embeddings
from recognition.networks import find_weights
from recognition.networks.loader import unload_networks
from recognition.private_file import whole_file
from recognition.vector_store import get_vector_store, reset_vector_store
from tests.commands import run
from tests.enrollment import gallery as galleries
from tests.enrollment.gallery import MODEL, stored
from tests.enrollment.holder import held_by_another_process
from tests.pictures import draw_picture

pytestmark = pytest.mark.django_db(transaction=True)

ODD_NAME = "Ana\u2028d'Água\x85 'x' \\ 😀"


def enroll(person_id: str, *contents: bytes, **options: object) -> None:
    galleries.enroll(person_id, *contents, use_face_detection=False, **options)


@pytest.fixture
def gallery(weights) -> None:
    """Three pictures of two persons, an account with a token and rights."""
    enroll("ana", *(draw_picture(seed=seed) for seed in (1, 2)), name=ODD_NAME)
    enroll("bia", draw_picture(seed=3))
    user = User.objects.create_user("operator", password="a long pass phrase")
    group = Group.objects.create(name="Operators")
    group.permissions.add(Permission.objects.get(codename="add_person"))
    user.groups.add(group)
    Token.objects.create(user=user)


@pytest.fixture
def file(gallery, tmp_path: Path) -> Path:
    path = tmp_path / "faces.tar"
    run("backup", path)
    return path


def test_idempotency_keys_survive_for_the_same_accounts_only(gallery, settings, tmp_path):
    operator = User.objects.get(username="operator")
    for owner, status in (("", 200), (str(operator.pk), None), (str(operator.pk + 1), 200)):
        IdempotentRequest.objects.create(
            owner=owner, key="k", digest="d", started_at=timezone.now(), status=status
        )
    keys = {row.owner: row.upload_key(0) for row in IdempotentRequest.objects.all()}
    run("backup", tmp_path / "faces.tar")
    empty(settings)
    run("restore", tmp_path / "faces.tar")
    rows = {row.owner: row for row in IdempotentRequest.objects.all()}
    assert set(rows) == {"", str(operator.pk)}  # the next account may get the number of the third
    assert rows[str(operator.pk)].started_at is None  # nobody carries it out here
    assert all(row.upload_key(0) == keys[owner] for owner, row in rows.items())


def empty(settings) -> None:
    """A new installation with empty tables."""
    call_command("flush", interactive=False, verbosity=0)
    reset_vector_store()
    shutil.rmtree(settings.RECOGNITION["MILVUS_URI"], ignore_errors=True)
    shutil.rmtree(settings.MEDIA_ROOT, ignore_errors=True)


def answers() -> list[list[tuple]]:
    """Return what a search answers for each enrolled picture and for a stranger."""
    probes = [row.array for row in FaceEmbedding.objects.order_by("pk")]
    probes.append(sum(probes))
    fingerprint = find_weights(MODEL).fingerprint
    found = [search_gallery(Embeddings(vector[None], MODEL, fingerprint), 10) for vector in probes]
    return [
        [
            (
                hit.id,
                round(hit.similarity, 5),
                hit.decision,
                hit.person.name,
                hit.face_image.image.name,
            )
            for hit in hits
        ]
        for (hits,) in found
    ]


def everything() -> dict[str, object]:
    """All rows, files and vectors."""
    root = Path(default_storage.location)
    rows = {
        model._meta.label: sorted(model._base_manager.values_list(), key=str)
        for model in [*contents.backed_up_models(), Removal]
    }
    return {
        "rows": rows,
        "files": {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()},
        "vectors": stored(),
    }


def test_backup_that_fails_as_it_is_closed_leaves_no_file(gallery, tmp_path, monkeypatch):
    """A full disk, or one across the network, may show only then."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("recognition.private_file.os.fsync", full)
        with pytest.raises(CommandError, match="No space left"):
            run("backup", tmp_path / "faces.tar")
    assert list(tmp_path.glob("faces.tar*")) == []


def test_restore_brings_its_weights_into_a_folder_that_is_not_there(
    file, settings, tmp_path, monkeypatch
):
    """A new machine has none: that is no reason to refuse what brings them."""
    before = answers()
    name = find_weights(MODEL).path.name
    empty(settings)
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path / "new" / "weights"}
    with monkeypatch.context() as patch:
        patch.setattr(restoration.shutil, "copyfileobj", _no_space)
        assert f"The weights {name} could not be written" in run("restore", file)
    assert list((tmp_path / "new" / "weights").iterdir()) == []
    call_command("restore", file, "--overwrite", skip_checks=False)
    assert (tmp_path / "new" / "weights" / name).exists()
    assert answers() == before


def _no_space(*files: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_pictures_in_the_trash_are_not_counted_as_the_peoples(gallery, settings, tmp_path):
    delete_person(Person.objects.get(person_id="bia"))
    assert "1 person, 2 pictures" in run("backup", tmp_path / "faces.tar")
    empty(settings)
    assert "1 person, 2 pictures and 2 embeddings restored" in run(
        "restore", tmp_path / "faces.tar"
    )


def test_restored_installation_answers_the_same(file, settings, monkeypatch) -> None:
    before, pictures = answers(), everything()["files"]
    token = Token.objects.get().key
    empty(settings)
    assert not Person.objects.exists() and stored() == []
    with monkeypatch.context() as patch:
        patch.setattr("recognition.embedding.get_queue", None)  # no network may run
        output = run("restore", file)
    assert "2 people, 3 pictures and 3 embeddings restored; 3 can be searched." in output

    assert answers() == before
    assert everything()["files"] == pictures
    user = Token.objects.get(key=token).user
    assert user.check_password("a long pass phrase")
    assert user.has_perm("enrollment.add_person")
    assert Person.objects.get(person_id="ana").name == ODD_NAME
    assert reconcile(mend=False).found == {}
    enroll("carla", draw_picture(seed=4))
    assert FaceImage.objects.count() == 4


def test_rows_keep_their_times_and_ids(file, settings) -> None:
    def rows() -> list:
        fields = ("pk", "created_at", "face_image__created_at", "face_image__person__updated_at")
        return list(FaceEmbedding.objects.order_by("pk").values_list(*fields, "vector", "face"))

    before = rows()
    empty(settings)
    run("restore", file)
    assert rows() == before


def test_backup_is_private_and_can_be_checked_with_common_tools(file, tmp_path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.part"))
    folder = tmp_path / "opened"
    with tarfile.open(file) as tar:
        tar.extractall(folder, filter="data")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    listed = (folder / "SHA256SUMS").read_text().splitlines()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(listed) == len(files) - 1 == json.loads(run("restore", "--check", file).split()[0])
    assert (folder / "weights" / find_weights(MODEL).path.name).exists()


def test_backup_never_replaces_a_file(file) -> None:
    content = file.read_bytes()
    with pytest.raises(CommandError, match="is there already"):
        run("backup", file)
    assert file.read_bytes() == content


def test_backup_into_a_missing_folder_says_so(gallery, tmp_path) -> None:
    with pytest.raises(CommandError, match="cannot be written: No such file"):
        run("backup", tmp_path / "absent" / "faces.tar")


def test_interrupted_backup_leaves_no_file(gallery, tmp_path, monkeypatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(snapshot, "_add_rows", interrupted)
    with pytest.raises(CommandError, match="No backup was made"):
        run("backup", tmp_path / "faces.tar")
    assert not list(tmp_path.glob("faces*"))


# While others write


def while_backing_up(monkeypatch, others: Callable[[], object]) -> None:
    """Run `others` in another thread once the snapshot is taken."""
    add_pictures = snapshot._add_pictures

    def interposed(*arguments: object) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            from django.db import connections

            try:
                others()
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
            finally:
                connections.close_all()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert failures == []
        add_pictures(*arguments)

    monkeypatch.setattr(snapshot, "_add_pictures", interposed)


def test_backup_is_of_one_moment_and_keeps_nobody_waiting(
    gallery, settings, tmp_path, monkeypatch
) -> None:
    def others() -> None:
        enroll("late", draw_picture(seed=9))
        Person.objects.filter(person_id="bia").update(name="renamed later")

    while_backing_up(monkeypatch, others)
    before = answers()
    run("backup", tmp_path / "faces.tar")
    assert Person.objects.filter(person_id="late").exists()
    empty(settings)
    run("restore", tmp_path / "faces.tar")
    assert answers() == before
    assert not Person.objects.filter(person_id="late").exists()
    assert len(everything()["files"]) == 3


def test_picture_deleted_meanwhile_is_left_out(gallery, settings, tmp_path, monkeypatch) -> None:
    while_backing_up(monkeypatch, lambda: Person.objects.get(person_id="bia").delete())
    assert "lacks the files" not in run("backup", tmp_path / "faces.tar")
    empty(settings)
    run("restore", tmp_path / "faces.tar")
    assert {row.person_id for row in stored()} == {"ana"}
    assert reconcile(mend=False).found == {}


def test_the_trash_comes_along_and_is_restored(gallery, settings, tmp_path) -> None:
    before = answers()
    highest = Person.objects.order_by("pk").last()
    item = delete_person(highest).undo
    run("backup", tmp_path / "faces.tar")
    empty(settings)
    assert "1 person" in run("restore", tmp_path / "faces.tar")
    assert reconcile(mend=True).deleted_files == 0  # those of the trash are no leftovers
    assert Person.objects.create(person_id="new").pk > highest.pk  # whose key is still theirs
    restore(item)
    assert answers() == before
    assert reconcile(mend=False).found == {}


def test_an_item_of_the_trash_that_is_erased_meanwhile_is_left_out(
    gallery, settings, tmp_path, monkeypatch
) -> None:
    item = delete_person(Person.objects.get(person_id="bia")).undo
    while_backing_up(monkeypatch, lambda: erase_item(item.pk))
    run("backup", tmp_path / "faces.tar")
    empty(settings)
    run("restore", tmp_path / "faces.tar")
    assert not TrashItem.objects.exists() and not TrashedPart.objects.exists()


@pytest.mark.parametrize("content", ["", '{"model": "auth.user", "pk": 9, "fields": {}}', "{"])
def test_what_the_trash_would_restore_is_checked(gallery, settings, tmp_path, content) -> None:
    delete_person(Person.objects.get(person_id="bia"))
    part = TrashedPart.objects.exclude(picture_pk=None).get()
    TrashedPart.objects.filter(pk=part.pk).update(
        content=content or part.content, file=part.file if content else "pictures/none.jpg"
    )
    path = tmp_path / "faces.tar"
    run("backup", path)
    empty(settings)
    with pytest.raises(CommandError, match="altered"):
        run("restore", path)


def test_picture_that_the_storage_lost_is_told_and_its_vector_kept(
    file, settings, tmp_path
) -> None:
    before = answers()
    lost = FaceImage.objects.first()
    lost.image.storage.delete(lost.image.name)
    output = run("backup", tmp_path / "second.tar")
    assert "lacks the files of 1 picture" in output
    empty(settings)
    run("restore", tmp_path / "second.tar")
    assert answers() == before


# What is refused


def entry_offsets(file: Path) -> dict[str, tuple[int, int]]:
    """Return where the header and the content of each entry begin."""
    with tarfile.open(file) as tar:
        return {info.name: (info.offset, info.offset_data) for info in tar}


def test_any_damaged_entry_is_refused_and_nothing_written(file, settings) -> None:
    empty(settings)
    before = everything()
    whole = file.read_bytes()
    for name, (header, content) in entry_offsets(file).items():
        for position in (header + 3, content):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            file.write_bytes(damaged)
            with pytest.raises(CommandError, match="Use another backup"):
                run("restore", file)
            with pytest.raises(CommandError, match="Use another backup"):
                run("restore", "--check", file)
            assert everything() == before, name
    file.write_bytes(whole)
    assert "3 can be searched" in run("restore", file)


def test_damaged_picture_is_named(file) -> None:
    name, (_header, content) = next(
        item for item in entry_offsets(file).items() if item[0].startswith("files/")
    )
    with file.open("r+b") as damaged:
        damaged.seek(content + 100)
        damaged.write(b"\0\0\0\0")
    with pytest.raises(CommandError, match=name):
        run("restore", "--check", file)


def test_cut_off_backup_is_refused(file, settings) -> None:
    empty(settings)
    header, content = entry_offsets(file)[archive.SUMS]
    for length in (content + 100, content, header, header // 2, 0):
        os.truncate(file, length)
        with pytest.raises(CommandError, match="Use another backup"):
            run("restore", file)
    assert not Person.objects.exists()


def test_entry_after_the_sums_is_refused(file) -> None:
    """No checksum covers it; it used to be restored all the same."""
    with tarfile.open(file, "a") as tar:
        tar.addfile(tarfile.TarInfo("files/pictures/smuggled.jpg"))
    with pytest.raises(CommandError, match="Use another backup"):
        run("restore", "--check", file)


@pytest.mark.parametrize("name", ["absent.tar", "text.tar", "other.tar", ""])
def test_what_is_no_backup_is_refused(db, tmp_path, name: str) -> None:
    path = tmp_path / name
    if name == "text.tar":
        path.write_text("hello " * 1000)
    if name == "other.tar":
        with whole_file(path) as to, archive.new_archive(to) as other:
            other.add("letter.txt", b"hello")
    with pytest.raises(CommandError, match="backup|cannot be read"):
        run("restore", path)


def test_imports_that_a_backup_caught_unfinished_are_told_to_have_no_files(
    gallery, settings, tmp_path
) -> None:
    """They were shown to be in progress, or to wait for somebody, for a day."""
    for label, state in (("begun", "running"), ("resting", "paused"), ("done", "done")):
        now = timezone.now()
        ends = {"finished_at": now} if state == "done" else {}
        ImportJob.objects.create(label=label, state=state, started_at=now, **ends)
    ImportJob.objects.create(label="unconfirmed", state="ready")
    here = ImportJob.objects.create(label="here", state="paused", started_at=timezone.now())
    job_folder(here).mkdir(parents=True)
    run("backup", tmp_path / "faces.tar")
    empty(settings)
    run("restore", tmp_path / "faces.tar")
    states = dict(ImportJob.objects.values_list("label", "state"))
    assert states == {"begun": "failed", "resting": "failed", "done": "done", "here": "paused"}
    assert "Upload them again" in ImportJob.objects.get(label="begun").error


def test_a_server_that_cannot_lock_leads_all_the_same(settings, data_folder) -> None:
    (settings.DATA_DIR / "serving").mkdir()
    assert Leadership().held()


def test_restore_beside_a_running_server_is_refused(file, settings) -> None:
    """With SQLite and a Milvus server nothing had told of it, and all was deleted beneath it."""
    server = Leadership()
    assert server.held()
    with pytest.raises(CommandError, match="A server of this installation is running"):
        run("restore", file, "--overwrite")
    server.give_up()
    run("restore", file, "--overwrite")


@pytest.mark.parametrize("work", ["db_worker", "watch"])
def test_restore_beside_a_worker_is_refused(work, file, tmp_path, settings, monkeypatch) -> None:
    """All was deleted beneath a worker, and beneath the import of a watched folder."""
    refused = []

    def run_beside(*_args: object) -> None:
        with pytest.raises(CommandError, match="or a worker, or"):
            run("restore", file, "--overwrite")
        refused.append(work)

    settings.TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    (tmp_path / "in").mkdir()
    monkeypatch.setattr("django_tasks_db.management.commands.db_worker.Worker.run", run_beside)
    monkeypatch.setattr("enrollment.management.commands.watch.Command._look", run_beside)
    call_command(*(["db_worker"] if work == "db_worker" else ["watch", tmp_path / "in", "--once"]))
    assert refused == [work]
    run("restore", file, "--overwrite")


def test_of_two_backups_to_one_name_the_first_stays(
    gallery, settings, tmp_path, monkeypatch
) -> None:
    """The second one had taken the first one's unfinished file away, and both ended without a backup."""
    path = tmp_path / "faces.tar"
    add_documents = snapshot._add_documents

    def as_another_command_does() -> None:
        run("backup", path)
        connections.close_all()

    def while_another_begins_and_ends(writer: archive.ArchiveWriter) -> None:
        monkeypatch.setattr(snapshot, "_add_documents", add_documents)
        other = threading.Thread(target=as_another_command_does)
        other.start()
        other.join()
        add_documents(writer)

    monkeypatch.setattr(snapshot, "_add_documents", while_another_begins_and_ends)
    with pytest.raises(CommandError, match="is there already"):
        run("backup", path)
    assert {*tmp_path.glob("faces.tar*")} == {path, corrections.list_beside(path)}
    assert BackupRecord.objects.count() == 1
    empty(settings)
    run("restore", path)
    assert FaceImage.objects.count() == 3


def rewritten(file: Path, **changes: object) -> Path:
    """Return the same backup with another manifest and correct checksums."""
    path = file.with_name("rewritten.tar")
    path.unlink(missing_ok=True)
    with whole_file(path) as to, archive.new_archive(to) as writer:
        for entry in archive.read_entries(file):
            content = entry.content
            if entry.name == contents.MANIFEST:
                content = json.dumps(json.loads(content) | changes).encode()
            writer.add(entry.name, content)
    return path


def test_newer_backups_are_refused(file, settings) -> None:
    migrations = json.loads(next(archive.read_entries(file)).content)["migrations"]
    later = migrations | {"enrollment": [*migrations["enrollment"], "9999_later"]}
    other = migrations | {"billing": ["0001_initial"]}
    empty(settings)
    for changes in (
        {"format": 2},
        {"format": 2, "unknown": 1},
        {"migrations": later},
        {"migrations": other},
    ):
        with pytest.raises(CommandError, match="newer version.*'git pull'"):
            run("restore", rewritten(file, **changes))
    assert not Person.objects.exists()
    run("restore", rewritten(file))
    assert Person.objects.count() == 2


def test_backup_from_before_a_migration_that_computes_is_refused(
    file, settings, monkeypatch
) -> None:
    from django.db import migrations

    changed = json.loads(next(archive.read_entries(file)).content)["migrations"]
    last = changed["enrollment"].pop()
    empty(settings)
    path = rewritten(file, migrations=changed)
    loader = restoration.MigrationLoader(None)
    loader.disk_migrations["enrollment", last].operations.append(migrations.RunSQL("SELECT 1"))
    monkeypatch.setattr(restoration, "MigrationLoader", lambda _connection: loader)
    with pytest.raises(CommandError, match="version that made it"):
        run("restore", path)
    assert not Person.objects.exists()


def test_backup_from_before_ids_had_one_spelling_is_made_tidy(file, settings) -> None:
    changed = json.loads(next(archive.read_entries(file)).content)["migrations"]
    changed["enrollment"] = [
        name for name in changed["enrollment"] if not name.startswith(("0011", "0012"))
    ]
    path = file.with_name("older.tar")
    with whole_file(path) as to, archive.new_archive(to) as writer:
        for entry in archive.read_entries(file):
            content = entry.content
            if entry.name == "manifest.json":
                content = json.dumps(json.loads(content) | {"migrations": changed}).encode()
            if entry.name.startswith("rows/enrollment.person/"):
                rows = [json.loads(line) for line in content.decode().split("\n") if line]
                for row in rows:
                    for name in ("id_key", "name_key", "search_text"):
                        del row["fields"][name]
                    row["fields"]["person_id"] += "a\u0303\u200b"
                content = "".join(json.dumps(row) + "\n" for row in rows).encode()
            writer.add(entry.name, content)
    empty(settings)
    run("restore", path)
    people = Person.objects.all()
    assert people and all(person.person_id.endswith("\u00e3") for person in people)
    assert all(person.search_text for person in people)


def test_a_backup_of_version_1_0_is_restored_with_its_groups(settings, tmp_path) -> None:
    """Used to be refused, because a later migration grants permissions for the new tokens."""
    managers = Group.objects.create(name="Managers")
    managers.permissions.add(
        *Permission.objects.filter(codename__in=["view_tokenproxy", "add_tokenproxy"])
    )
    Group.objects.create(name="Others")
    enroll("ana", draw_picture())
    run("backup", tmp_path / "new.tar")
    file = tmp_path / "new.tar"
    migrations = json.loads(next(archive.read_entries(file)).content)["migrations"]
    enrollment = [name for name in migrations["enrollment"] if name < "0010"]
    path = rewritten(file, migrations=migrations | {"enrollment": enrollment})

    def held(name: str) -> set[str]:
        permissions = Group.objects.get(name=name).permissions
        return set(permissions.values_list("codename", flat=True))

    for restored, expected in (
        (path, {"view_tokenproxy", "add_tokenproxy", "view_accesstoken", "add_accesstoken"}),
        (file, {"view_tokenproxy", "add_tokenproxy"}),  # of this version: as they were
    ):
        empty(settings)
        Group.objects.all().delete()
        run("restore", restored)
        assert held("Managers") == expected and held("Others") == set()
        assert "ana" in Person.objects.get().search_text


def test_rows_that_do_not_fit_leave_nothing(file, settings) -> None:
    path = file.with_name("odd.tar")
    with whole_file(path) as to, archive.new_archive(to) as writer:
        for entry in archive.read_entries(file):
            content = entry.content.replace(b'"content_hash"', b'"renamed_field"')
            writer.add(entry.name, content)
    empty(settings)
    before = everything()
    with pytest.raises(CommandError, match="too old.*renamed_field"):
        run("restore", path)
    assert everything() == before


@pytest.mark.parametrize("holder", ["account", "person"])
def test_installation_that_holds_something_is_left_alone(file, settings, holder: str) -> None:
    empty(settings)
    if holder == "account":
        User.objects.create_user("me")
    else:
        enroll("carla", draw_picture(seed=4))
    before = everything()
    with pytest.raises(CommandError, match="not empty: 1 .*--overwrite"):
        run("restore", file)
    assert everything() == before


def test_overwrite_replaces_everything(file, settings) -> None:
    before = answers()
    pictures = everything()["files"]
    empty(settings)
    enroll("carla", draw_picture(seed=4), draw_picture(seed=5))
    User.objects.create_user("me")
    run("restore", "--overwrite", file)
    assert answers() == before
    assert everything()["files"] == pictures
    assert [user.username for user in User.objects.all()] == ["operator"]
    assert reconcile(mend=False).found == {}


def test_overwrite_of_the_same_installation_undoes_what_came_after(file) -> None:
    before = answers()
    Person.objects.get(person_id="bia").delete()
    enroll("late", draw_picture(seed=9))
    damaged = FaceImage.objects.first()
    Path(damaged.image.path).write_bytes(b"damaged")
    run("restore", "--overwrite", file)
    assert answers() == before
    assert reconcile(mend=False).found == {}
    assert damaged.image.read() != b"damaged"


def test_running_server_keeps_its_gallery(file, settings) -> None:
    empty(settings)
    get_vector_store().ping()
    reset_vector_store()
    with (
        held_by_another_process(settings.RECOGNITION["MILVUS_URI"]),
        pytest.raises(CommandError, match="open in another process"),
    ):
        run("restore", file)
    assert not Person.objects.exists()
    assert "3 can be searched" in run("restore", file)


# What is cut off


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("step", "failure"),
    [("_restore_file", FULL), ("_load", KeyboardInterrupt), ("_reset_sequences", FULL)],
)
def test_interrupted_restore_leaves_the_old_installation(
    file, settings, monkeypatch, step: str, failure: BaseException
) -> None:
    empty(settings)
    enroll("carla", draw_picture(seed=4))
    before = everything()
    real, calls = getattr(restoration, step), []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2 or step == "_reset_sequences":
            raise failure
        return real(*arguments)

    monkeypatch.setattr(restoration, step, interrupted)
    with pytest.raises((CommandError, OSError), match="Interrupted|No space"):
        run("restore", "--overwrite", file)
    assert everything() == before
    monkeypatch.undo()
    assert "3 can be searched" in run("restore", "--overwrite", file)
    assert reconcile(mend=False).found == {}


def test_restore_cut_off_before_milvus_is_finished_by_reindex(file, settings, monkeypatch) -> None:
    before = answers()
    empty(settings)

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoration, "_index", killed)
    with pytest.raises(CommandError, match="reindex --check"):
        run("restore", file)
    assert "3 embeddings indexed" in run("reindex")
    assert answers() == before


def test_old_vectors_in_milvus_are_never_taken_for_restored_people(file, settings) -> None:
    """Milvus holds vectors of another gallery, whose ids belong to other people here."""
    before = answers()
    call_command("flush", interactive=False, verbosity=0)
    get_vector_store().clear()
    shutil.rmtree(settings.MEDIA_ROOT)
    for number in range(4):
        enroll(f"other {number}", draw_picture(seed=f"other {number}"))
    Doubt.objects.all()._raw_delete("default")
    FaceEmbedding.objects.all()._raw_delete("default")
    FaceImage.objects.all()._raw_delete("default")
    Person.objects.all()._raw_delete("default")
    assert len(stored()) == 4
    with pytest.raises(CommandError, match="not empty: 4 vectors in Milvus.*MILVUS_URI"):
        run("restore", file)
    assert len(stored()) == 4
    run("restore", "--overwrite", file)
    assert answers() == before
    assert len(stored()) == 3


# Weights


def test_own_weights_come_along_and_others_are_never_replaced(gallery, settings, tmp_path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    shutil.copy(find_weights(MODEL).path, theirs)
    (theirs / f"{find_weights(MODEL).path.name}.json").write_text('{"sha256": "x"}')
    ours.mkdir()
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": theirs}
    run("backup", tmp_path / "faces.tar")
    before = answers()
    empty(settings)
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": ours}
    unload_networks()

    assert "not in use here" not in run("restore", tmp_path / "faces.tar")
    assert answers() == before
    assert sorted(path.name for path in ours.iterdir()) == sorted(
        path.name for path in theirs.iterdir()
    )

    name = find_weights(MODEL).path.name
    (ours / name).write_bytes(b"other weights")
    assert "3 vectors of mobilenetv3_large were made with weights that are not in use here" in run(
        "restore", "--overwrite", tmp_path / "faces.tar"
    )
    assert (ours / name).read_bytes() == b"other weights"


# A folder of its own, as an administrator does it


def test_new_folder_becomes_the_installation(file, tmp_path) -> None:
    before = {(row.pk, row.person_id) for row in Person.objects.all()}
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path / "new"),
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "manage.py"]

    def manage(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, words)], cwd=root, env=environment, capture_output=True, text=True
        )

    restored = manage("restore", file, "--no-progress")
    assert restored.returncode == 0, restored.stderr
    assert "3 can be searched" in restored.stdout
    assert "torch" not in restored.stderr
    refused = manage("restore", file)
    assert refused.returncode == 1 and "not empty" in refused.stderr
    again = manage("backup", tmp_path / "again.tar", "--no-progress")
    assert again.returncode == 0, again.stderr
    persons = [
        entry
        for entry in archive.read_entries(tmp_path / "again.tar")
        if entry.name.startswith("rows/enrollment.person/")
    ]
    rows = [json.loads(line) for line in persons[0].content.decode().split("\n") if line]
    assert {(row["pk"], row["fields"]["person_id"]) for row in rows} == before


def test_file_of_another_name_in_the_storage_is_kept(file, settings) -> None:
    empty(settings)
    default_storage.save("pictures/other.jpg", ContentFile(b"x"))
    run("restore", file)
    assert default_storage.exists("pictures/other.jpg")


# What is malformed, with hashes that are right


def altered(file: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    """Return the backup with other entries and correct checksums."""
    path = file.with_name("altered.tar")
    with whole_file(path) as to, archive.new_archive(to) as writer:
        for entry in archive.read_entries(file):
            writer.add(*change(entry.name, entry.content))
    return path


def in_rows(label: str, before: bytes, after: bytes):
    """Return a change of a text in the rows of a model."""

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(before, after) if f"/{label}/" in name else content

    return change


def named(before: str, after: str):
    return lambda name, content: (name.replace(before, after), content)


def manifest(**fields: object):
    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name != "manifest.json":
            return name, content
        return name, json.dumps(json.loads(content) | fields).encode()

    return change


@pytest.mark.parametrize(
    "change",
    [
        in_rows("enrollment.faceimage", b'"image": "pictures/', b'"image": "../../pictures/'),
        in_rows("enrollment.faceimage", b'"image": "pictures/', b'"image": "/tmp/'),
        in_rows("enrollment.faceimage", b'"image": "pictures/', b'"image": "pictures//'),
        in_rows("enrollment.faceembedding", b'"vector": "', b'"vector": "AAAA'),
        in_rows("enrollment.person", b'"fields": {', b'"fields": {"unheard": 1, '),
        in_rows("enrollment.person", b'"person_id": "ana"', b'"person_id": " "'),
        in_rows("enrollment.person", b'"model": "enrollment.person"', b'"model": "auth.user"'),
        in_rows("enrollment.person", b"{", b"["),
        named("files/pictures/", "files/../pictures/"),
        named("files/pictures/", "files//etc/"),
        named("weights/mobile", "weights/../mobile"),
        named("weights/mobile", "weights/.mobile"),
        named("rows/enrollment.person/", "rows/enrollment.person/x"),
        named("deleted.json", "else.json"),
        lambda name, content: (name, b"{}" if name == "deleted.json" else content),
        lambda name, content: (name, b"no json" if name == "manifest.json" else content),
        lambda name, content: (name, b"[" * 10**5 if name == "manifest.json" else content),
        manifest(rows=[]),
        manifest(rows={"enrollment.person": "2"}),
        manifest(migrations={"enrollment": 1}),
        manifest(vectors=[{}]),
        manifest(format="1"),
        manifest(more=1),
    ],
)
def test_malformed_entries_are_refused_before_anything_is_written(
    file, settings, monkeypatch, change
) -> None:
    path = altered(file, change)
    before = everything()
    monkeypatch.setattr(restoration, "_replace_rows", lambda *_: pytest.fail("it was begun"))
    assert restoration._read_manifest(file)
    with pytest.raises(CommandError, match="Use another backup|too old"):
        run("restore", "--overwrite", path)
    assert everything() == before


def write_holes(path: Path, size: int, kind: bytes = tarfile.REGTYPE) -> None:
    """Write a sparse tar with one entry of this many zeros."""
    info = tarfile.TarInfo("files/pictures/big.jpg")
    info.size, info.type = size, kind
    path.write_bytes(
        info.tobuf(tarfile.PAX_FORMAT if kind == tarfile.REGTYPE else tarfile.GNU_FORMAT)
    )
    os.truncate(path, size + 10 * tarfile.BLOCKSIZE)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_archive_of_holes_is_refused_in_bounded_memory(tmp_path, kind) -> None:
    path = tmp_path / "holes.tar"
    write_holes(path, 6 * 2**30, kind)
    tracemalloc.start()
    try:
        with pytest.raises(archive.ArchiveRefused):
            for entry in archive.read_entries(path):
                entry.content  # noqa: B018 (it is read)
        assert tracemalloc.get_traced_memory()[1] < 2 * archive.HELD_AT_MOST
    finally:
        tracemalloc.stop()


def test_a_sparse_entry_is_refused(tmp_path) -> None:
    path = tmp_path / "sparse.tar"
    info = tarfile.TarInfo("files/pictures/big.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(2**40),
    }
    info.size = 1
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(archive.ArchiveRefused):
        list(archive.read_entries(path))


def test_large_weights_are_copied_without_being_held(file, settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(archive, "HELD_AT_MOST", 2 * 2**20)
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path / "weights"}
    (tmp_path / "weights").mkdir()
    assert "3 can be searched" in run("restore", "--overwrite", file)
    (weights,) = (tmp_path / "weights").glob("*.safetensors")
    assert weights.stat().st_size > archive.HELD_AT_MOST
