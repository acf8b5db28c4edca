"""SIGKILL at random points of a write: accepted pictures survive, and unfinished work is completed.

`script/chaos` does the same over HTTP and for longer.
"""

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

from tests.chaos import (
    IMPORTED_PERSONS,
    PICTURES,
    Figures,
    Promises,
    examine,
    kill_import,
)
from tests.gallery_folder import ROOT, SETUP, mend, new_gallery

KILLS = 3
MOST_LINES = 8  # reports read before the kill
MOST_SECONDS = 0.3  # from the last report read to the kill: longer than one step takes

WRITER = (
    SETUP
    + """
from enrollment.corrections import delete_person, merge_persons, undo
from enrollment.enrolling import Upload, enroll_pictures
from tests.pictures import draw_picture

run = sys.argv[1]

def enroll(number):
    person_id = f"{run}-{number}"
    uploads = [
        Upload(person_id, f"{side}.jpg", draw_picture((112, 112), seed=f"{person_id}/{side}"),
               f"{person_id}/{side}.jpg")
        for side in range(4)
    ]
    outcomes = enroll_pictures(uploads, source="api", use_face_detection=False)
    assert all(row.status == "indexed" for item in outcomes for row in item.embeddings)
    return [item.face_image.original_path for item in outcomes]

for number in itertools.count():
    tell(accepted=enroll(number), person=f"{run}-{number}")
    if number % 3 == 2:
        tell(deleting=f"{run}-{number - 1}")
        person = Person.objects.get(person_id=f"{run}-{number - 1}")
        paths = list(person.face_images.values_list("original_path", flat=True))
        item = delete_person(person).undo
        if number % 2:
            undo(item)
            tell(accepted=paths, person=person.person_id)
        else:
            tell(deleted=person.person_id)
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


@pytest.fixture
def environment(tmp_path: Path, _converted: None) -> dict[str, str]:
    return new_gallery(tmp_path / "data")


def reports_until_kill(environment: dict[str, str], name: str) -> Iterator[dict[str, Any]]:
    """Return what the writer had reported when it was killed at a random point."""
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
        state = mend(environment)

        assert state["checked"] == [0, "No difference: Milvus and the picture storage equal SQL.\n"]
        assert state["mended"][0] == 0, state["mended"]
        something_done = "Nothing to do" not in state["mended"][1]
        assert (state["named"][0] == 1) == something_done, state
        promised = {path for paths in accepted.values() for path in paths}
        assert promised <= set(state["searchable"])
        assert sorted(state["searchable"]) == sorted(state["pictures"])
        assert all(state["files"])
        assert not deleted & set(state["persons"])


@pytest.mark.parametrize("served", [False, True])
def test_killed_import_is_finished_by_running_it_again(environment, served):
    figures, promises = Figures(), Promises()
    kill_import(environment, "folder", promises, figures, served=served)
    examine(environment, promises, figures)
    assert figures.kills.total() >= 1
    assert not figures.failed, figures
    assert len(promises.paths["folder"]) == IMPORTED_PERSONS * PICTURES
