"""The desk for data subjects: access, correction, erasure with a receipt, consent and purposes."""

from __future__ import annotations

import base64
import errno
import html
import io
import json
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.files.storage import default_storage
from django.core.management import CommandError
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from enrollment import corrections, desk, enrolling, gallery, journal
from enrollment.desk import person_export
from enrollment.exceptions import UnknownPurpose
from enrollment.gallery import persons_expiring, search_gallery, selectors
from enrollment.installation_key import public_key
from enrollment.models import (
    AccessToken,
    BackupRecord,
    Consent,
    FaceEmbedding,
    FaceImage,
    Person,
    Purpose,
    Receipt,
    SearchEntry,
    TrashItem,
)
from enrollment.web.imports import PictureImportForm
from recognition.embedding import Embeddings
from recognition.networks import find_weights
from tests.commands import run
from tests.enrollment.gallery import MODEL, add_vectors, enroll, set_thresholds, stored
from tests.pictures import draw_picture, upload

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights", "data_folder")]

CPF = "123.456.789-09"


@pytest.fixture
def ana(commits) -> Person:
    """Ana with two pictures, a consent with its document, and a search that found her."""
    with commits():
        enroll(CPF, *(draw_picture((112, 112), seed=seed) for seed in (1, 2)), name="Ana <Lima>")
    person = Person.objects.get()
    enrolling.add_consent(
        person,
        document=upload(b"%PDF-1.4 signed", "termo.pdf"),
        day=timezone.localdate(),
        purposes=[Purpose.objects.create(name="door")],
    )
    SearchEntry.objects.create(
        username="maria", channel="page", model=MODEL, person=person, similarity=0.97,
        decision="match", answers=1,
    )  # fmt: skip
    return person


def opened(content: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(content))


# Access


def exported_by_page(person: Person, boss: Client, api: APIClient, folder: Path) -> bytes:
    page = boss.get(f"/people/{person.pk}/access")
    assert f'href="/people/{person.pk}/export"' in page.text
    return b"".join(boss.get(f"/people/{person.pk}/export").streaming_content)


def exported_by_api(person: Person, boss: Client, api: APIClient, folder: Path) -> bytes:
    answer = api.get(f"/api/persons/{person.person_id}/export")
    assert answer.status_code == 200 and answer["Content-Type"] == "application/zip"
    assert person.person_id not in answer["Content-Disposition"]
    return b"".join(answer.streaming_content)


def exported_by_command(person: Person, boss: Client, api: APIClient, folder: Path) -> bytes:
    path = folder / "ana.zip"
    assert "2 pictures were exported." in run("export_person", person.person_id, path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match="is there already"):
        run("export_person", person.person_id, path)
    return path.read_bytes()


def test_export_goes_on_when_something_is_deleted_meanwhile(ana, tmp_path, monkeypatch):
    """A consent that was removed in between was a 500; of a picture its file was named, and not there."""
    described = person_export._described

    def and_then_removed(person: Person) -> dict[str, Any]:
        content = described(person)
        person.consents.all().delete()
        person.face_images.order_by("pk")[0].delete()
        return content

    monkeypatch.setattr(person_export, "_described", and_then_removed)
    path = tmp_path / "ana.zip"
    run("export_person", ana.person_id, path)
    archive = opened(path.read_bytes())
    told = json.loads(archive.read("person.json"))
    files = [each["file"] for each in [*told["pictures"], *told["consents"]]]
    assert files[0] is None and files[1] in archive.namelist() and files[2] is None


def test_export_has_its_name_once_it_is_whole(ana, tmp_path, monkeypatch):
    """A killed command left half a ZIP under the name that was asked for."""
    folder = tmp_path / "exports"
    folder.mkdir()
    path = folder / "ana.zip"
    vectors_of = person_export._vectors

    def told(person: Person) -> list[dict[str, Any]]:
        assert not path.exists()
        return vectors_of(person)

    monkeypatch.setattr(person_export, "_vectors", told)
    run("export_person", ana.person_id, path)
    assert opened(path.read_bytes()).testzip() is None and list(folder.iterdir()) == [path]


