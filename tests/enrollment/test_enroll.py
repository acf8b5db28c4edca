"""`manage.py enroll`: a folder of pictures becomes persons, and every file is reported."""

from __future__ import annotations

import csv
import io
import os
import threading
import unicodedata
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from enrollment import corrections, imports
from enrollment.gallery.selectors import search_gallery
from enrollment.imports.found_files import FileStatus, find_files
from enrollment.models import FaceEmbedding, FaceImage, ImportJob, Person, Probe
from recognition.embedding import embed_uploads
from recognition.vector_store import get_vector_store
from recognition.vector_store.lite import LiteVectorStore
from tests.enrollment.gallery import enroll, set_thresholds
from tests.enrollment.holder import held_by_another_process

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_thresholds(monkeypatch) -> None:
    """Ignore the thresholds of the weights, which do not apply to drawings."""
    monkeypatch.setattr("enrollment.gallery.weights.thresholds_of", lambda *weights: None)


@pytest.fixture
def folder(tmp_path: Path, draw_picture) -> Path:
    """Two persons, one with two pictures and one with a single picture."""
    for path, seed in {"Ana_Lima/1.jpg": 1, "Ana_Lima/2.jpg": 2, "12345678900/a.jpg": 3}.items():
        file = tmp_path / "people" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw_picture(seed=seed))
    return tmp_path / "people"


def run_enroll(folder: Path, *arguments: str) -> tuple[str, str]:
    output, errors = io.StringIO(), io.StringIO()
    call_command(
        "enroll", str(folder), "--no-face-detection", *arguments, stdout=output, stderr=errors
    )
    return output.getvalue(), errors.getvalue()


