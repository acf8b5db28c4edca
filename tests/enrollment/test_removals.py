"""A deletion removes all data: from SQL, Milvus, the storage and every file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from enrollment import gallery, index
from enrollment.corrections import erase_item, erase_person, erase_pictures
from enrollment.enrolling import imports_folder
from enrollment.models import (
    FaceEmbedding,
    FaceImage,
    IdempotentRequest,
    ImportJob,
    Person,
    Removal,
    TrashItem,
    note_removals,
)
from enrollment.upkeep import backlog
from recognition.vector_store import get_vector_store, partition_name
from tests.enrollment.gallery import add_vectors, enroll, stored
from tests.gallery_folder import ROOT, SETUP, new_gallery, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]

KILLED_AFTER_COMMIT = (
    SETUP
    + """
import os, signal
from enrollment.corrections import erase_person
from enrollment.enrolling import Upload, enroll_pictures
from enrollment.index import removals
from tests.pictures import draw_picture

for person in ("ana", "bia"):
    uploads = [Upload(person, f"{n}.jpg", draw_picture((112, 112), seed=f"{person}{n}"))
               for n in range(2)]
    enroll_pictures(uploads, source="api", use_face_detection=False)
removals.remove_deleted.func.__globals__["remove_files"] = lambda: os.kill(os.getpid(), signal.SIGKILL)
erase_person(Person.objects.get(person_id="ana"))
"""
)
PASS = (
    SETUP
    + """
from django.utils import timezone
from enrollment.upkeep import BacklogThread
BacklogThread()._pass(timezone.now())
"""
)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def holding(folder: Path, *texts: bytes) -> list[str]:
    """Return the files that contain one of the texts."""
    return [
        path.name for path in files_in(folder) if any(text in path.read_bytes() for text in texts)
    ]


def test_killed_between_commit_and_hook_leaves_nothing(tmp_path):
    environment = new_gallery(tmp_path / "data")
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_COMMIT], cwd=ROOT, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(files_in(tmp_path / "data" / "media")) == 4
    run(environment, PASS)
    assert len(files_in(tmp_path / "data" / "media")) == 2
    tell = "tell(removals=Removal.objects.count(), vectors=get_vector_store().row_count())"
    imports = "from enrollment.models import Removal\nfrom recognition.vector_store import get_vector_store\n"
    told = json.loads(run(environment, SETUP + imports + tell))
    assert told == {"removals": 0, "vectors": 2}


ERASED = (
    SETUP
    + """
import io, zipfile
from base64 import b64encode
from datetime import date
from django.core.files.base import ContentFile
from enrollment import journal
from enrollment.corrections import delete_pictures, erase_person, merge_persons
from enrollment.desk import erase_with_receipt, export_person
from enrollment.enrolling import Upload, add_consent, enroll_pictures
from enrollment.imports import stage_import
from enrollment.installation_key import installation_key
from enrollment.models import SearchEntry
from tests.pictures import draw_picture

ID, MERGED = "123.456.789-09", "merged-1234"
for person in ("bia", ID, MERGED, "caio"):
    uploads = [Upload(person, f"{n}.jpg", draw_picture((112, 112), seed=f"{person}{n}"),
                      f"folder of {person}/{n}.jpg", name=f"Name of {person}") for n in range(2)]
    enroll_pictures(uploads, source="api", use_face_detection=False)
erased = Person.objects.get(person_id=ID)
merge_persons(erased, Person.objects.get(person_id=MERGED))
pictures = list(erased.face_images.order_by("pk"))
vectors = [row.vector for row in FaceEmbedding.objects.filter(face_image__in=pictures)]
delete_pictures(erased, [pictures[0].pk])  # one is in the trash
consent = add_consent(erased, document=ContentFile(b"signed by the person", "signed-1234.txt"),
                      day=date.today())
SearchEntry.objects.create(username="maria", channel="api", model="m", person=erased, answers=1)
journal.record_shown(journal.Action.SEARCHED, [(erased.pk, 0.9, "match")], {"answers": 1})
with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
    archive.writestr(f"{ID}/1.jpg", draw_picture((112, 112), seed="import"))
stage_import(packed, "import.zip", 0, use_face_detection=False)
export_person(erased, io.BytesIO())
texts = [ID, MERGED, f"Name of {ID}", consent.file_name, consent.document.name,
         *(picture.image.name for picture in pictures), *(b64encode(v).decode() for v in vectors)]