@pytest.mark.parametrize("export", [exported_by_page, exported_by_api, exported_by_command])
def test_access_is_a_zip_of_all_that_is_kept(
    ana, boss, api, tmp_path, export: Callable[..., bytes]
):
    archive = opened(export(ana, boss, api, tmp_path))
    told = json.loads(archive.read("person.json"))
    assert told["person"]["person_id"] == CPF and told["person"]["name"] == "Ana <Lima>"
    pictures = list(FaceImage.objects.order_by("pk"))
    assert [each["number"] for each in told["pictures"]] == [picture.pk for picture in pictures]
    for picture, each in zip(pictures, told["pictures"], strict=True):
        assert archive.read(each["file"]) == picture.image.read()
        assert each["original_path"] == picture.original_path and each["source"] == "api"
    vectors = json.loads(archive.read("vectors.json"))
    assert [len(each["vector"]) for each in vectors] == [512, 512]
    (search,) = told["searches"]
    assert (search["who"], search["decision"]) == ("maria", "match")
    (consent,) = told["consents"]
    assert consent["purposes"] == ["door"] and archive.read(consent["file"]) == b"%PDF-1.4 signed"
    english, portuguese = (archive.read(name).decode() for name in ("person.html", "pessoa.html"))
    assert "What is kept of you" in english and "Ana &lt;Lima&gt;" in english
    assert 'lang="pt-br"' in portuguese and "What is kept" not in portuguese
    assert archive.testzip() is None


def test_access_tells_nothing_of_others_and_says_which_file_is_missing(ana, boss, commits):
    with commits():
        enroll(
            "hans blix", draw_picture((112, 112), seed=1)
        )  # the same picture: a doubt about both
    picture = ana.face_images.first()
    picture.image.storage.delete(picture.image.name)
    archive = opened(b"".join(boss.get(f"/people/{ana.pk}/export").streaming_content))
    for name in archive.namelist():
        assert b"hans" not in archive.read(name)
    files = [each["file"] for each in json.loads(archive.read("person.json"))["pictures"]]
    assert files[0] is None and files[1] in archive.namelist()


def test_correction_tells_where_and_what_was_changed_by_whom(ana, boss):
    boss.post(f"/people/{ana.pk}/details", {"person_id": CPF, "name": "Ana Lima"})
    page = html.unescape(boss.get(f"/people/{ana.pk}/correction").text)
    assert f"/people/{ana.pk}/details" in page
    (line,) = [
        line for line in re.findall(r"<li><time.*?</li>", page, re.DOTALL) if "Ana Lima" in line
    ]
    assert "admin" in line


def test_an_export_and_a_consent_stand_in_the_history_in_words(ana, boss):
    b"".join(boss.get(f"/people/{ana.pk}/export").streaming_content)
    page = html.unescape(boss.get(f"/people/{ana.pk}/").text)
    assert "admin exported" in page and f"{ana}: consent" in page


def test_the_journal_shows_a_backup(ana, boss, api, tmp_path):
    run("backup", tmp_path / "faces.tar")
    assert "made a backup" in boss.get("/admin/enrollment/journalentry/").text
    assert api.get("/api/journal?action=backed_up").json()["count"] == 1


# Erasure


def erased_by_page(person: Person, boss: Client, folder: Path) -> tuple[str, str]:
    asked = boss.get(f"/people/{person.pk}/erasure").text
    assert "number 7 of" in html.unescape(asked)
    page = boss.post(f"/people/{person.pk}/erasure", {"ground": "withdrawal"})
    shown, data = linked(page.text)
    return shown, data


def linked(page: str) -> list[str]:
    """Return the files that the page offers to save."""
    links = re.findall(r'href="data:[\w/]+;charset=utf-8;base64,([^"]+)"', page)
    return [base64.b64decode(link).decode() for link in links]


