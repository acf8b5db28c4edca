"""Imports as jobs: previewed with candidates, carried out outside the request, resumed, undone."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from datetime import date, timedelta
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from django_tasks_db.models import DBTaskResult

from enrollment import desk, enrolling, imports, inbox
from enrollment.corrections import erase_person, undo
from enrollment.imports import FileStatus, stage_import
from enrollment.models import (
    Consent,
    FaceImage,
    ImportFile,
    ImportJob,
    JournalEntry,
    Person,
    Probe,
    Purpose,
)
from enrollment.upkeep import BacklogThread
from recognition.detection import detect_faces
from recognition.embedding import crop_upload, embed_crops
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.enrollment.gallery import enroll
from tests.gallery_folder import ROOT, SETUP, new_gallery, run
from tests.picture_host import PictureHost, picture_host
from tests.pictures import draw_picture, packed, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights", "data_folder")]
State = ImportJob.State


def crop(seed: Any) -> bytes:
    return draw_picture((112, 112), seed=seed)


def staged(files: dict[str, bytes | str], **options: Any) -> ImportJob:
    options = {"use_face_detection": False, "is_confirmed": True} | options
    return stage_import(io.BytesIO(packed(files)), "faces.zip", 0, **options)


def carried_out(files: dict[str, bytes | str], **options: Any) -> ImportJob:
    job = staged(files, **options)
    imports.carry_out_imports()
    job.refresh_from_db()
    return job


def told(job: ImportJob) -> dict[str, str]:
    return dict(job.files.values_list("path", "status"))


def test_what_stops_between_two_batches_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr("enrollment.imports.execution.BATCH", 2)
    job = staged({f"ana/{number}.jpg": crop(number) for number in range(5)})
    imports.carry_out_imports(lambda: True)
    job.refresh_from_db()
    assert (FaceImage.objects.count(), job.state, job.claim) == (2, State.RUNNING, "")
    assert imports.counts_of(job)["left"] == 3 and imports.seconds_left(job, 3) > 0
    imports.pause_import(job)
    assert imports.carry_out_imports() == 0
    imports.resume_import(job)
    job.refresh_from_db()
    assert job.state == State.DONE and set(told(job).values()) == {"enrolled"}
    assert FaceImage.objects.count() == 5 and job.undo.pictures == 5
    (line,) = JournalEntry.objects.filter(action="imported")
    assert line.facts == {"enrolled": 5, "persons": 1}
    assert not enrolling.job_folder(job).exists()


def test_a_cancelled_import_keeps_what_it_enrolled_until_it_is_undone(monkeypatch, commits):
    monkeypatch.setattr("enrollment.imports.execution.BATCH", 1)
    job = staged({"ana/1.jpg": crop(1), "ana/2.jpg": crop(2)})
    imports.carry_out_imports(lambda: True)
    imports.cancel_import(job)
    job.refresh_from_db()
    assert (job.state, job.undo.pictures) == (State.CANCELLED, 1)
    assert sorted(told(job).values()) == ["", "enrolled"]
    with commits():
        undo(job.undo)
    job.refresh_from_db()
    assert not Person.objects.exists() and job.undo is None and job.undone_at
    with pytest.raises(imports.ImportBusy):
        imports.resume_import(job)


@pytest.mark.parametrize("act", ["start_import", "pause_import", "resume_import", "cancel_import"])
def test_an_import_that_somebody_cancelled_meanwhile_is_gone(act):
    """Both had read it, and the second one's failed: 500."""
    job = ImportJob.objects.create(label="faces.zip", state=State.READY)
    imports.cancel_import(ImportJob.objects.get())
    with pytest.raises(imports.ImportGone):
        getattr(imports, act)(job)


@pytest.mark.django_db(transaction=True)
def test_a_start_asks_the_workers_for_imports_whose_task_they_do_not_know(settings):
    """After an update that moved the task, they had waited for ten minutes."""
    settings.TASKS_BACKEND = "database"
    settings.TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    job = staged({"ana/1.jpg": crop(1)})
    imports.request_imports()
    DBTaskResult.objects.update(task_path="enrollment.upkeep.import_work.work_off_imports")
    worker = {"batch": True, "interval": 0, "startup_delay": False, "verbosity": 0}
    call_command("db_worker", **worker)
    server = BacklogThread()
    server._stopping.set()
    server.run()
    call_command("db_worker", **worker)
    job.refresh_from_db()
    assert job.state == State.DONE


