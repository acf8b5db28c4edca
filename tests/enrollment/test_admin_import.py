"""Import and export in the admin, merging chosen persons there, and its first page."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import tempfile
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from enrollment import enrolling, imports
from enrollment.admin.states import in_searches
from enrollment.imports import execution, zip_archive
from enrollment.models import FaceEmbedding, FaceImage, ImportJob, Person, Probe, Removal
from tests.enrollment.gallery import enroll, found, stored
from tests.pictures import draw_picture, packed, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_folder")]

UPLOAD = "/admin/enrollment/person/import-pictures/"
PERSONS = "/admin/enrollment/person/"


def send(boss: Client, archive: bytes, **fields: str):
    return boss.post(UPLOAD, {"archive": upload(archive, "faces.zip"), **fields}, follow=True)


def unpacked(settings) -> list[str]:
    files = (settings.DATA_DIR / "imports").rglob("*")
    return [path.name for path in files if path.is_file() and path.suffix != ".json"]


def test_preview_writes_nothing_and_the_import_does_what_it_said(boss, weights, settings):
    enroll("ana", draw_picture(seed=1))
    archive = packed(
        {
            "ana/old.jpg": draw_picture(seed=1),
            "ana/new.jpg": draw_picture(seed=2),
            "b_ia/x/one.png": draw_picture(seed=3, format="PNG"),
            "b_ia/broken.jpg": b"no picture",
            "loose.jpg": draw_picture(seed=4),
            "__MACOSX/ana/._new.jpg": b"x",
        }
    )
    preview = send(boss, archive)
    page = preview.content.decode()
    assert "2 pictures will be added" in page and "1 new person" in page
    assert "1 skipped, 2 refused" in page and "not in a person&#x27;s folder" in page
    assert FaceImage.objects.count() == 1 and Person.objects.count() == 1

    path = preview.redirect_chain[-1][0]
    report = boss.post(path, follow=True)
    assert "2 pictures were added" in report.content.decode()
    assert FaceImage.objects.count() == len(stored()) == 3
    assert Person.objects.get(person_id="b_ia").name == "b ia"
    assert found(draw_picture(seed=3))[0] == "b_ia"
    assert unpacked(settings) == []
    assert Probe.objects.waiting().count() == 1  # loose.jpg, for somebody to decide on

    rows = list(csv.DictReader(io.StringIO(boss.get(path + "?csv").content.decode())))
    states = {row["file"]: row["status"] for row in rows}
    assert states["ana/new.jpg"] == "enrolled" and states["ana/old.jpg"] == "skipped"
    assert states["b_ia/broken.jpg"] == states["loose.jpg"] == "refused"


def test_confirmed_twice_is_imported_once(boss, weights):
    path = send(boss, packed({"ana/1.jpg": draw_picture()})).redirect_chain[-1][0]
    boss.post(path)
    again = boss.post(path, follow=True)
    assert "begun already" in again.content.decode()
    assert FaceImage.objects.count() == 1


def test_import_that_fails_says_so_and_goes_on(boss, weights, monkeypatch):
    path = send(boss, packed({"ana/1.jpg": draw_picture()})).redirect_chain[-1][0]
    with monkeypatch.context() as patch:
        patch.setattr(execution, "each_file", lambda *a, **k: (_ for _ in ()).throw(OSError))
        assert "Something unexpected happened" in boss.post(path, follow=True).content.decode()
    done = boss.post(path, {"resume": "1"}, follow=True)
    assert "1 picture was added" in done.content.decode()


def test_cancelled_import_leaves_nothing(boss, weights, settings):
    path = send(boss, packed({"ana/1.jpg": draw_picture()})).redirect_chain[-1][0]
    assert "Nothing was imported" in boss.post(path, {"cancel": "1"}, follow=True).content.decode()
    assert list((settings.DATA_DIR / "imports").iterdir()) == []
    assert "is gone" in boss.get(path, follow=True).content.decode()


def test_persons_wrapped_in_one_folder_are_found(boss, weights):
    files = {"photos/ana/1.jpg": draw_picture(seed=1), "photos/bia/1.jpg": draw_picture(seed=2)}
    path = send(boss, packed(files)).redirect_chain[-1][0]
    boss.post(path)
    assert set(Person.objects.values_list("person_id", flat=True)) == {"ana", "bia"}


@pytest.mark.parametrize(
    ("beside", "persons"),
    [
        ({"photos/list.txt": "ana, bia"}, {"ana", "bia"}),
        ({"photos/loose.jpg": draw_picture(seed=3)}, {"ana", "bia"}),
        ({f"photos/{seed}.jpg": draw_picture(seed=seed) for seed in (3, 4)}, {"photos"}),
    ],
    ids=["a list", "a loose picture", "the folder of one person"],
)
def test_what_lies_beside_wrapped_persons_makes_them_not_one(boss, weights, beside, persons):
    """A single file beside their folders, and everybody's pictures were the outer folder's."""
    files = {"photos/ana/1.jpg": draw_picture(seed=1), "photos/bia/1.jpg": draw_picture(seed=2)}
    path = send(boss, packed(files | beside)).redirect_chain[-1][0]
    boss.post(path)
    assert set(Person.objects.values_list("person_id", flat=True)) == persons


def test_faces_are_required(boss, weights):
    page = send(boss, packed({"ana/1.jpg": draw_picture()}), use_face_detection="on")
    assert "0 pictures will be added" in page.content.decode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no zip", "is no ZIP"),
        (packed({"../../etc/x.jpg": b"x"}), "outside of its folders"),
        (packed({"/etc/x.jpg": b"x"}), "outside of its folders"),
        (packed({"ana/" + "x" * 300 + ".jpg": b"x"}), "names that cannot be files"),
        (packed({"ana": b"x", "ana/1.jpg": b"x"}), "names that cannot be files"),
    ],
    ids=["text", "upwards", "absolute", "long name", "file and folder"],
)
def test_hostile_archives_are_refused_in_a_sentence(boss, weights, settings, content, sentence):
    refused = send(boss, content)
    assert sentence in refused.content.decode()
    assert unpacked(settings) == [] and not Person.objects.exists()


def test_bomb_is_refused_before_it_is_unpacked(boss, weights, monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_BYTES", 1000)
    refused = send(boss, packed({"ana/1.jpg": b"0" * 2000}))
    assert "Split it" in refused.content.decode()


def test_link_in_an_archive_is_left_out(boss, weights):
    link = zipfile.ZipInfo("ana/passwd.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = packed({link: "/etc/passwd", "ana/1.jpg": draw_picture()})
    page = send(boss, archive).content.decode()
    assert "passwd" not in page and "1 picture will be added" in page


def test_imports_belong_to_who_uploaded_them(boss, weights):
    path = send(boss, packed({"ana/1.jpg": draw_picture()})).redirect_chain[-1][0]
    other = Client(headers={"host": "localhost"})
    other.force_login(User.objects.create_superuser("other"))
    assert "is gone" in other.post(path, follow=True).content.decode()
    assert not Person.objects.exists()


def test_missing_weights_are_said_before_anything_is_unpacked(boss, no_weights, settings):
    assert "weights" in send(boss, packed({"ana/1.jpg": draw_picture()})).content.decode()
    assert not (settings.DATA_DIR / "imports").exists()


def test_viewers_of_persons_import_nothing(db):
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_person"))
    browser = Client(headers={"host": "localhost"})
    browser.force_login(staff)
    assert UPLOAD not in browser.get(PERSONS).content.decode()
    assert browser.get(UPLOAD).status_code == 403
    assert browser.get(PERSONS + "import/").status_code == 403


def import_csv(boss: Client, text: str, encoding: str = "utf-8"):
    """Return the preview, or the result of the confirmed import if the preview has no errors."""
    file = SimpleUploadedFile("persons.csv", text.encode(encoding), "text/csv")
    preview = boss.post(PERSONS + "import/", {"import_file": file, "format": "0", "resource": ""})
    assert "picture_count" not in preview.content.decode()  # nothing that an import can change
    form = preview.context.get("confirm_form")
    if form is None:
        return preview
    assert not Person.objects.filter(name="Bia").exists()
    return boss.post(PERSONS + "process_import/", form.initial, follow=True)


def test_persons_are_imported_from_csv(boss, weights, commits):
    enroll("ana", draw_picture())
    with commits():
        done = import_csv(boss, "person_id,name,notes\n ana ,Ana,gate\nb/ia,Bia,\n")
    assert done.status_code == 200
    people = {each.person_id: (each.name, each.notes) for each in Person.objects.all()}
    assert people == {"ana": ("Ana", "gate"), "b/ia": ("Bia", "")}
    assert FaceImage.objects.get().person.person_id == "ana"


def test_persons_are_imported_as_spreadsheets_write_them(boss):
    import_csv(boss, 'person_id;name;notes\r\n1;João;"a; b, c"\r\n', "utf-8-sig")
    person = Person.objects.get()
    assert (person.person_id, person.name, person.notes) == ("1", "João", "a; b, c")


def test_file_in_another_encoding_is_refused(boss):
    page = import_csv(boss, "person_id,name\n1,João\n", "latin-1").content.decode()
    assert "The file cannot be read." in page and not Person.objects.exists()


def test_persons_are_imported_in_portuguese(boss):
    boss.defaults["HTTP_ACCEPT_LANGUAGE"] = "pt-BR"
    done = import_csv(boss, "person_id,name\nana,Ana\n").content.decode()
    assert "Importação concluída: 1 de novo cadastro, 0 com mudanças" in done


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cpf,name\n1,Ana\n", "It has: cpf, name; expected are: person_id, name, notes, "),
        ("1;Ana\n2;Bia\n", "It has: 1, Ana; expected are"),
    ],
)
def test_file_that_names_nobody_is_refused(boss, text, told):
    page = import_csv(boss, text).content.decode()
    assert told in page and "Traceback" not in page and ".venv" not in page
    assert not Person.objects.exists()


def test_bad_row_imports_nothing(boss):
    page = import_csv(boss, "person_id,name,notes\n,Nobody,\nzoe,Zoe,\n")
    assert page.status_code == 200 and not Person.objects.exists()


@pytest.mark.parametrize(("format", "read"), [("0", csv.DictReader), ("1", json.load)])
def test_persons_are_exported(boss, weights, format, read):
    enroll("ç %\"'/", draw_picture(), name="Ana")
    page = boss.get(PERSONS + "export/").content.decode()
    assert " onchange=" not in page and " style=" not in page
    assert '<option value="0" selected>csv</option>' in page
    answer = boss.post(PERSONS + "export/", {"format": format, "resource": ""})
    assert answer["Content-Disposition"].startswith("attachment")
    (row,) = read(io.StringIO(answer.content.decode()))
    assert (row["person_id"], row["name"], str(row["picture_count"])) == ("ç %\"'/", "Ana", "1")


def test_chosen_persons_are_merged_after_a_question(boss, weights, commits):
    people = [enroll(name, draw_picture(seed=n)).person for n, name in enumerate("abc")]
    form = {"action": "merge_selected", "_selected_action": [each.pk for each in people]}
    asked = boss.post(PERSONS, form)
    assert "All 3 pictures go to the one you keep" in asked.content.decode()
    assert Person.objects.count() == 3
    with commits():
        done = boss.post(PERSONS, form | {"keep": people[1].pk}, follow=True)
    assert "2 people are now part of b; pictures moved: 2." in done.content.decode()
    assert Person.objects.get() == people[1]
    assert {row.person_id for row in stored()} == {"b"}
    alone = boss.post(PERSONS, form | {"_selected_action": [people[1].pk]}, follow=True)
    assert "Choose two people or more" in alone.content.decode()


def test_first_page_tells_the_state_and_leads_everywhere(boss, weights):
    enroll("ana", draw_picture(seed=1), draw_picture(seed=2))
    Person.objects.create(person_id="empty")
    FaceEmbedding.objects.filter(pk=FaceEmbedding.objects.first().pk).update(status="failed")
    Removal.objects.create(embedding_id=1, partition="x")
    page = boss.get("/admin/").content.decode()
    for text in ("state=failed", "pictures=no", "deleted pictures that are still to be removed"):
        assert text in page
    for name in (
        "enrollment_import_pictures",
        "enrollment_person_import",
        "enrollment_person_export",
    ):
        path = reverse(f"admin:{name}")
        assert f'href="{path}"' in page and boss.get(path).status_code == 200
    assert "<strong>2</strong> people" in page
    assert in_searches(2) == (1, 0, 1)
    FaceEmbedding.objects.filter(status="failed").delete()
    assert in_searches(2) == (1, 1, 0)


def test_first_page_keeps_the_state_from_others(db):
    staff = User.objects.create_user("staff", is_staff=True)
    browser = Client(headers={"host": "localhost"})
    browser.force_login(staff)
    assert "figures" not in browser.get("/admin/").content.decode()


CASES = Path(__file__).parent.parent / "cases"
FORMULAS = ["=1+1", "@SUM(A1)", "-2+3", "+cmd|' /C calc'!A0", "\tx", "'=quoted"]


def test_formulas_are_escaped_on_export_and_come_back_as_they_were(boss):
    for number, text in enumerate(FORMULAS):
        Person(person_id=f"{number}", name=text).save()
    Person(person_id="+55 11 98765-4321", name="O'Hara").save()
    exported = boss.post(PERSONS + "export/", {"format": "0"}).content.decode()
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert all(
        not cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row.values()
    )
    before = list(Person.objects.values_list("person_id", "name"))
    Person.objects.all().delete()
    import_csv(boss, exported)
    assert list(Person.objects.values_list("person_id", "name")) == before


def test_file_of_formulas_is_imported_and_exported_escaped(boss):
    import_csv(boss, (CASES / "persons_formula.csv").read_text())
    assert Person.objects.get().person_id == "=1+1"
    exported = boss.post(PERSONS + "export/", {"format": "0"}).content.decode()
    assert "\n'=1+1,'@SUM(A1)," in exported.replace("\r", "")


def test_report_of_an_import_holds_no_formula(boss, weights):
    path = send(boss, packed({"=1+1/1.jpg": b"no picture"})).redirect_chain[-1][0]
    (row,) = csv.DictReader(io.StringIO(boss.get(path + "?csv").content.decode()))
    assert row["person_id"] == "'=1+1" and row["file"].startswith("'=")


def test_row_with_too_many_values_is_named(boss):
    page = import_csv(boss, (CASES / "persons_extra_column.csv").read_text())
    errors = " ".join(page.context["form"].errors["import_file"])
    assert "Line 3 has 3 values" in errors and "'extra'" in errors
    import_csv(boss, "person_id,name\n1,Ana,,\n")  # empty ones do no harm
    assert Person.objects.get().name == "Ana"


@pytest.mark.parametrize("person_id", ["1.2346E+10", '"1,2346E+10"', "1E+11", "1.23e+09"])
def test_ids_that_a_spreadsheet_shortened_are_refused(boss, person_id):
    page = import_csv(boss, f"person_id,name\n{person_id},Ana\n")
    assert "shortened" in page.content.decode()
    assert not Person.objects.exists()


def test_previews_leave_nothing_behind(boss, weights, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path(tempfile.gettempdir()).mkdir()
    file = SimpleUploadedFile("persons.csv", b"person_id,name\n1,Ana\n", "text/csv")
    preview = boss.post(PERSONS + "import/", {"import_file": file, "format": "0", "resource": ""})
    assert preview.status_code == 200 and not Person.objects.exists()
    send(boss, packed({"ana/1.jpg": draw_picture()}))
    folder = settings.DATA_DIR / "imports"
    assert len(list(folder.iterdir())) == 2
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    enrolling.forget_old_imports()
    ImportJob.objects.update(changed_at=timezone.now() - timedelta(days=2))
    imports.forget_old_jobs()
    assert list(folder.iterdir()) == [] and list(Path(tempfile.gettempdir()).iterdir()) == []