def erased_by_command(person: Person, boss: Client, folder: Path) -> tuple[str, str]:
    with pytest.raises(CommandError, match="There is no folder"):
        run("erase_person", person.person_id, "--receipts", folder / "absent")
    words = ("--ground", "withdrawal", "--receipts", folder)
    data, page = run("erase_person", person.person_id, *words).split()
    return Path(page).read_text(), Path(data).read_text()


@pytest.mark.parametrize("erase", [erased_by_page, erased_by_command])
def test_erasure_gives_a_receipt_that_verifies(ana, boss, tmp_path, settings, erase):
    BackupRecord.objects.create(pk=7, file="/backups/a.tar", size=1, persons=1, pictures=2)
    page, data = erase(ana, boss, tmp_path)
    assert not Person.objects.exists() and stored() == []
    assert not [path for path in Path(default_storage.location).rglob("*") if path.is_file()]
    receipt = json.loads(data)["receipt"]
    assert receipt["person_id"] == CPF and receipt["ground"] == "withdrawal"
    counts = receipt["removed"]
    assert (counts["pictures"], counts["vectors"], counts["consents"]) == (2, 2, 1)
    assert receipt["still_to_be_removed"] == 0
    assert [backup["number"] for backup in receipt["backups"]] == [7]
    assert "Lima" not in page + data and "/backups" not in page + data
    assert "Recibo" in page and "Receipt" in page and CPF in page
    key = tmp_path / "public.pem"
    key.write_text(run("receipt", "--public-key"))
    files = {"receipt.json": data, "receipt.html": page}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        told = run("receipt", "--verify", tmp_path / name)
        assert "The signature is right." in told and "another way" not in told
    settings.DATA_DIR = tmp_path / "elsewhere"
    settings.DATA_DIR.mkdir()
    assert "is right" in run("receipt", "--verify", tmp_path / "receipt.json", "--key", key)
    with pytest.raises(CommandError, match="not of this key"):
        run("receipt", "--verify", tmp_path / "receipt.json")


def test_an_erasing_answer_of_the_api_is_verified_as_it_was_saved(ana, api, tmp_path):
    """`curl -X DELETE … > receipt.json` was said to be no receipt."""
    path = tmp_path / "receipt.json"
    path.write_bytes(api.delete(f"/api/persons/{CPF}?erase=true").content)
    assert "is right" in run("receipt", "--verify", path)


def test_a_receipt_that_the_disk_does_not_take_is_printed(ana, tmp_path, monkeypatch):
    def full(*_given):
        raise OSError(errno.ENOSPC, "No space left on device")

    run("receipt", "--public-key")  # makes the key
    monkeypatch.setattr("os.fsync", full)
    folder = tmp_path / "receipts"
    folder.mkdir()
    output = run("erase_person", ana.person_id, "--receipts", folder)
    assert not list(folder.iterdir())  # nor half of it
    told, brace, data = output.partition("{")
    assert "No space left on device" in told
    assert json.loads(brace + data)["receipt"]["person_id"] == CPF


def test_a_key_that_the_disk_does_not_take_is_not_called_a_wrong_one(
    ana, api, data_folder, monkeypatch
):
    """The first erasure on a full disk told to bring the right key back."""

    def full(*_given):
        raise OSError(errno.ENOSPC, "No space left on device")

    (data_folder / "installation_key").unlink(missing_ok=True)
    monkeypatch.setattr("os.fsync", full)
    refused = api.delete(f"/api/persons/{CPF}?erase=true")
    assert refused.status_code == 503 and refused.json()["error"] == "key_refused"
    assert "cannot be read or made: No space left on device" in refused.json()["message"]
    assert not (data_folder / "installation_key").exists() and Person.objects.exists()