def reasons(folder: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """Return the status and reason of each file in the report."""
    report = folder.parent / "report.csv"
    run_enroll(folder, "--report", str(report), *arguments)
    with report.open(newline="", encoding="utf-8") as file:
        return {row["file"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}


def test_folders_become_persons_that_can_be_found(folder, weights):
    output, errors = run_enroll(folder)
    assert output.startswith("3 pictures of 2 people enrolled")
    assert errors == ""
    assert list(Person.objects.values_list("person_id", "name")) == [
        ("12345678900", ""),
        ("Ana_Lima", "Ana Lima"),
    ]
    assert set(FaceImage.objects.values_list("original_path", "source")) == {
        ("Ana_Lima/1.jpg", "folder"),
        ("Ana_Lima/2.jpg", "folder"),
        ("12345678900/a.jpg", "folder"),
    }
    probe = [(folder / "Ana_Lima/2.jpg").read_bytes()]
    _crops, embeddings = embed_uploads(probe, weights, use_face_detection=False)
    ((hit,),) = search_gallery(embeddings, 1)
    assert hit.face_image.original_path == "Ana_Lima/2.jpg"
    assert hit.similarity == pytest.approx(1, abs=1e-4)


def test_pictures_of_several_persons_share_a_batch(folder, monkeypatch, weights):
    from enrollment.index import indexing

    sizes, embeddings_of = [], indexing.embeddings_of

    def counting(crops, model):
        sizes.append(len(crops))
        return embeddings_of(crops, model)

    monkeypatch.setattr(indexing, "embeddings_of", counting)
    run_enroll(folder)
    assert sizes == [3]


def test_next_batch_is_looked_at_and_embedded_while_one_is_stored(folder, monkeypatch, weights):
    from enrollment.enrolling import services
    from enrollment.imports import batch_enrolment

    store, look_at, looked, second = services._store, batch_enrolment.look_at, [], threading.Event()

    def look(upload, **options):
        seen = look_at(upload, **options)
        looked.append(set(seen.crop.begun))
        if len(looked) == 2:
            second.set()
        return seen

    def slow_store(admitted):
        assert second.wait(10)
        return store(admitted)

    monkeypatch.setattr(batch_enrolment, "BATCH_PICTURES", 1)
    monkeypatch.setattr(batch_enrolment, "look_at", look)
    monkeypatch.setattr(services, "_store", slow_store)
    run_enroll(folder)
    assert looked == [{weights}] * 3


def test_what_was_only_begun_when_a_run_ended_is_enrolled_by_the_next(folder, monkeypatch, weights):
    from enrollment.enrolling import services
    from enrollment.imports import batch_enrolment

    store, calls = services._store, []

    def interrupted(admitted):
        calls.append(admitted)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return store(admitted)

    monkeypatch.setattr(batch_enrolment, "BATCH_PICTURES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(services, "_store", interrupted)
        with pytest.raises(CommandError, match="Interrupted"):
            run_enroll(folder)
    assert [row.status for row in FaceEmbedding.objects.all()] == ["indexed"]
    output, _errors = run_enroll(folder)
    assert output.startswith("2 pictures of 1 person enrolled (0 doubtful), 1 skipped")


def test_second_run_skips_what_is_enrolled(folder, draw_picture, weights):
    run_enroll(folder)
    (folder / "Ana_Lima/3.jpg").write_bytes(draw_picture(seed=4))
    output, _errors = run_enroll(folder)
    assert output.startswith("1 picture of 1 person enrolled (0 doubtful), 3 skipped")
    assert FaceImage.objects.count() == 4


def test_second_run_finishes_an_interrupted_one(folder, weights):
    run_enroll(folder)
    cut_off = FaceEmbedding.objects.first()
    get_vector_store().clear()
    FaceEmbedding.objects.filter(pk=cut_off.pk).update(status="pending", vector=None)
    run_enroll(folder)
    cut_off.refresh_from_db()
    assert cut_off.status == "indexed"
    assert get_vector_store().row_count() == 1


def test_dry_run_writes_nothing(folder, tmp_path, settings):
    output, _errors = run_enroll(folder, "--dry-run")
    assert output.startswith("Dry run, nothing written: 3 pictures of 2 people")
    assert not Person.objects.exists()
    assert not FaceImage.objects.exists()
    assert not Path(settings.MEDIA_ROOT).exists()
    assert not Path(settings.RECOGNITION["MILVUS_URI"]).exists()


def test_dry_run_refuses_what_a_run_refuses(folder, draw_picture, weights):
    (folder / "Ana_Lima/notes.txt").write_text("hello")
    (folder / "Ana_Lima/again.jpg").write_bytes(draw_picture(seed=3))
    assert reasons(folder, "--dry-run") == reasons(folder)


@pytest.fixture
def odd_files(folder: Path, tmp_path: Path, draw_picture) -> Path:
    """Files of every kind that cannot be enrolled, beside files that can."""
    ana = folder / "Ana_Lima"
    (ana / ".DS_Store").write_bytes(b"x")
    (ana / "Thumbs.db").write_bytes(b"x")
    (ana / "notes.txt").write_text("hello")
    (ana / "page.jpg").write_text("<html></html>")
    (ana / "empty.png").write_bytes(b"")
    (ana / "twin.jpg").write_bytes(draw_picture(seed=1))
    (ana / "other.jpg").write_bytes(draw_picture(seed=3))
    (ana / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "outside.jpg").write_bytes(draw_picture(seed=9))
    (ana / "within.jpg").symlink_to(ana / "2.jpg")
    (ana / "loop").symlink_to(folder)
    os.mkfifo(ana / "pipe.jpg")
    (ana / "deeper").mkdir()
    (ana / "deeper/5.jpg").write_bytes(draw_picture(seed=5))
    (folder / "loose.jpg").write_bytes(draw_picture(seed=6))
    (folder / ("x" * 201)).mkdir()
    (folder / ("x" * 201) / "7.jpg").write_bytes(draw_picture(seed=7))
    return folder


def test_every_file_has_a_status_and_a_reason(odd_files, weights):
    results = reasons(odd_files)
    assert {path: status for path, (status, _reason) in results.items()} == {
        "12345678900/a.jpg": "enrolled",
        "Ana_Lima/.DS_Store": "ignored",
        "Ana_Lima/1.jpg": "enrolled",
        "Ana_Lima/2.jpg": "enrolled",
        "Ana_Lima/Thumbs.db": "ignored",
        "Ana_Lima/deeper/5.jpg": "enrolled",
        "Ana_Lima/empty.png": "refused",
        "Ana_Lima/loop": "refused",
        "Ana_Lima/notes.txt": "refused",
        "Ana_Lima/other.jpg": "refused",
        "Ana_Lima/out.jpg": "refused",
        "Ana_Lima/page.jpg": "refused",
        "Ana_Lima/pipe.jpg": "refused",
        "Ana_Lima/twin.jpg": "skipped",
        "Ana_Lima/within.jpg": "skipped",
        "loose.jpg": "refused",
        f"{'x' * 201}/7.jpg": "refused",
    }
    assert all(reason for status, reason in results.values() if status != "enrolled")
    assert results["Ana_Lima/other.jpg"][1].endswith("another person: 12345678900.")
    assert results["Ana_Lima/twin.jpg"][1] == "The same picture as Ana_Lima/1.jpg."
    assert "Links" in results["Ana_Lima/out.jpg"][1]
    assert "not in a person's folder" in results["loose.jpg"][1]
    assert "HTML" in results["Ana_Lima/page.jpg"][1]
    assert list(results) == sorted(results)


def test_refusals_are_printed_without_a_report(odd_files, weights):
    output, errors = run_enroll(odd_files)
    assert "2 skipped, 9 refused, 2 ignored" in output
    assert len(errors.splitlines()) == 9
    assert "Ana_Lima/page.jpg: refused. The file is of type HTML" in errors


def test_flat_folder_is_one_person(folder, weights):
    (folder / "flat.jpg").write_bytes((folder / "Ana_Lima/1.jpg").read_bytes())
    run_enroll(folder, "--person-id", " bia ")
    assert list(Person.objects.values_list("person_id", flat=True)) == ["bia"]
    assert FaceImage.objects.count() == 3


def test_blank_person_id_is_refused(folder):
    with pytest.raises(CommandError, match="blank"):
        run_enroll(folder, "--person-id", "  ")


def test_decomposed_folder_name_is_the_composed_person(folder):
    (folder / unicodedata.normalize("NFD", "José")).mkdir()
    (folder / unicodedata.normalize("NFD", "José") / "1.jpg").write_bytes(b"x")
    assert "José" in {found.person_id for found in find_files(folder)}


def test_folder_name_that_is_no_text_is_refused(folder):
    bad = os.fsencode(folder) + b"/caf\xe9"
    Path(os.fsdecode(bad)).mkdir()
    Path(os.fsdecode(bad + b"/1.jpg")).write_bytes(b"x")
    (found,) = (item for item in find_files(folder) if "caf" in item.shown_path)
    assert found.status is FileStatus.REFUSED
    assert "UTF-8" in found.reason
    assert found.shown_path == "caf\\xe9/1.jpg"


@pytest.mark.skipif(os.geteuid() == 0, reason="The superuser reads every file.")
def test_unreadable_file_is_refused(folder, weights):
    (folder / "Ana_Lima/1.jpg").chmod(0)
    assert reasons(folder)["Ana_Lima/1.jpg"] == (
        "refused",
        "The file cannot be read: Permission denied.",
    )


def test_vanished_file_is_refused(folder, monkeypatch, weights):
    files = find_files(folder)
    (folder / "Ana_Lima/1.jpg").unlink()
    monkeypatch.setattr("enrollment.management.commands.enroll.find_files", lambda *args: files)
    assert reasons(folder)["Ana_Lima/1.jpg"] == (
        "refused",
        "The file cannot be read: No such file or directory.",
    )


def test_file_larger_than_a_request_is_refused(folder, settings, weights):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_REQUEST_BYTES": 1024**2}
    with (folder / "Ana_Lima/1.jpg").open("ab") as file:
        file.truncate(1024**2 + 1)
    assert "MAX_REQUEST_MB" in reasons(folder)["Ana_Lima/1.jpg"][1]


def test_missing_weights_stop_it_before_anything_is_stored(folder, settings, tmp_path):
    settings.RECOGNITION = settings.RECOGNITION | {"WEIGHTS_DIR": tmp_path / "none"}
    with pytest.raises(CommandError, match="has no weights"):
        run_enroll(folder)
    assert not Person.objects.exists()


def test_database_of_another_process_stops_it_before_anything_is_stored(folder, settings, weights):
    with (
        held_by_another_process(settings.RECOGNITION["MILVUS_URI"]),
        pytest.raises(CommandError, match="open in another process"),
    ):
        run_enroll(folder)
    assert not Person.objects.exists()


def test_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(CommandError, match="is not a folder"):
        run_enroll(tmp_path / "nowhere")


def test_interrupt_keeps_what_was_enrolled(folder, monkeypatch, weights):
    from enrollment.imports import batch_enrolment

    monkeypatch.setattr(batch_enrolment, "BATCH_PICTURES", 1)
    enroll_pictures, calls = batch_enrolment.enroll_pictures, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return enroll_pictures(*args, **options)

    monkeypatch.setattr(batch_enrolment, "enroll_pictures", interrupted)
    with pytest.raises(CommandError, match="Interrupted") as error:
        run_enroll(folder)
    assert error.value.returncode == 130
    assert FaceEmbedding.objects.filter(status="indexed").count() == 2


@pytest.mark.parametrize("options", [[], ["--require-face"]])  # the old name of what is always done
def test_pictures_without_a_face_are_refused(folder, weights, options):
    output, errors = io.StringIO(), io.StringIO()
    call_command("enroll", str(folder), *options, stdout=output, stderr=errors)
    assert output.getvalue().startswith("0 pictures of 0 people enrolled")
    assert errors.getvalue().count("No face was found") == 3


def test_warnings_are_printed_counted_and_reported(folder, weights, draw_picture, tmp_path):
    set_thresholds()
    alike = draw_picture(seed=3, quality=60)  # to the picture of 12345678900
    enroll("bia", alike, name="Bia", use_face_detection=False)
    output, errors = run_enroll(folder, "--dry-run")
    assert "(0 doubtful)" in output  # nobody is compared in a dry run

    report = tmp_path / "report.csv"
    output, errors = run_enroll(folder, "--report", str(report))
    assert "3 pictures of 2 people enrolled (3 doubtful)" in output
    with report.open(newline="", encoding="utf-8") as file:
        warnings = {row["file"]: row["warnings"] for row in csv.DictReader(file)}
    assert "other pictures" in warnings["Ana_Lima/1.jpg"]
    assert "who is enrolled: Bia (bia)" in warnings["12345678900/a.jpg"]

    Person.objects.exclude(person_id="bia").delete()
    _output, errors = run_enroll(folder)
    assert (
        "12345678900/a.jpg: doubtful. The face looks like somebody else who is enrolled" in errors
    )


def test_real_people_are_enrolled_with_their_faces(faces, tmp_path, weights):
    people = tmp_path / "people"
    people.mkdir()
    for person in sorted(path for path in faces.iterdir() if path.is_dir())[:3]:
        (people / person.name).mkdir()
        for photo in sorted(person.iterdir())[:2]:
            (people / person.name / photo.name).write_bytes(photo.read_bytes())
    output = io.StringIO()
    call_command("enroll", str(people), stdout=output)
    assert output.getvalue().startswith("6 pictures of 3 people enrolled (0 doubtful)")
    assert set(FaceEmbedding.objects.values_list("status", "face_detected")) == {("indexed", True)}


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_a_new_person_who_may_be_enrolled_already_is_told_once(
    folder, draw_picture, weights, arguments
):
    """Used to be reported at the other entry points only."""
    enroll("123.456.789-00", draw_picture(seed=8), name="Bia Souza")
    enroll("77", draw_picture(seed=9), name="Ana Lima")
    others = {"Ana-Lima/3.jpg": 5, "Bia_Souza/4.jpg": 6, "Bia_Souza/5.jpg": 7, "caio/6.jpg": 10}
    for path, seed in others.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(draw_picture(seed=seed))

    output, errors = run_enroll(folder, *arguments)

    assert "7 pictures of 5 people enrolled (0 doubtful)" in output
    told = {line.partition(":")[0]: line for line in errors.splitlines()}
    assert "differs only in punctuation" in told.pop("12345678900/a.jpg")
    assert "Bia Souza (123.456.789-00) has the same name" in told.pop("Bia_Souza/4.jpg")
    namesake = told.pop("Ana_Lima/1.jpg")  # of a person, and of another folder's
    assert "Ana Lima (77) has the same name" in namesake
    assert "only in punctuation, accents or case from that of Ana-Lima" in namesake
    assert told.keys() <= {"Ana-Lima/3.jpg"}  # nobody is like it until the other is enrolled
    if not arguments:
        _output, errors = run_enroll(folder)
        assert errors == ""


def test_a_refused_file_warns_of_nobody(folder, draw_picture, weights):
    enroll("ana lima", draw_picture(seed=1), name="")
    errors = run_enroll(folder)[1].splitlines()
    assert "is enrolled for another person" in errors[0] or "refused" in errors[0]
    assert ["only in punctuation" in line for line in errors] == [False, True]


def test_the_report_of_a_run_warns_of_whom_a_new_person_may_be(folder, draw_picture, weights):
    enroll("ana.lima", draw_picture(seed=9))
    run_enroll(folder, "--report", str(folder.parent / "report.csv"))
    with (folder.parent / "report.csv").open(newline="", encoding="utf-8") as file:
        warnings = {row["file"]: row["warnings"] for row in csv.DictReader(file)}
    assert "only in punctuation" in warnings.pop("Ana_Lima/1.jpg")
    assert set(warnings.values()) == {""}


def cut_off(folder: Path, monkeypatch, after: int = 1) -> None:
    """Run the command on the folder, and end it as a signal does after so many pictures."""
    from enrollment.enrolling import services
    from enrollment.imports import batch_enrolment

    store, calls = services._store, []

    def killed(admitted):
        calls.append(admitted)
        if len(calls) > after:
            raise SystemExit
        return store(admitted)

    with monkeypatch.context() as patch:
        patch.setattr(batch_enrolment, "BATCH_PICTURES", 1)
        patch.setattr(services, "_store", killed)
        with pytest.raises(SystemExit):
            run_enroll(folder)


def test_a_run_is_an_import_with_a_report_that_stays_and_one_undo(
    folder, weights, boss, settings, draw_picture
):
    (folder / "loose.jpg").write_bytes(b"x")
    odd = os.fsencode(folder / "Ana_Lima") + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).write_bytes(draw_picture(seed=8))
    output, _errors = run_enroll(folder)
    job = ImportJob.objects.get()
    assert (job.source, job.state, job.label, job.folder) == ("folder", "done", "people", "")
    counts = {"enrolled": 4, "skipped": 0, "refused": 1, "ignored": 0, "left": 0}
    assert imports.counts_of(job) == counts
    assert f"trash undo {job.undo.pk}'" in output and job.undo.pictures == 4
    assert FaceImage.objects.filter(original_path="Ana_Lima/caf\\xe9.jpg").exists()
    assert f'/imports/{job.pk}">{job.pk}: people' in boss.get("/imports/").text
    assert "loose.jpg" in boss.get(f"/imports/{job.pk}?show=refused").text
    assert not Probe.objects.exists()  # the files are where they were
    assert not list((settings.DATA_DIR / "imports").glob("job-*"))
    corrections.erase_person(Person.objects.get(person_id="Ana_Lima"))
    assert (folder / "Ana_Lima/1.jpg").exists()
    corrections.undo(job.undo)
    assert not Person.objects.exists()


def test_a_killed_run_goes_on_as_the_same_import(folder, monkeypatch, weights, draw_picture):
    cut_off(folder, monkeypatch)
    job = ImportJob.objects.get()
    ImportJob.objects.update(claim="dead", claimed_until=timezone.now() + timedelta(hours=1))
    assert job.state == "running" and FaceImage.objects.count() == 1
    (folder / "Ana_Lima/0.jpg").write_bytes(draw_picture(seed=9))  # and more came meanwhile
    output, errors = run_enroll(folder)
    assert output.startswith("3 pictures of 1 person enrolled (0 doubtful), 1 skipped")
    job.refresh_from_db()
    assert (job.state, job.undo.pictures, ImportJob.objects.count()) == ("done", 4, 1)
    assert run_enroll(folder)[0].startswith("0 pictures of 0 people enrolled (0 doubtful), 4 sk")


def test_the_server_goes_on_with_a_killed_run(folder, monkeypatch, weights):
    cut_off(folder, monkeypatch)
    assert imports.carry_out_imports() == 1
    job = ImportJob.objects.get()
    assert (job.state, job.undo.pictures) == ("done", 3) and (folder / "Ana_Lima/1.jpg").exists()


def test_what_another_process_does_is_waited_for(folder, monkeypatch, weights):
    cut_off(folder, monkeypatch)
    monkeypatch.setattr(LiteVectorStore, "is_embedded", False)
    ImportJob.objects.update(claim="other", claimed_until=timezone.now() + timedelta(hours=1))

    def other_process(_seconds):
        ImportJob.objects.update(claim="", claimed_until=None)
        imports.carry_out_imports()

    monkeypatch.setattr("enrollment.imports.folder.time.sleep", other_process)
    output, errors = run_enroll(folder)
    assert errors.count("of this folder is in progress; waiting for it.") == 1
    assert output.startswith("0 pictures of 0 people enrolled (0 doubtful), 3 skipped")
    assert [job.state for job in ImportJob.objects.order_by("pk")] == ["done", "done"]


def test_a_run_can_be_paused_and_cancelled_from_its_page(folder, monkeypatch, weights):
    from enrollment.imports import execution

    keep = execution._keep

    def keep_and_pause(*args):
        keep(*args)
        imports.pause_import(ImportJob.objects.get())

    monkeypatch.setattr(execution, "_keep", keep_and_pause)
    monkeypatch.setattr(execution, "BATCH_PICTURES", 1)
    monkeypatch.setattr(
        "enrollment.imports.folder.time.sleep",
        lambda _seconds: imports.cancel_import(ImportJob.objects.get()),
    )
    output, errors = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match="The import was cancelled"):
        call_command("enroll", str(folder), "--no-face-detection", stdout=output, stderr=errors)
    assert "is paused; waiting for it." in errors.getvalue()
    assert ImportJob.objects.get().undo.pictures == FaceImage.objects.count()
    assert f"{FaceImage.objects.count()} pictures of" in output.getvalue()
