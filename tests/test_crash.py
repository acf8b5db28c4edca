"""SIGKILL at random points of writing: what was accepted survives, what is half-done is mended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
KILLS = 3
MOST_LINES = 8  # reports read before the kill
MOST_SECONDS = 0.3  # from the last report read to the kill: longer than one step takes

SETUP = """
import io, itertools, json, sys
import django
django.setup()
from django.core.management import CommandError, call_command
from enrollment.models import FaceEmbedding, FaceImage, Person

def tell(**report):
    print(json.dumps(report), flush=True)
"""

WRITER = (
    SETUP
    + """
from enrollment.corrections import merge_persons
from enrollment.services import Upload, enroll_pictures
from tests.pictures import draw_picture

run = sys.argv[1]

def enroll(number):
    person_id = f"{run}-{number}"
    uploads = [
        Upload(f"{side}.jpg", io.BytesIO(draw_picture((112, 112), seed=f"{person_id}/{side}")),
               f"{person_id}/{side}.jpg")
        for side in range(4)
    ]
    outcomes = enroll_pictures(
        person_id=person_id, uploads=uploads, source="api", use_face_detection=False
    ).accepted
    assert all(row.status == "indexed" for item in outcomes for row in item.embeddings)
    return [item.face_image.original_path for item in outcomes]

for number in itertools.count():
    tell(accepted=enroll(number), person=f"{run}-{number}")
    if number % 3 == 2:
        tell(deleting=f"{run}-{number - 1}")
        Person.objects.get(person_id=f"{run}-{number - 1}").delete()
        tell(deleted=f"{run}-{number - 1}")
    if number % 3 == 1:
        person = Person.objects.get(person_id=f"{run}-{number - 1}")
        person.person_id += " renamed"
        person.save()
    if number % 3 == 0 and number:
        kept = Person.objects.get(person_id=f"{run}-{number}")
        merged = Person.objects.get(person_id=f"{run}-{number - 3} renamed")
        merge_persons(kept, merged)
        tell(deleted=merged.person_id)
"""
)

MENDER = (
    SETUP
    + """
from enrollment.selectors import search_gallery
from recognition.embedding import Embeddings

def reindex(*arguments):
    output = io.StringIO()
    try:
        call_command("reindex", *arguments, stdout=output)
    except CommandError as error:
        return 1, output.getvalue() + str(error)
    return 0, output.getvalue()

def found(row):
    ((hit,),) = search_gallery(Embeddings(row.array[None], row.model, row.fingerprint), 1)
    return hit.face_image.original_path

named, mended, checked = reindex("--check"), reindex(), reindex("--check")
rows = FaceEmbedding.objects.select_related("face_image")
tell(
    named=named, mended=mended, checked=checked,
    searchable=[found(row) for row in rows],
    pictures=list(FaceImage.objects.values_list("original_path", flat=True)),
    files=[picture.image.storage.exists(picture.image.name) for picture in FaceImage.objects.all()],
    persons=list(Person.objects.values_list("person_id", flat=True)),
)
"""
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A gallery of its own, empty and migrated."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path / "data"),
        "LOG_LEVEL": "ERROR",
        "TORCH_THREADS": "1",
    }
    run(
        environment,
        "from django.core.management import execute_from_command_line as run; "
        "run(['manage.py', 'migrate', '--verbosity=0'])",
    )
    return environment


def run(environment: dict[str, str], script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def reports_until_kill(environment: dict[str, str], name: str) -> Iterator[dict[str, Any]]:
    """What the writer had said when it was killed at a random point."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, name],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for _line in range(random.randint(1, MOST_LINES)):
            yield json.loads(writer.stdout.readline())
        time.sleep(random.uniform(0, MOST_SECONDS))
    finally:
        os.kill(writer.pid, signal.SIGKILL)
    left, _none = writer.communicate()
    # The last line may have been cut off; then it was not told.
    yield from (json.loads(line) for line in left.splitlines(keepends=True) if line.endswith("\n"))


def test_killed_writers_lose_nothing_that_was_accepted(environment):
    accepted: dict[str, list[str]] = {}
    deleted: set[str] = set()
    for number in range(KILLS):
        for report in reports_until_kill(environment, f"run{number}"):
            if "accepted" in report:
                assert len(report["accepted"]) == 4
                accepted[report["person"]] = report["accepted"]
            else:
                # From the first word on it may be gone, from the second on it must be.
                accepted.pop(report.get("deleting"), None)
                deleted |= {report["deleted"]} if "deleted" in report else set()
        state = json.loads(run(environment, MENDER))

        assert state["checked"] == [0, "No difference: Milvus and the picture storage equal SQL.\n"]
        assert state["mended"][0] == 0, state["mended"]
        something_done = "Nothing to do" not in state["mended"][1]
        assert (state["named"][0] == 1) == something_done, state
        promised = {path for paths in accepted.values() for path in paths}
        assert promised <= set(state["searchable"])
        assert sorted(state["searchable"]) == sorted(state["pictures"])
        assert all(state["files"])
        assert not deleted & set(state["persons"])
