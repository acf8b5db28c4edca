"""The folder of what waits to be enrolled, `DATA_DIR/imports`, readable by the server's account only."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from django.conf import settings

from enrollment.models import ImportJob

KEPT_SECONDS: Final = 24 * 3600
_FOLDER: Final = "imports"
_OF_JOBS: Final = "job-"


def forget_old_imports() -> None:
    """Delete what waits in the folder of imports for more than a day, but for files of jobs."""
    folder = settings.DATA_DIR / _FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(_OF_JOBS) and _has_job(path):
            continue
        if path.stat().st_mtime < time.time() - KEPT_SECONDS:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _has_job(folder: Path) -> bool:
    return ImportJob.objects.filter(key=folder.name.removeprefix(_OF_JOBS)).exists()


def imports_folder() -> Path:
    """Return the folder of staged imports; create it if needed."""
    folder: Path = settings.DATA_DIR / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def job_folder(job: ImportJob) -> Path:
    """Return the folder of the job's files."""
    return imports_folder() / f"{_OF_JOBS}{job.key}"
