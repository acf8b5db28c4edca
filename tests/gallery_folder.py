"""A gallery in its own folder, and the commands that are run on it from outside."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

SETUP = """
import io, itertools, json, sys
import django
django.setup()
from django.core.management import CommandError, call_command
from enrollment.models import FaceEmbedding, FaceImage, Person

def tell(**report):
    print(json.dumps(report), flush=True)
"""

MENDER = (
    SETUP
    + """
from enrollment.gallery import search_gallery
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


def new_gallery(data: Path, **knobs: str) -> dict[str, str]:
    """Return the environment of an empty, migrated gallery in `data`."""
    shutil.copytree(migrated_data(), data, dirs_exist_ok=True)
    return gallery_environment(data) | knobs


@cache
def migrated_data() -> Path:
    """Return a data folder after `migrate`, made once a process, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="faceproject-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    migrate(gallery_environment(folder / "data"))
    return folder / "data"


def migrate(environment: dict[str, str], root: Path = ROOT) -> None:
    """Bring the gallery's database up to date, to what the project in `root` needs."""
    run(
        environment,
        "from django.core.management import execute_from_command_line as run; "
        "run(['manage.py', 'migrate', '--verbosity=0'])",
        root,
    )


def gallery_environment(data: Path) -> dict[str, str]:
    """Return the environment of a gallery in `data`, which need not be there yet."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "API_AUTH_REQUIRED": "0",  # who asks is a test, which may have servers in it
        "DATA_DIR": str(data),
        "LOG_LEVEL": "ERROR",
        "TORCH_THREADS": "1",
    }


def run(environment: dict[str, str], script: str, root: Path = ROOT) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def mend(environment: dict[str, str]) -> dict[str, Any]:
    """Check, repair and check again; return the outputs and the final contents of the gallery."""
    return json.loads(run(environment, MENDER))