def test_a_receipt_of_another_key_is_not_simply_said_to_be_none(ana, data_folder):
    """Once installation_key was lost, the right number and id were said to be wrong."""
    desk.erase_with_receipt(ana)
    (data_folder / "installation_key").unlink()
    number = Receipt.objects.get().pk
    with pytest.raises(CommandError, match="or installation_key was another one"):
        run("receipt", "--again", number, "--person-id", CPF)


def test_the_first_erasure_with_another_key_tells_that_the_old_one_may_be_lost(
    ana, data_folder, caplog
):
    bia, cia = (Person.objects.create(person_id=each) for each in ("bia", "cia"))
    desk.erase_with_receipt(ana)
    assert "installation_key" not in caplog.text
    (data_folder / "installation_key").unlink()
    desk.erase_with_receipt(bia)
    desk.erase_with_receipt(cia)
    assert caplog.text.count("noted with another installation_key") == 1


def test_nobody_is_erased_where_receipts_cannot_be_written(ana, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *given, **named: False)
    with pytest.raises(CommandError, match="cannot be written"):
        run("erase_person", ana.person_id, "--receipts", tmp_path)
    assert Person.objects.exists()


def test_altered_receipts_are_found(ana, tmp_path):
    signed = desk.erase_with_receipt(ana)
    path = tmp_path / "receipt.json"
    altered = signed | {"receipt": signed["receipt"] | {"person_id": "somebody else"}}
    path.write_text(desk.receipt_json(altered))
    with pytest.raises(CommandError, match="altered"):
        run("receipt", "--verify", path)
    page = desk.receipt_page(signed)
    path.write_text(page.replace("<td>2</td>", "<td>9</td>"))
    assert "believe what stands above" in run("receipt", "--verify", path)
    for broken in ("", "{}", '{"receipt": 1, "public_key": "", "signature": ""}', "<html>"):
        path.write_text(broken)
        with pytest.raises(CommandError, match="This is no receipt"):
            run("receipt", "--verify", path)


def test_the_server_keeps_no_id_and_makes_the_receipt_again_for_whoever_knows_it(ana):
    signed = desk.erase_with_receipt(ana)
    receipt = Receipt.objects.get()
    assert CPF not in json.dumps(receipt.content) + receipt.subject
    again = run("receipt", "--again", receipt.pk, "--person-id", CPF)
    assert json.loads(again) == signed
    with pytest.raises(CommandError, match="no receipt"):
        run("receipt", "--again", receipt.pk, "--person-id", "ana")


def of_the_trash_page(item: TrashItem, boss: Client, api: APIClient) -> str:
    assert "signed receipt" in boss.get("/people/trash").text
    return linked(boss.post(f"/people/trash/{item.pk}/erase").text)[1]


def of_the_admin(item: TrashItem, boss: Client, api: APIClient) -> str:
    form = {"action": "erase_selected", "_selected_action": [item.pk]}
    return linked(boss.post("/admin/enrollment/trashitem/", form).text)[1]


def of_the_api(item: TrashItem, boss: Client, api: APIClient) -> str:
    answer = api.delete(f"/api/persons/{CPF}?erase=true").json()
    assert answer["deleted_pictures"] == 2
    return json.dumps(answer["receipt"])


def of_the_trash_api(item: TrashItem, boss: Client, api: APIClient) -> str:
    (receipt,) = api.delete(f"/api/trash/{item.pk}").json()["receipts"]
    return json.dumps(receipt)


def of_the_command(item: TrashItem, boss: Client, api: APIClient) -> str:
    return run("erase_person", CPF)


def of_the_trash_command(item: TrashItem, boss: Client, api: APIClient) -> str:
    return run("trash", "erase", item.pk).removesuffix("Erased for good.\n")