tell(vectors=[vector.hex() for vector in vectors], texts=texts)
sys.stdin.readline()
erase_with_receipt(Person.objects.get(person_id=ID))
"""
    + PASS.removeprefix(SETUP)
    + """
tell(done=True)
sys.stdin.readline()
"""
)


def test_no_file_of_the_data_folder_holds_a_word_of_who_was_erased(tmp_path):
    """Checked while the process runs, so nothing waits for its end: neither the rows, the trash, an
    import, the journal, the search log, a document nor the vectors, in contents or names of files."""
    data = tmp_path / "data"
    environment = new_gallery(data)
    process = subprocess.Popen(
        [sys.executable, "-c", ERASED],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        told = json.loads(process.stdout.readline())
        texts = [text.encode() for text in told["texts"]]
        words = [*texts, b"signed by the person", *map(bytes.fromhex, told["vectors"])]
        for word in (texts[0], texts[1], texts[3], words[-1], b"signed by the person"):
            assert holding(data, word), word
        process.stdin.write("\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"done": True}
        assert holding(data, *words) == []
        named = [path for path in data.rglob("*") for text in texts if text in bytes(path)]
        assert named == []
        assert holding(data, b"caio")
    finally:
        process.communicate("\n")


def test_two_hundred_pictures_take_as_many_queries_as_two():
    """But for one more batch. With the journal and the trash they are about forty."""
    add_vectors({"ana": 200, "bia": 1, "caio": 2, "duda": 1})
    erase_person(Person.objects.get(person_id="duda"))  # the first one begins the journal, too
    asked = {}
    for person_id, count in (("caio", 2), ("ana", 200)):
        person = Person.objects.get(person_id=person_id)
        with CaptureQueriesContext(connection) as queries:
            assert erase_person(person) == count
        asked[person_id] = len(queries)
    assert asked["ana"] <= asked["caio"] + 2 <= 45
    assert Removal.objects.filter(file="").count() == 203
    assert FaceEmbedding.objects.count() == 1


def test_a_vector_that_an_interrupted_removal_deleted_is_copied_again_after_a_restore(
    commits, picture
):
    """The note was dropped as the row was there, which went on saying indexed."""
    row = enroll("ana", picture).outcomes[0].embeddings[0]
    note_removals([(row.pk, row.model, row.fingerprint)])
    get_vector_store().delete(partition_name(row.model, row.fingerprint), [row.pk])
    with commits():
        index.apply_deletions()
    assert [hit.id for hit in stored()] == [row.pk] and not Removal.objects.exists()


def test_what_is_removed_meanwhile_is_left_to_the_next_run(monkeypatch):
    """With a Milvus server an erasure lasted until nobody else was erased or deleted any more."""
    store = get_vector_store()
    erased = []

    def erase(partition: str, ids: list[int]) -> None:
        erased.extend(ids)
        note_removals([(ids[0] + 1, "m", "f")])

    monkeypatch.setattr(store, "erase", erase)
    note_removals([(10**9, "m", "f")])
    assert index.apply_deletions() == 1 and erased == [10**9]
    assert Removal.objects.get().embedding_id == 10**9 + 1


def test_while_the_server_runs_nobody_waits_for_the_removal(commits, picture, monkeypatch):
    person = enroll("ana", picture).person
    monkeypatch.setattr(index.queue, "requested", queue := SimpleQueue())
    index.thread_runs.set()
    try:
        with commits():
            erase_person(person)
    finally:
        index.thread_runs.clear()
    assert Removal.objects.count() == 2 and len(stored()) == 1
    queue.get(timeout=0)()
    assert not Removal.objects.exists() and stored() == []


@pytest.mark.parametrize(
    "delete",
    [
        lambda person: person.delete(),
        lambda person: Person.objects.all().delete(),
        lambda person: person.face_images.all().delete(),
        lambda person: person.face_images.get().delete(),
        lambda person: erase_pictures(person, [person.face_images.get().pk]),
    ],
)
def test_whatever_deletes_leaves_nothing(commits, picture, settings, delete):
    person = enroll("ana", picture).person
    with commits():
        delete(person)
    assert not Removal.objects.exists() and stored() == []
    assert files_in(settings.MEDIA_ROOT) == []


def test_storage_that_fails_once_is_asked_again(commits, picture, settings, monkeypatch):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    person = enroll("ana", picture).person
    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", lambda *_: 1 / 0)
        with commits():
            erase_person(person)
        assert stored() == []  # what is Milvus's does not wait for the storage
        assert backlog.BacklogThread()._pass(timezone.now()) == backlog.FIRST_RETRY
    assert gallery.gallery_state().deletions == 1 and gallery.removals_that_wait() is None
    Removal.objects.update(created_at=timezone.now() - gallery.selectors.REMOVED_WITHIN)
    assert "1 trace" in gallery.removals_that_wait()
    assert len(files_in(settings.MEDIA_ROOT)) == 1
    assert backlog.BacklogThread()._pass(timezone.now()) == backlog.PAUSE
    assert files_in(settings.MEDIA_ROOT) == [] and not Removal.objects.exists()


def test_a_file_that_a_picture_names_again_stays(picture, settings):
    kept = enroll("ana", picture).outcomes[0].face_image
    note_removals(files=[kept.image.name])
    assert index.remove_files() == (1, 0)
    assert kept.image.storage.exists(kept.image.name)


def test_answers_and_reports_that_name_the_person_go(commits, picture, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    person = enroll("ana", picture).person
    for name in ("ana", "mariana"):
        IdempotentRequest.objects.create(
            key=name, digest="d", status=200, answer={"person_id": name}
        )
    job = ImportJob.objects.create(state="ready", label="ana.zip")
    for number, (owner, warnings) in enumerate(
        [("ana", []), ("bia", ["Like Ana (ana)."]), ("mariana", ["Like Bia (bia)."])]
    ):
        job.files.create(number=number, path=f"{owner}/1.jpg", person_id=owner, warnings=warnings)
    with commits():
        erase_person(person)
    assert ImportJob.objects.get().label == ""
    assert list(job.files.values_list("path", "person_id", "warnings")) == [
        ("", "", []),
        ("bia/1.jpg", "bia", []),
        ("mariana/1.jpg", "mariana", ["Like Bia (bia)."]),
    ]
    answers = dict(IdempotentRequest.objects.values_list("key", "status"))
    assert answers == {"ana": 410, "mariana": 200}
    assert "person_id" not in IdempotentRequest.objects.get(key="ana").answer


def test_the_admins_history_forgets_who_was_deleted(boss, commits, picture):
    """It used to keep the names of persons and files."""
    people = {name: enroll(name, picture).person for name in ("ana", "bia")}
    pictures = {name: person.face_images.get() for name, person in people.items()}
    of_bia = pictures["bia"].pk
    admin = User.objects.get(username="admin")
    for each in [*people.values(), *pictures.values()]:
        LogEntry.objects.log_actions(admin.pk, [each], 2, f"{each} was changed", single_object=True)
    with commits():
        boss.post(
            "/admin/enrollment/person/",
            {"action": "delete_selected", "_selected_action": [people["ana"].pk], "post": "yes"},
        )
        pictures["bia"].delete()
        erase_item(TrashItem.objects.get().pk)

    assert list(Person.objects.values_list("person_id", flat=True)) == ["bia"]
    told = {
        (entry.content_type.model, entry.action_flag, entry.object_repr, entry.change_message)
        for entry in LogEntry.objects.all()
    }
    ana = people["ana"].pk
    assert told == {
        ("person", 2, f"#{ana}", ""),
        ("person", 3, f"#{ana}", ""),
        ("faceimage", 2, f"#{pictures['ana'].pk}", ""),
        ("faceimage", 2, f"#{of_bia}", ""),
        ("person", 2, "bia", "bia was changed"),
    }


def test_an_import_that_nobody_confirmed_goes_without_another(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(backlog.connections, "close_all", lambda: None)  # the test's own
    settings.DATA_DIR = tmp_path
    old = imports_folder() / "old1"
    old.mkdir()
    os.utime(old, (1e9, 1e9))
    backlog.BacklogThread()._pass(timezone.now())
    assert not old.exists()


def test_a_rolled_back_deletion_leaves_no_note(picture):
    person = enroll("ana", picture).person
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        erase_person(person)
        _ = 1 / 0
    assert not Removal.objects.exists() and FaceImage.objects.exists()
    assert get_vector_store().row_count() == 1
