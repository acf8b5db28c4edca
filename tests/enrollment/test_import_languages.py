"""What an import said of its files is read in the language of whoever reads it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from django.db import connection
from django.utils import timezone, translation
from PIL import Image

from enrollment import imports
from enrollment.corrections import erase_person
from enrollment.imports import stage_import
from enrollment.models import ImportFile, ImportJob, Person, as_lines, from_lines
from recognition.sentences import Sentence, said, stored
from tests.enrollment.gallery import enroll
from tests.pictures import draw_picture, encoded, packed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("weights", "data_folder")]


def crop(seed: int) -> bytes:
    return draw_picture((112, 112), seed=seed)


FOLDERS: dict[str, bytes | str] = {
    "loose.jpg": crop(1),
    "bia/.hidden": "x",
    "bia/notes.txt": "no picture",
    "bia/empty.jpg": "",
    "bia/small.png": draw_picture((12, 12), seed=2),
    "bia/animation.gif": b"GIF89a" + bytes(60),
    "bia/plain.png": encoded(Image.new("RGB", (112, 112), "tan"), "PNG"),
    "bia/cut.jpg": crop(3)[:900],
    "bia/4.jpg": crop(4),
    "bia/again.jpg": crop(4),
    "BIA/5.jpg": crop(5),
    "caio/known.jpg": crop(6),
    "caio/dark.png": encoded(
        Image.open(io.BytesIO(crop(7))).point(lambda level: level // 4), "PNG"
    ),
    "tab\there/7.jpg": crop(8),
}
TABLE: dict[str, bytes | str] = {
    "people.csv": "person_id,picture,keep_until\n1.2E+10,1.jpg,\nana,2.jpg,soon\nana,none.jpg,\n"
    ",3.jpg,\nana,,\nana,https://example.org/a.jpg,\n",
    **{f"{number}.jpg": crop(10 + number) for number in range(1, 5)},
}


def previewed(language: str, files: dict[str, bytes | str]) -> ImportJob:
    """Return the import whose files somebody with this language had looked at."""
    with translation.override(language):
        archive = io.BytesIO(packed(files))
        job = stage_import(archive, "faces.zip", 0, use_face_detection=False)
    imports.carry_out_imports()
    return job


def read(job: ImportJob, language: str) -> dict[int, tuple[str, list[str]]]:
    with translation.override(language):
        return {row.number: (row.reason, row.warnings) for row in job.files.all()}


@pytest.mark.parametrize(
    ("files", "doubtful"), [(FOLDERS, "warn"), (FOLDERS, "refuse"), (TABLE, "warn")]
)
def test_reasons_are_read_in_the_language_of_the_reader(files, doubtful, settings):
    """They stayed in the language of whoever had started the import."""
    settings.ENROLL_QUALITY = settings.ENROLL_IDENTITY = doubtful
    enroll("ana", crop(6), name="Ana")
    english, portuguese = previewed("en", files), previewed("pt-br", files)
    assert read(portuguese, "en") == read(english, "en")
    assert read(portuguese, "pt-br") == read(english, "pt-br")
    for number, told in read(english, "en").items():
        assert told == ("", []) or told != read(english, "pt-br")[number]
    low = "low_quality" in english.files.values_list("code", flat=True)
    assert low is (files is FOLDERS and doubtful == "refuse")
    assert english.files.exclude(reason="").count() >= 5


def test_numbers_of_numpy_are_numbers_when_they_are_read():
    values = {"given": np.int64(3), "expected": np.float32(0.5)}
    with translation.override("en"):
        text = stored(Sentence("%(given)d, not %(expected)s", values))
    with translation.override("pt-br"):
        assert said(text) == "3, not 0,500"


def test_what_stops_an_import_is_read_so_too():
    job = ImportJob.objects.create(state="running", started_at=timezone.now())
    imports.stop_imports_without_files()
    with translation.override("pt-br"):
        job.refresh_from_db()
    assert job.error == "Os arquivos desta importação não existem mais. Envie-os de novo."


def test_a_backup_keeps_sentences_and_old_rows_their_text():
    job = previewed("pt-br", {"loose.jpg": crop(1), "BIA/1.jpg": crop(2), "bia/2.jpg": crop(3)})
    old = ImportFile(job=job, number=9, reason="Isto é antigo.", warnings=["E isto."])
    old.save()
    before = read(job, "en")
    assert before[9] == ("Isto é antigo.", ["E isto."])
    with translation.override("pt-br"):
        lines = as_lines(job.files.all())
    job.files.all().delete()
    for row in from_lines(lines):
        row.save()
    assert read(job, "en") == before


@pytest.mark.parametrize("person_id", ["ana", 'a"n\\á'])
def test_an_erased_person_is_in_no_sentence(person_id, commits):
    enroll(person_id, crop(1))
    enroll(f"{person_id}.", crop(2))
    job = previewed("pt-br", {"bia/1.jpg": crop(1)})
    ImportFile.objects.create(job=job, number=7, reason=f"Old: {person_id}")
    warned = Sentence("%(other)s has the same name.", {"other": person_id})
    ImportFile.objects.create(job=job, number=8, warnings=[warned])
    with commits():
        erase_person(Person.objects.get(person_id=person_id))
    assert all(told == ("", []) for told in read(job, "en").values())
    with connection.cursor() as cursor:
        cursor.execute("SELECT reason, warnings FROM enrollment_importfile")
        assert person_id not in str(cursor.fetchall()).replace("\\\\", "\\")