@pytest.mark.parametrize(
    "erase",
    [
        of_the_trash_page,
        of_the_admin,
        of_the_api,
        of_the_trash_api,
        of_the_command,
        of_the_trash_command,
    ],
)
def test_whoever_is_only_in_the_trash_is_erased_with_a_receipt(ana, boss, api, commits, erase):
    BackupRecord.objects.create(pk=7, file="/backups/a.tar", size=1, persons=1, pictures=2)
    with commits():
        bia = corrections.create_person("bia")
        corrections.delete_person(bia)
        corrections.delete_pictures(ana, [ana.face_images.first().pk])
        item = corrections.delete_person(ana).undo
    data = erase(item, boss, api)
    signed = desk.read_receipt(data)
    public = public_key(signed["public_key"])
    assert desk.verify_receipt(signed, public)
    receipt = signed["receipt"]
    assert receipt["person_id"] == CPF and [each["number"] for each in receipt["backups"]] == [7]
    assert receipt["removed"] == {
        "persons": 1,
        "pictures": 2,
        "vectors": 2,
        "doubts": 0,
        "consents": 1,
        "feedback": 0,
        "kept_faces": 0,
        "search_log_entries_without_the_person_now": 1,
    }
    assert [each.person_ids for each in TrashItem.objects.all()] == [["bia"]]
    assert receipt["still_to_be_removed"] == 0 and stored() == []
    assert not [path for path in Path(default_storage.location).rglob("*") if path.is_file()]
    assert json.loads(run("receipt", "--again", receipt["number"], "--person-id", CPF)) == signed


def test_nobody_is_erased_without_a_receipt_nor_certified_twice(ana, api, commits):
    path = f"/api/persons/{CPF}?erase=true"
    assert api.delete(path).status_code == 200
    answer = api.delete(path)
    assert (answer.status_code, answer.json()["error"]) == (404, "person_not_found")
    with pytest.raises(CommandError, match="Nobody has the id"):
        run("erase_person", CPF)
    with pytest.raises(CommandError, match="does not hold this"):
        run("trash", "erase", 99)
    assert Receipt.objects.count() == 1


def test_the_receipt_of_somebody_enrolled_counts_what_the_trash_holds(ana, commits):
    with commits():
        corrections.delete_pictures(ana, [ana.face_images.first().pk])
    removed = desk.erase_with_receipt(ana)["receipt"]["removed"]
    assert (removed["persons"], removed["pictures"], removed["vectors"]) == (1, 2, 2)


def test_an_item_of_pictures_is_erased_without_a_receipt(ana, boss, commits):
    with commits():
        item = corrections.delete_pictures(ana, [ana.face_images.first().pk]).undo
    shown = boss.post(f"/people/trash/{item.pk}/erase", follow=True).text
    assert "Erased for good" in shown and not Receipt.objects.exists()


def test_erasing_one_of_two_deleted_with_the_same_id_leaves_the_other(commits):
    with commits():
        items = [
            corrections.delete_person(corrections.create_person("ana")).undo for _number in range(2)
        ]
        desk.erase_item_with_receipts(items[0].pk)
    assert str(corrections.trashed_person("ana")) == str(items[1])


# Correction by command


def test_a_person_is_corrected_by_command(ana):
    with journal.acting(lambda: journal.command_author("change_person")):
        run("change_person", CPF, "--name", "Ana Lima", "--legal-basis", "contract")
        told = run("change_person", CPF)
        assert "name: Ana Lima\n" in told and "legal_basis: contract\n" in told
        assert "(change_person)" in told and "“Ana <Lima>” → “Ana Lima”" in told
        run("change_person", CPF, "--keep-until", "2999-12-31")
        assert "keep_until: 2999-12-31" in run("change_person", CPF, "--new-id", "ana")
        told = run("change_person", "ana", "--keep-until", "", "--notes", "")
    assert "keep_until:\n" in told and "notes:\n" in told
    for words, said in (
        (("absent",), "Nobody has the id"),
        (("ana", "--keep-until", "2001-01-01"), "is past"),
        (("ana", "--keep-until", "soon"), "no day"),
    ):
        with pytest.raises(CommandError, match=said):
            run("change_person", *words)


