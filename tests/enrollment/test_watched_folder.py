"""A watched folder is imported as jobs, and its files are moved away with a report."""

from __future__ import annotations

import csv
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from enrollment import imports
from enrollment.corrections import erase_person
from enrollment.imports import watched_folder
from enrollment.models import FaceImage, ImportJob, Person, Probe, Purpose
from tests.commands import run
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face
from tests.pictures import draw_picture

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights")]
ANA, BIA, _ = PEOPLE


@pytest.fixture
def folder(data_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "site" / "inbox"
    (folder / "ana").mkdir(parents=True)
    (folder / "ana" / "1.jpg").write_bytes(as_jpeg(draw_face(ANA)))
    return folder


def look(folder: Path, *arguments: str) -> str:
    return run("watch", folder, "--once", "--settled=0", *arguments)


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_is_laid_into_the_folder_is_enrolled_and_moved_away(folder, settings):
    Purpose.objects.create(name="door")
    (folder / "ana" / "wall.jpg").write_bytes(draw_picture())
    (folder / "ana" / "2.jpg.part").write_bytes(b"half")
    (folder / "loose.jpg").write_bytes(as_jpeg(draw_face(BIA)))
    said = look(folder, "--legal-basis=law", "--keep-until=2099-01-31", "--purpose=door")
    number = ImportJob.objects.get().pk
    assert f"Import {number}: refused 1, left 2." in said
    assert FaceImage.objects.count() == 0  # the server does it
    assert look(folder) == "" and len(files_in(folder)) == 4
    imports.carry_out_imports()
    (folder.parent / "done" / "ana").mkdir()
    (folder.parent / "done" / "ana" / "1.jpg").write_bytes(b"an earlier one")
    assert f"Import {number} is over: enrolled 1, refused 2." in look(folder)

    person = Person.objects.get()
    assert (person.legal_basis, person.keep_until) == ("law", date(2099, 1, 31))
    assert person.consents.get().purposes.get().name == "door"
    assert files_in(folder) == ["ana/2.jpg.part"]
    assert files_in(folder.parent / "done") == [
        "ana/1 (2).jpg",
        "ana/1.jpg",
        f"import-{number}.csv",
    ]
    assert files_in(folder.parent / "refused") == ["ana/wall.jpg", "loose.jpg"]
    report = folder.parent / "done" / f"import-{number}.csv"
    rows = csv.DictReader(report.open(encoding="utf-8"))
    told = {row["file"]: (row["status"], row["reason"]) for row in rows}
    assert told["ana/1.jpg"] == ("enrolled", "")
    assert "No face was found" in told["ana/wall.jpg"][1] and "folder" in told["loose.jpg"][1]
    assert {probe.reason for probe in Probe.objects.waiting()} == {"no_face_detected", "nobodys"}


def test_a_file_that_is_still_written_is_waited_for(folder):
    watched = watched_folder.WatchedFolder(folder, settled_seconds=60)
    watched.prepare()
    assert watched.look() == (None, [])
    assert files_in(folder) == ["ana/1.jpg"]


def test_what_was_taken_and_not_imported_is_put_back(folder, monkeypatch):
    def full(*given: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(watched_folder, "stage_files", full)
        assert "This look failed" in look(folder)
    assert files_in(folder) == ["ana/1.jpg"]
    taken = folder / ".taken" / "abcdefgh" / "ana"  # as a process that was killed leaves it
    taken.mkdir(parents=True)
    (folder / "ana" / "1.jpg").rename(taken / "1.jpg")
    assert "left 1." in look(folder)
    (folder / "ana").exists() and os.utime(folder / "ana", (1e9, 1e9))
    imports.carry_out_imports()
    look(folder)
    assert FaceImage.objects.count() == 1 and not (folder / "ana").exists()


def test_files_of_who_was_erased_meanwhile_are_moved_away_without_a_name(folder, commits):
    look(folder)
    imports.carry_out_imports()
    with commits():
        erase_person(Person.objects.get())
    look(folder)
    (report,) = (folder.parent / "done").glob("import-*.csv")
    assert "ana" not in report.read_text() and files_in(folder) == []
    assert ImportJob.objects.get().state == ImportJob.State.DONE


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(CommandError, match="is not a folder"):
        call_command("watch", tmp_path / "none")
    for seconds in ("-1", "0", "nan", "inf"):
        with pytest.raises(CommandError, match="more than 0 and at most"):
            call_command("watch", tmp_path, f"--interval={seconds}")
    for seconds in ("-1", "nan", "inf"):
        with pytest.raises(CommandError, match="is no number of 0 or more"):
            call_command("watch", tmp_path, f"--settled={seconds}")