def test_the_preview_shows_faces_and_whom_they_resemble(boss, settings):
    ana, bia, caio = PEOPLE
    known = enroll("ana", as_jpeg(draw_face(ana)), use_face_detection=True).person
    archive = packed(
        {"bia/1.jpg": as_jpeg(draw_face(ana, 1)), "loose.jpg": as_jpeg(draw_face(bia))}
    )
    form = {"archive": upload(archive, "a.zip"), "use_face_detection": "on"}
    page = boss.post("/people/import", form, follow=True)
    job = ImportJob.objects.get()
    assert job.state == State.READY and f"/people/{known.pk}/" in page.text
    for row in job.files.all():
        assert row.candidates[0][0] == known.pk
        face = boss.get(f"/imports/{job.pk}/files/{row.pk}")
        assert face.headers["Content-Type"] == "image/jpeg" and face.content
    for decision, is_named in (("unknown", False), ("review", True), (None, True)):
        job.files.update(candidates=[[known.pk, 0.17, decision]])
        assert (f"/people/{known.pk}/" in boss.get(f"/imports/{job.pk}").text) is is_named
    stranger = Client(headers={"host": "localhost"})
    assert stranger.get(f"/imports/{job.pk}/files/{row.pk}").status_code == 404
    assert "faces.zip" not in stranger.get("/imports/").text
    boss.post(f"/imports/{job.pk}", {"start": "1"})
    assert f"/imports/{job.pk}" in stranger.get("/imports/").text
    (probe,) = Probe.objects.waiting()
    assert probe.reason == "nobodys" and probe.picture_hash
    report = boss.get(f"/imports/{job.pk}?show=refused").text
    assert "loose.jpg" in report and "bia/1.jpg" not in report
    assert boss.get(f"/imports/{job.pk}/files/{row.pk}").content
    settings.KEEP_REFUSED_DAYS = 0
    carried_out({"x.jpg": crop(9)})
    assert Probe.objects.count() == 1


@pytest.mark.parametrize(
    ("changed", "looked_again"), [("nothing", 0), ("the picture", 1), ("the process", 2)]
)
def test_what_the_preview_found_is_not_looked_for_again(monkeypatch, changed, looked_again):
    """Every face was looked for twice, which took a third of the import."""
    ana, bia, caio = PEOPLE
    files = {"ana/1.jpg": as_jpeg(draw_face(ana)), "bia/1.jpg": as_jpeg(draw_face(bia))}
    job = carried_out(files, use_face_detection=True, is_confirmed=False)
    if changed == "the picture":
        imports.file_of(job.files.get(path="ana/1.jpg")).write_bytes(as_jpeg(draw_face(caio)))
    elif changed == "the process":  # whose detector may be another
        monkeypatch.setattr("enrollment.enrolling.inspection._PROCESS", "a later one")
    looked = Mock(side_effect=detect_faces)
    monkeypatch.setattr("recognition.embedding.detect_faces", looked)
    imports.start_import(job)
    imports.carry_out_imports()
    assert not enrolling.job_folder(job).exists()
    assert looked.call_count == looked_again
    assert told(job) == dict.fromkeys(files, FileStatus.ENROLLED)
    for picture in FaceImage.objects.all():
        assert picture.chosen_face is None
        with picture.image.open() as file:
            (crop,) = crop_upload(file.read(), on_several_faces="largest")
        for row in picture.embeddings.all():
            assert row.face == crop.face_record()
            vector = embed_crops([crop.pixels], row.model).vectors[0]
            assert np.abs(row.computed_array() - vector).max() < 1e-5


def test_new_persons_get_what_the_batch_says(settings):
    door = Purpose.objects.create(name="door")
    enroll("ana", crop(0))
    details = {
        "legal_basis": "law 7",
        "keep_until": date(2099, 1, 31),
        "purposes": [door.pk],
        "consent_day": date(2026, 1, 2),
    }
    job = carried_out({"ana/1.jpg": crop(1), "b_ia/1.jpg": crop(2)}, details=details)
    bia, ana = Person.objects.get(person_id="b_ia"), Person.objects.get(person_id="ana")
    assert (bia.name, bia.legal_basis, bia.keep_until) == ("b ia", "law 7", date(2099, 1, 31))
    assert (ana.legal_basis, ana.keep_until) == ("", None)
    (consent,) = Consent.objects.all()
    assert (consent.person, consent.day) == (bia, date(2026, 1, 2))
    assert list(consent.purposes.all()) == [door]
    assert job.undo.erase_at.date() > timezone.localdate()


def test_somebody_new_from_the_inbox_gets_what_the_batch_says(settings):
    door = Purpose.objects.create(name="door")
    days = {"keep_until": date(2099, 1, 31), "consent_day": date(2026, 1, 2)}
    details = {"legal_basis": "law 7", "purposes": [door.pk], **days}
    two = as_jpeg(draw_face(PEOPLE[0]))
    options = {"use_face_detection": True, "details": details}
    carried_out({"loose.jpg": two, "b/1.jpg": crop(1)}, **options)
    probe = Probe.objects.waiting().get(reason="nobodys")
    new = {"person_id": "bia", "name": "Bia", "legal_basis": ""}
    bia = inbox.settle([f"file-{probe.pk}"], "new", new=new).person
    bia.refresh_from_db()
    assert (bia.name, bia.legal_basis, bia.keep_until) == ("Bia", "law 7", date(2099, 1, 31))
    (consent,) = Consent.objects.filter(person=bia)
    assert consent.day == date(2026, 1, 2) and list(consent.purposes.all()) == [door]