# Consent


def test_consents_are_listed_recorded_and_removed_by_command(ana, tmp_path):
    path = tmp_path / "contract.txt"
    path.write_text("signed")
    with journal.acting(lambda: journal.command_author("consents")):
        told = run(
            "consents", CPF, "--add", path, "--day", "2026-01-31", "--expires", "2026-12-31",
            "--purpose", "door",
        )  # fmt: skip
        made = Consent.objects.order_by("pk").last()
        line = f"{made.pk}  2026-01-31, expires: 2026-12-31, purposes: door  contract.txt\n"
        assert line in told and gallery.read_document(made) == b"signed"
        run("consents", CPF, "--remove", made.pk)
    assert "termo.pdf" in run("consents", CPF) and ana.consents.count() == 1
    lines = journal.find_lines(who="consents")
    assert [line.facts["act"] for line in lines] == ["removed", "recorded"]
    run("consents", CPF, "--add")
    assert ana.consents.filter(day=timezone.localdate(), document="").exists()
    for words, said in (
        (("--add", tmp_path / "absent.pdf"), "cannot be read"),
        (("--add", "--purpose", "gate"), "Known: door"),
        (("--add", "--day", "2026-02-01", "--expires", "2026-01-01"), "before"),
        (("--add", "--day", "2999-01-01"), "yet to come"),
        (("--remove", made.pk), "has no consent"),
        (("--purpose", "door"), "is for --add alone"),
    ):
        with pytest.raises(CommandError, match=said):
            run("consents", CPF, *words)


@pytest.mark.parametrize(("zone", "last"), [("America/Sao_Paulo", 26), ("UTC", 27)])
def test_no_consent_is_of_tomorrow(ana, boss, api, settings, monkeypatch, zone: str, last: int):
    """At 01:30 UTC it is still the day before in São Paulo."""
    settings.TIME_ZONE = zone
    monkeypatch.setattr(timezone, "now", lambda: datetime(2026, 11, 27, 1, 30, tzinfo=UTC))
    page, path = f"/people/{ana.pk}/consents", f"/api/persons/{CPF}/consents"
    for day, is_given in ((last, True), (last + 1, False)):
        sent = {"day": f"2026-11-{day}"}
        made = api.post(path, sent)
        assert made.status_code == (201 if is_given else 400)
        assert is_given or "yet to come" in made.json()["message"]
        assert ("yet to come" in boss.post(page, sent, follow=True).text) is not is_given
    form = PictureImportForm({"consent_day": f"2026-11-{last + 1}"})
    assert "yet to come" in str(form.errors["consent_day"])
    job = {"archive": upload(b"PK", "a.zip"), "consent_day": f"2026-11-{last + 1}"}
    assert "yet to come" in api.post("/api/jobs", job).json()["message"]


def test_consents_are_recorded_read_and_removed_by_page_and_api(ana, boss, api):
    page = f"/people/{ana.pk}/consents"
    day = timezone.localdate()
    form = {"day": day, "expires": day - timedelta(days=1)}
    assert "before" in html.unescape(boss.post(page, form).text)
    assert "is not allowed" in boss.post(page, {"day": day, "document": upload(b"x", "a.exe")}).text
    purpose = Purpose.objects.get()
    form = {"day": day, "document": upload(b"hello", "consent.txt"), "purposes": [purpose.pk]}
    shown = boss.post(page, form, follow=True).text
    assert "The consent was recorded." in shown and "consent.txt" in shown
    newest = Consent.objects.order_by("pk").last()
    answer = boss.get(f"{page}/{newest.pk}")
    assert b"".join(answer.streaming_content) == b"hello"
    assert answer["Content-Disposition"].startswith("attachment")
    path = f"/api/persons/{CPF}/consents"
    sent = {"document": upload(b"by api", "api.pdf"), "day": str(day), "purposes": ["door"]}
    made = api.post(path, sent)
    assert made.status_code == 201 and made.json()["is_in_force"] is True
    unknown = api.post(path, {"day": str(day), "purposes": ["gate"]})
    assert unknown.json()["error"] == UnknownPurpose.code and "door" in unknown.json()["message"]
    assert len(api.get(path).json()["results"]) == 3
    bare = api.post(path, {"day": str(day)}).json()["id"]
    answer = api.get(f"{path}/{bare}")
    assert (answer.status_code, answer.json()["error"]) == (404, "consent_not_found")
    assert "without a document" in answer.json()["message"]  # it was 503, to be tried again
    api.delete(f"{path}/{bare}")
    number = made.json()["id"]
    assert b"".join(api.get(f"{path}/{number}").streaming_content) == b"by api"
    assert api.delete(f"{path}/{number}").json()["id"] == number
    assert api.get(f"{path}/{number}").json()["error"] == "consent_not_found"
    boss.post(page, {"remove": newest.pk})
    assert ana.consents.count() == 1


