"""ZIPs from other systems and damaged ZIPs: each file gets a clear message."""

from __future__ import annotations

import errno
import io
import os
import random
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import pytest

from enrollment.exceptions import StorageUnavailable
from enrollment.imports import ImportOptions, carry_out_imports, each_file, find_files
from enrollment.imports.staging import stage_import
from enrollment.imports.zip_archive import BadArchive, unpack
from enrollment.models import FaceImage, Person
from tests.pictures import draw_picture, packed

pytestmark = pytest.mark.usefixtures("data_folder")
CASES = Path(__file__).parent.parent / "cases"
MUTATIONS = int(os.environ.get("FUZZED_ZIPS", "60"))
SYSTEM = ["Thumbs.db", "desktop.ini"]
SYSTEM_FOLDERS = ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".Trashes"]


def raw_named(*names: bytes, extra: bytes = b"") -> bytes:
    """Return a ZIP whose entries have these bytes as names, without the UTF-8 flag."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, name in enumerate(names):
            entry = zipfile.ZipInfo(chr(ord("\1") + number) * len(name))
            entry.extra = extra
            archive.writestr(entry, b"x")
    content = buffer.getvalue()
    for number, name in enumerate(names):
        content = content.replace(bytes([1 + number]) * len(name), name, 2)
    return content


def unpacked(content: bytes, folder: Path) -> dict[str, str]:
    """Return the unpacked files, and the reasons of the others."""
    reasons = unpack(io.BytesIO(content), folder)
    files = {str(path.relative_to(folder)): "" for path in folder.rglob("*") if path.is_file()}
    return files | reasons


def persons_of(name: str) -> dict[str, int]:
    """Return how many pictures each person would get."""
    staged = stage_import(
        io.BytesIO((CASES / name).read_bytes()), name, 1, use_face_detection=False
    )
    carry_out_imports()
    told = staged.files.filter(status="enrolled").values_list("person_id", flat=True)
    return dict(Counter(told))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "persons"),
    [
        ("zip_utf8_without_flag.zip", {"João": 1, "Conceição": 1}),
        ("zip_thumbs_db_beside_folders.zip", {"ana": 1, "bia": 1}),
        ("zip_recycle_bin.zip", {"ana": 1}),
        ("zip_backslash_folders.zip", {"ana": 1}),
        ("zip_entry_dot.zip", {"ana": 1}),
        ("zip_corrupt_deflate.zip", {}),
    ],
)
def test_archives_that_failed_on_version_1(name, persons, weights):
    assert persons_of(name) == persons
    assert not Person.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "sentence"),
    [("zip_entry_dot.zip", "no name"), ("zip_corrupt_deflate.zip", "is damaged")],
)
def test_what_cannot_be_unpacked_is_in_the_preview_and_in_the_report(name, sentence, boss, weights):
    with (CASES / name).open("rb") as archive:
        preview = boss.post(
            "/admin/enrollment/person/import-pictures/", {"archive": archive}, follow=True
        )
    assert preview.status_code == 200 and sentence in preview.content.decode()
    report = boss.post(preview.redirect_chain[-1][0], follow=True)
    assert report.status_code == 200 and sentence in report.content.decode()


@pytest.mark.parametrize("charset", ["utf-8", "cp850"])
def test_names_without_a_flag(charset, tmp_path):
    assert unpacked(raw_named("João/ç.jpg".encode(charset)), tmp_path / "a") == {"João/ç.jpg": ""}


DOS_NAMES = [
    *("João", "JOÃO", "Conceição", "CONCEIÇÃO", "José_Antônio", "Ângela", "Érica", "É", "Müller"),
    *("Núñez", "François", "1º_ano", "Zoë", "MÔNICA", "Álvaro-Luís"),
]
OTHER_NAMES = {
    "cp1252": [
        *("João", "JOÃO", "Conceição", "CONCEIÇÃO", "Antônio", "ANTÔNIO", "Mónica", "MÓNICA"),
        *("Fábio", "Sérgio", "Luís", "Ângela", "Ávila", "Óscar", "Ômega", "Inês", "Françoise"),
    ],
    "cp1251": ["Иван", "Ольга", "Петров"],
    "cp866": ["Иван", "Ольга", "Вера", "Пётр", "Раиса", "Мама"],
    "koi8-r": ["Иван", "Ольга"],
    "shift_jis": ["山田", "田中", "鈴木", "佐藤"],
    "gbk": ["王伟", "李娜", "张三"],
    "big5": ["王小明", "陳"],
    "cp1250": ["Żółw", "Wałęsa"],
    "cp737": ["Γιάννης", "Μαρία"],
}


@pytest.mark.parametrize("name", DOS_NAMES)
def test_names_in_the_code_page_of_dos(name, tmp_path):
    zipped = raw_named(f"{name}/1.jpg".encode("cp850"))
    assert unpacked(zipped, tmp_path / "a") == {f"{name}/1.jpg": ""}


@pytest.mark.parametrize(
    ("charset", "name"),
    [(charset, name) for charset, names in OTHER_NAMES.items() for name in names],
)
def test_a_name_in_another_code_page_is_told_and_never_another_name(charset, name, tmp_path):
    """Any name used to be read as code page 850, for example as `JoÒo`."""
    written = f"{name}/1.jpg".encode(charset)
    found = unpacked(raw_named(written, b"ana/1.jpg"), tmp_path / "a")
    shown = written.decode("ascii", "backslashreplace")
    assert set(found) == {shown, "ana/1.jpg"} and found["ana/1.jpg"] == ""
    assert "character set of this name cannot be told" in found[shown]


def test_one_name_tells_the_code_page_of_the_others(tmp_path):
    """`GONÇALVES` written in the Windows code page reads as `GONÃALVES` in the DOS one."""
    names = [f"{name}/1.jpg".encode("cp1252") for name in ("GONÇALVES", "José")]
    content = raw_named(*names)
    assert all(unpacked(content, tmp_path / "a").values())
    assert not list((tmp_path / "a").rglob("*.jpg"))


def test_a_full_disk_is_not_the_zips_fault(tmp_path, monkeypatch):
    """It was a 400, of names that cannot be files."""

    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("enrollment.imports.zip_archive.shutil.copyfileobj", full)
    with pytest.raises(StorageUnavailable, match="no room for the files of the ZIP"):
        unpack(io.BytesIO(packed({"ana/1.jpg": b"x"})), tmp_path / "a")


def test_a_name_that_lies_about_utf8_is_answered_in_a_sentence(tmp_path):
    content = bytearray(raw_named(b"Jo\xe3o/1.jpg"))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + flags + 1] |= 0x08
    with pytest.raises(BadArchive, match="names that cannot be files"):
        unpack(io.BytesIO(bytes(content)), tmp_path / "a")


@pytest.mark.django_db
def test_a_name_that_cannot_be_told_is_in_the_report(boss, weights):
    zipped = io.BytesIO(raw_named("João/1.jpg".encode("cp1252")))
    zipped.name = "fotos.zip"
    page = boss.post("/admin/enrollment/person/import-pictures/", {"archive": zipped}, follow=True)
    text = page.content.decode()
    assert page.status_code == 200 and "Jo\\xe3o/1.jpg" in text and "cannot be told" in text


@pytest.mark.django_db
@pytest.mark.parametrize("place", ["/admin/enrollment/person/import-pictures/", "/people/import"])
def test_a_new_person_who_may_be_enrolled_already_is_in_the_preview(place, boss, weights):
    Person.objects.create(person_id="123.456.789-09", name="Bia")
    zipped = io.BytesIO(packed({"12345678909/1.jpg": draw_picture()}))
    zipped.name = "fotos.zip"
    sent = {"archive": zipped}  # without a tick: crops of faces
    preview = boss.post(place, sent, follow=True)
    address = preview.redirect_chain[-1][0]
    for page in (preview, boss.get(f"{address}?csv"), boss.post(address, follow=True)):
        assert "only in punctuation, accents or case from that of Bia" in page.content.decode()
    assert Person.objects.count() == 2


def test_name_in_the_extra_field(tmp_path):
    def extra(written: bytes) -> bytes:
        content = struct.pack("<BL", 1, zlib.crc32(written)) + "João/1.jpg".encode()
        return struct.pack("<HH", 0x7075, len(content)) + content

    assert unpacked(raw_named(b"Jo_o/1.jpg", extra=extra(b"Jo_o/1.jpg")), tmp_path / "a") == {
        "João/1.jpg": ""
    }
    # Of another name: somebody renamed the entry since.
    assert unpacked(raw_named(b"ana/1.jpg", extra=extra(b"other")), tmp_path / "b") == {
        "ana/1.jpg": ""
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_one_entry_is_told_and_the_others_are_unpacked(method, tmp_path):
    content = bytearray(packed({"ana/1.jpg": b"abc" * 3000, "bia/1.jpg": b"x"}, method))
    start = 30 + len("ana/1.jpg")
    content[start : start + 12] = b"\xff" * 12
    found = unpacked(bytes(content), tmp_path / "files")
    assert found["bia/1.jpg"] == "" and "damaged" in found["ana/1.jpg"]


def test_foreign_bytes_under_the_flag_of_utf8_are_told(tmp_path):
    content = packed({"João/1.jpg": b"x"}).replace("ã".encode(), b"\xe3\xe3")
    with pytest.raises(BadArchive, match="names"):
        unpack(io.BytesIO(content), tmp_path / "files")


def test_systems_own_are_nobody_and_spoil_no_wrapper(tmp_path):
    for name in SYSTEM:
        (tmp_path / name).write_bytes(b"x")
    for person in ("ana", *SYSTEM_FOLDERS):
        (tmp_path / person).mkdir()
        (tmp_path / person / "1.jpg").write_bytes(b"x")
        (tmp_path / "ana" / person).mkdir(exist_ok=True)
        (tmp_path / "ana" / person / "2.jpg").write_bytes(b"x")
    pictures = [file for file in find_files(tmp_path) if file.person_id]
    assert {file.person_id for file in pictures} == {"ana"}
    assert {file.shown_path for file in pictures} == {"ana/1.jpg", "ana/ana/2.jpg"}


@pytest.mark.django_db
def test_refused_file_stands_in_no_others_way(tmp_path, weights, monkeypatch):
    """An identical file in another folder is judged by itself."""
    from enrollment.imports import batch_enrolment
    from recognition.exceptions import InvalidImage

    for person in ("ana", "bia"):
        (tmp_path / person).mkdir()
        (tmp_path / person / "1.jpg").write_bytes(draw_picture())
    enroll = batch_enrolment.enroll_pictures

    def refuse_ana(uploads, **options):
        outcomes = enroll([each for each in uploads if each.person_id != "ana"], **options)
        return [
            batch_enrolment.Outcome(each, error=InvalidImage("not this one"))
            if each.person_id == "ana"
            else outcomes.pop(0)
            for each in uploads
        ]

    monkeypatch.setattr(batch_enrolment, "enroll_pictures", refuse_ana)
    results = list(each_file(find_files(tmp_path), ImportOptions(use_face_detection=False)))
    assert [(each.person_id, each.status) for each in results] == [
        ("ana", "refused"),
        ("bia", "enrolled"),
    ]
    assert FaceImage.objects.get().person.person_id == "bia"


def test_file_names_that_are_not_utf8_are_shown_as_they_are(tmp_path):
    (tmp_path / "ana").mkdir()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/ana/Jo\xe3o.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("This disk takes names in UTF-8 only.")
    (file,) = find_files(tmp_path)
    assert file.shown_path == "ana/Jo\\xe3o.jpg"


def mutated(seed: int) -> bytes:
    """Return one of the sample ZIPs with bytes changed, repeated, removed or inserted."""
    chance = random.Random(seed)
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    own = packed({"João/1.jpg": b"ab" * 500, "bia\\2.png": b"x"}, chance.choice(methods))
    known = [path.read_bytes() for path in sorted(CASES.glob("*.zip"))]
    content = bytearray(chance.choice([own, own, *known]))
    for _ in range(chance.randint(1, 12)):
        # Mostly where the structure is: the directory stands at the end.
        near = len(content) - chance.randint(1, min(400, len(content)))
        place = chance.choice([near, near, chance.randrange(len(content)), chance.randrange(80)])
        match chance.randrange(4):
            case 0:
                content[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                content[place : place + 4] = struct.pack(
                    "<I", chance.choice([0, 1, 2**31, 2**32 - 1])
                )
            case 2:
                del content[place : place + chance.randint(1, 8)]
            case _:
                content[place:place] = chance.randbytes(chance.randint(1, 8))
        if len(content) < 100:
            break
    return bytes(content)


@pytest.mark.parametrize("start", range(0, MUTATIONS, 20))
def test_mutated_archives_are_answered_in_sentences(start, tmp_path):
    """`FUZZED_ZIPS=1000` sets the number."""
    for seed in range(start, min(start + 20, MUTATIONS)):
        folder = tmp_path / str(seed)
        try:
            reasons = unpack(io.BytesIO(mutated(seed)), folder)
        except BadArchive as error:
            assert error.message
        else:
            assert all(reasons.values())
            find_files(folder)
            escaped = [
                path for path in folder.rglob("*") if not path.resolve().is_relative_to(folder)
            ]
            assert escaped == []