def test_a_refused_row_of_a_table_keeps_what_it_says_of_whom_it_names():
    table = "person_id,name,notes,picture\nbia,Bia,gate,x.jpg\n"
    carried_out({"a.csv": table, "x.jpg": b"no picture"})
    row = ImportFile.objects.get(status="refused")
    assert inbox.create_newcomer({"person_id": "bia", "name": ""}, row).notes == "gate"
    caio = inbox.create_newcomer({"person_id": "caio"}, row)
    assert (caio.name, caio.notes) == ("", "")


TABLE = """person_id;name;legal_basis;keep_until;picture
1;João;consent;2099-12-31;pics\\a.jpg
1;;;;pics/b.jpg
2;Bia;;;PICS/C.JPG
3;Caio;;31/12/2099;pics/d.jpg
4;Davi;;;pics/none.jpg
5;Eva;;;https://example.org/e.jpg
1,5E+10;Fabio;;;pics/d.jpg
"""


def test_a_table_says_whose_the_pictures_are():
    pictures = {f"x/pics/{name}.jpg": crop(name) for name in "abcdz"}
    job = carried_out({"x/people.csv": "\ufeff" + TABLE, **pictures})
    people = {each.person_id: each for each in Person.objects.all()}
    assert people.keys() == {"1", "2"}
    assert (people["1"].name, people["1"].legal_basis) == ("João", "consent")
    assert people["1"].keep_until == date(2099, 12, 31)
    assert people["1"].face_images.count() == 2 and people["2"].face_images.count() == 1
    reasons = {row.path: row.reason for row in job.files.filter(status="refused")}
    assert "is no day" in reasons["pics/d.jpg"] or "shortened" in reasons["pics/d.jpg"]
    assert "no picture 'pics/none.jpg'" in reasons["people.csv, line 6"]
    assert "name the host in IMPORT_HOSTS" in reasons["people.csv, line 7: e.jpg"]
    assert "has no row" in reasons["pics/z.jpg"]
    assert len(reasons) == 4


@pytest.fixture
def host(settings):
    with picture_host() as host:
        settings.IMPORT_HOSTS = (host.url,)
        yield host


def addressed(host: PictureHost, *names: str) -> dict[str, str]:
    """Return the files of a ZIP with a table of people whose pictures are at the host."""
    rows = [f"{number},{host.url}/{name}.jpg?token=1" for number, name in enumerate(names)]
    return {"people.csv": "\n".join(["person_id,picture", *rows])}


def test_pictures_of_addresses_are_fetched_and_shown_before_they_are_enrolled(host):
    host.pictures |= {f"/{name}.jpg?token=1": crop(name) for name in "ac"}
    host.pictures["/b.jpg?token=1"] = b"<html>"
    job = carried_out(addressed(host, "a", "b", "none", "c"), is_confirmed=False)
    assert job.state == State.READY and not FaceImage.objects.exists()
    rows = {row.person_id: row for row in job.files.all()}
    assert [rows[each].status for each in "0123"] == ["enrolled", "refused", "refused", "enrolled"]
    assert rows["0"].path == "people.csv, line 2: a.jpg" and rows["0"].has_face
    assert rows["2"].code == "not_fetched" and "localhost answered 404" in rows["2"].reason
    assert not any(row.address for row in rows.values())
    imports.start_import(job)
    job.refresh_from_db()
    assert (job.state, job.undo.pictures, len(host.asked)) == (State.DONE, 2, 4)
    stored = FaceImage.objects.order_by("pk").values_list("original_path", flat=True)
    assert list(stored) == ["people.csv, line 2: a.jpg", "people.csv, line 5: c.jpg"]


def test_what_an_interrupted_import_fetched_is_not_fetched_again(host, monkeypatch):
    host.pictures |= {f"/{name}.jpg?token=1": crop(name) for name in "abc"}
    job = staged(addressed(host, "a", "b", "c"))
    first, second, _third = job.files.all()
    imports.fetch_picture(first.address, imports.file_of(first))  # killed before it was noted
    imports.file_of(second).with_suffix(".jpg.part").write_bytes(b"half")
    monkeypatch.setattr("enrollment.imports.downloads._AHEAD", 0)
    imports.carry_out_imports(lambda: True)
    assert job.files.exclude(address="").count() == 2 and len(host.asked) == 1
    imports.carry_out_imports()
    assert set(told(job).values()) == {"enrolled"} and FaceImage.objects.count() == 3
    assert sorted(host.paths) == [f"/{name}.jpg?token=1" for name in "abc"]