def test_merging_hands_consents_over(ana, commits):
    with commits():
        kept = corrections.create_person("bia")
        corrections.merge_persons(kept, ana)
    (consent,) = kept.consents.all()
    assert gallery.read_document(consent) == b"%PDF-1.4 signed"


def test_consents_wait_in_the_trash_and_are_erased_with_it(ana, commits):
    (consent,) = ana.consents.all()
    with commits():
        item = corrections.delete_person(ana).undo
    assert not persons_expiring(timedelta(days=36_500)).exists()
    with commits():
        corrections.undo(item)
    assert gallery.read_document(Person.objects.get().consents.get()) == b"%PDF-1.4 signed"
    with commits():
        corrections.erase_item(corrections.delete_person(Person.objects.get()).undo.pk)
    assert not Consent.objects.exists()
    assert not consent.document.storage.exists(consent.document.name)


def test_an_undone_merge_gives_consents_back(ana, commits):
    with commits():
        kept = corrections.create_person("bia")
        item = corrections.merge_persons(kept, ana).undo
        corrections.undo(item)
    assert Person.objects.get(person_id=CPF).consents.count() == 1 and not kept.consents.exists()


def test_who_expires_within_a_month_is_told_on_both_first_pages(boss):
    day = timezone.localdate()
    for number, ends in enumerate((None, 10, 40, -3)):
        person = corrections.create_person(f"number {number}")
        if ends is not None:
            enrolling.add_consent(
                person, day=day - timedelta(days=90), expires=day + timedelta(ends)
            )
    corrections.create_person("retained", keep_until=day + timedelta(days=5))
    longer = Person.objects.get(person_id="number 1")
    found = persons_expiring(gallery.DUE_SOON).order_by("person_id")
    assert [person.person_id for person in found] == ["number 1", "number 3", "retained"]
    assert "3 people expire within 30 days" in boss.get("/people/").text
    listed = boss.get("/people/?expiring=1").text
    assert "number 3" in listed and "number 2" not in listed
    assert "people expire within 30 days" in boss.get("/admin/").text
    enrolling.add_consent(longer, day=day, expires=None)
    assert persons_expiring(gallery.DUE_SOON).count() == 2


# Purposes


@pytest.fixture
def purposes() -> dict[str, Purpose]:
    """Ten people: those with even numbers may be searched for at the door."""
    made = {name: Purpose.objects.create(name=name) for name in ("door", "payroll")}
    add_vectors({f"p{number}": 2 for number in range(10)})
    for person in Person.objects.order_by("pk"):
        even = int(person.person_id[1:]) % 2 == 0
        enrolling.add_consent(
            person, day=timezone.localdate(), purposes=[made["door" if even else "payroll"]]
        )
    return made


@pytest.fixture
def indexed(purposes) -> None:
    from enrollment import index

    FaceEmbedding.objects.update(status="pending")
    index.index_rows(list(FaceEmbedding.objects.values_list("pk", flat=True)))