def test_one_import_fetches_so_much_and_no_more(host, monkeypatch, commits):
    monkeypatch.setattr("enrollment.imports.downloads.MOST_BYTES", 1)
    monkeypatch.setattr("enrollment.imports.downloads._AHEAD", 0)
    host.pictures["/a.jpg?token=1"] = crop("a")
    job = staged(addressed(host, "a", "b"))
    with commits():
        erase_person(Person.objects.create(person_id="0"))
    assert not job.files.get(number=1).address
    job = carried_out(addressed(host, "a", "b", "c"))
    assert [row.status for row in job.files.all()] == ["enrolled", "refused", "refused"]
    assert host.paths == ["/b.jpg?token=1", "/a.jpg?token=1"]


def test_an_erased_person_leaves_the_reports(commits):
    job = carried_out({"mariana/1.jpg": crop(1), "ana/2.jpg": crop(2), "bia/ana.jpg": crop(3)})
    waiting = staged({"ana/3.jpg": crop(4)}, is_confirmed=False)
    found = imports.found_in(waiting.files.get())
    found.write_text("{}")
    Person.objects.filter(person_id="ana").update(person_id="renamed")
    renamed = Person.objects.get(person_id="renamed")
    (file,) = desk.export_person(renamed, io.BytesIO())["imports"]
    assert (file["file"], file["status"]) == ("ana/2.jpg", "enrolled")
    with commits():
        erase_person(renamed)
    assert sorted(told(job)) == ["", "bia/ana.jpg", "mariana/1.jpg"]
    enroll("ana", crop(5))
    with commits():
        erase_person(Person.objects.get(person_id="ana"))
    assert not found.exists()
    assert sorted(job.files.values_list("path", "person_id")) == [
        ("", ""),
        ("", ""),
        ("mariana/1.jpg", "mariana"),
    ]
    imports.carry_out_imports()
    imports.start_import(waiting)
    assert not Person.objects.filter(person_id="ana").exists()
    assert list(waiting.files.values_list("path", "status")) == [("", "refused")]


def test_old_imports_end_and_their_reports_go(settings):
    job = carried_out({"ana/1.jpg": crop(1)})
    resting = staged({"ana/2.jpg": crop(2)})
    imports.pause_import(resting)
    long_ago = timezone.now() - timedelta(days=settings.JOURNAL_DAYS + 1)
    ImportJob.objects.filter(pk=job.pk).update(finished_at=long_ago)
    ImportJob.objects.filter(pk=resting.pk).update(changed_at=long_ago)
    imports.forget_old_jobs()
    assert not ImportJob.objects.filter(pk=job.pk).exists()
    imports.carry_out_imports()
    resting.refresh_from_db()
    assert resting.state == State.CANCELLED and resting.finished_at
    assert FaceImage.objects.count() == 1


KILLED = (
    SETUP
    + """
import io, os, signal, zipfile
from enrollment import imports
from enrollment.imports import execution
from tests.pictures import draw_picture

execution.BATCH = 2
with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
    for number in range(5):
        archive.writestr(f"ana/{number}.jpg", draw_picture((112, 112), seed=number))
imports.stage_import(packed, "a.zip", 0, is_confirmed=True, use_face_detection=False)
keep, batches = execution._keep, []

def killed(*given):
    batches.append(given)
    if len(batches) == 2:  # its pictures are stored, and no row says so yet
        os.kill(os.getpid(), signal.SIGKILL)
    keep(*given)

execution._keep = killed
imports.carry_out_imports()
"""
)
RESUMED = (
    SETUP
    + """
from enrollment import imports
from enrollment.models import ImportJob
from enrollment.imports import execution

job = ImportJob.objects.get()
before = [FaceImage.objects.count(), imports.counts_of(job)["left"], imports.carry_out_imports()]
execution.drop_claims()  # as the thread of the next server begins
imports.carry_out_imports()
job.refresh_from_db()
tell(before=before, state=job.state, counts=imports.counts_of(job), undo=job.undo.pictures,
     pictures=sorted(FaceImage.objects.values_list("original_path", flat=True)),
     linked=job.files.exclude(picture_pk=None).count())
"""
)


def test_a_killed_import_loses_nothing_and_enrols_nothing_twice(tmp_path):
    environment = new_gallery(tmp_path / "gallery")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=ROOT, env=environment, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    told = json.loads(run(environment, RESUMED))
    assert told["before"] == [4, 3, 0]  # it is another's for now
    assert told["state"] == "done" and told["undo"] == told["linked"] == 5
    assert told["counts"]["enrolled"] == 5 and told["counts"]["left"] == 0
    assert told["pictures"] == [f"ana/{number}.jpg" for number in range(5)]