def searched(api: APIClient, token: str, **fields: object) -> list[str]:
    row = FaceEmbedding.objects.order_by("pk").filter(face_image__person__person_id="p1").first()
    form = {"embedding": json.dumps(row.computed_array().tolist()), "top_k": 4, **fields}
    headers = {"authorization": f"Token {token}"}
    answer = api.post("/api/milvus/search", form, headers=headers).json()
    return [hit["person_id"] for hit in answer["results"]]


def token(user: User, *purposes: Purpose) -> str:
    made, secret = AccessToken.issue(user=user, name="door", scope="administer", expires_at=None)
    made.purposes.set(purposes)
    return secret


def test_a_search_finds_only_whom_the_purpose_allows_and_as_many_as_asked(
    api, admin_user, purposes, indexed, monkeypatch
):
    set_thresholds()
    free, door = token(admin_user), token(admin_user, purposes["door"])
    assert searched(api, free)[:2] == ["p1", "p1"]
    found = searched(api, door)
    assert len(found) == 4 and all(int(person[1:]) % 2 == 0 for person in found)
    grouped = searched(api, door, group_by_person="true", top_k=5)
    assert sorted(grouped) == ["p0", "p2", "p4", "p6", "p8"]
    monkeypatch.setattr(selectors, "MAX_HITS", 3)  # Milvus never returns enough: compared in SQL
    assert searched(api, door) == found
    assert searched(api, door, group_by_person="true", top_k=5) == grouped
    assert searched(api, door, threshold="0.9") == []


def test_groups_limit_too_and_both_limits_hold(api, purposes, indexed):
    set_thresholds()
    user = User.objects.create_user("guard", password="x")
    guards = Group.objects.create(name="Guards")
    guards.permissions.set(Permission.objects.filter(content_type__app_label="enrollment"))
    user.groups.add(guards)
    purposes["payroll"].groups.add(guards)
    assert {int(person[1:]) % 2 for person in searched(api, token(user))} == {1}
    assert searched(api, token(user, purposes["door"])) == []
    Consent.objects.update(expires=timezone.localdate() - timedelta(days=1), day="2020-01-01")
    assert searched(api, token(user)) == []


def test_verification_knows_nobody_outside_the_purpose(api, admin_user, purposes, commits):
    with commits():
        enroll("ana", draw_picture((112, 112), seed=5))
    form = {"person_id": "ana", "use_face_detection": "false"}

    def status(secret: str) -> int:
        picture = {"source_image": upload(draw_picture((112, 112), seed=5))}
        headers = {"authorization": f"Token {secret}"}
        return api.post("/api/verify", form | picture, headers=headers).status_code

    assert status(token(admin_user)) == 200
    assert status(token(admin_user, purposes["door"])) == 404


def test_a_purpose_in_use_is_not_deleted(boss, purposes):
    Purpose.objects.create(name="unused")
    path = "/admin/enrollment/purpose/{}/delete/"
    assert boss.get(path.format(purposes["door"].pk)).status_code == 403
    unused = Purpose.objects.get(name="unused")
    assert boss.post(path.format(unused.pk), {"post": "yes"}).status_code == 302
    assert Purpose.objects.count() == 2


def test_exact_search_in_sql_agrees_with_the_vector_database(purposes, indexed):
    row = FaceEmbedding.objects.order_by("pk").first()
    probe = Embeddings(row.computed_array()[None], MODEL, find_weights(MODEL).fingerprint)
    (hits,) = search_gallery(probe, 20)
    nearest = gallery.purposes.nearest_of(
        FaceEmbedding.objects.all(), probe.vectors[0], 20, -1.0, False
    )
    assert [hit.id for hit in nearest] == [hit.id for hit in hits]
    assert [hit.similarity for hit in nearest] == pytest.approx(
        [h.similarity for h in hits], abs=1e-5
    )
