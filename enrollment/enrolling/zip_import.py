"""Import of a ZIP with one folder for each person: unpack, preview, and enrol after confirmation.

The files are unpacked below `DATA_DIR/imports`, readable by the server's account only, and deleted
once they are enrolled. Imports that nobody confirms are deleted after a day.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from django.conf import settings
from django.utils.translation import gettext

from enrollment.enrolling.finding_files import FileStatus, find_files, is_passed_over
from enrollment.enrolling.folder_import import FileResult, import_files
from enrollment.enrolling.trash_items import begin_import, end_import, import_key
from enrollment.enrolling.unpacking import unpack
from enrollment.models import TrashItem
from recognition.exceptions import RecognitionError

KEPT_SECONDS: Final = 24 * 3600
_TOKEN: Final = re.compile(r"[A-Za-z0-9_]{4,40}")
_FOLDER: Final = "imports"
_STATE: Final = "import.json"
_FILES: Final = "files"
# The name of the files' folder while they are enrolled: only one request can rename it so.
_RUNNING: Final = "running"


class ImportGone(RecognitionError):
    """The import does not exist, or it is already being carried out."""

    code = "import_gone"
    status = 404


@dataclass(slots=True)
class FileReport:
    """The planned or final result for a file; see `FileResult`. `warnings` are sentences."""

    path: str
    person_id: str
    status: FileStatus
    reason: str
    face_detected: bool | None
    searchable: bool
    warnings: list[str]

    @classmethod
    def of(cls, result: FileResult) -> FileReport:
        return cls(
            result.shown_path,
            result.person_id,
            result.status,
            str(result.reason),
            result.face_detected,
            result.searchable,
            result.warnings,
        )


@dataclass(slots=True)
class PictureImport:
    """A staged import; `results` are planned results before, and final ones after it is done.

    `left_out` are the results of files that could not be unpacked.
    """

    token: str
    owner: int
    filename: str
    options: dict[str, Any]
    left_out: list[FileReport] = field(default_factory=list)
    results: list[FileReport] = field(default_factory=list)
    done: bool = False

    def count(self, status: FileStatus) -> int:
        return sum(result.status is status for result in self.results)

    @property
    def persons(self) -> set[str]:
        """The ids of the persons who get pictures."""
        return {item.person_id for item in self.results if item.status is FileStatus.ENROLLED}


def stage_import(file: IO[bytes], filename: str, owner: int, **options: Any) -> PictureImport:
    """Unpack the ZIP and check every picture without enrolling any. Raise `BadArchive`."""
    forget_old_imports()
    home = Path(tempfile.mkdtemp(prefix="", dir=imports_folder()))
    try:
        reasons = unpack(file, home / _FILES)
        staged = PictureImport(home.name, owner, filename, options)
        staged.left_out = [
            FileReport(name, "", FileStatus.REFUSED, reason, None, True, [])
            for name, reason in reasons.items()
        ]
        files = find_files(_root(home / _FILES))
        results = import_files(files, dry_run=True, **options)
        staged.results = [*staged.left_out, *map(FileReport.of, results)]
        _save(staged)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return staged


def load_import(token: str, owner: int) -> PictureImport:
    """Return the staged import of this owner. Raise `ImportGone`."""
    try:
        if not _TOKEN.fullmatch(token):
            raise FileNotFoundError
        state = json.loads((imports_folder() / token / _STATE).read_text())
    except FileNotFoundError as error:
        raise ImportGone(gettext("This import is gone. Upload the file again.")) from error
    if state["owner"] != owner:
        raise ImportGone(gettext("This import is gone. Upload the file again."))
    for name in ("left_out", "results"):
        state[name] = [
            FileReport(**item | {"status": FileStatus(item["status"])})
            for item in state.get(name, [])
        ]
    return PictureImport(**state)


def carry_out_import(staged: PictureImport) -> TrashItem | None:
    """Enrol the staged files and store the report; return what undoes it.

    After a crash it can be repeated; what was enrolled before is undone by an item of its own.
    """
    home = imports_folder() / staged.token
    try:
        (home / _FILES).rename(home / _RUNNING)
    except FileNotFoundError as error:
        message = gettext(
            "This import was begun already. Reload in a while for its report; if none comes, upload the "
            "file again: what is enrolled is skipped."
        )
        raise ImportGone(message) from error
    try:
        files = find_files(_root(home / _RUNNING))
        item = begin_import(staged.filename)
        results = import_files(files, key=import_key(item), **staged.options)
        staged.results = [*staged.left_out, *map(FileReport.of, results)]
    except BaseException:
        (home / _RUNNING).rename(home / _FILES)
        raise
    staged.done = True
    _save(staged)
    shutil.rmtree(home / _RUNNING)
    return end_import(item, staged.count(FileStatus.ENROLLED))


def discard_import(staged: PictureImport) -> None:
    """Delete a staged import and its files."""
    shutil.rmtree(imports_folder() / staged.token, ignore_errors=True)


def forget_old_imports() -> None:
    """Delete staged files and reports that are older than a day."""
    folder = settings.DATA_DIR / _FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stat().st_mtime < time.time() - KEPT_SECONDS:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def forget_imports_of(person_id: str) -> None:
    """Delete staged imports and reports that name the person, unless one is being carried out."""
    name = re.compile(rf"(?<!\w){re.escape(person_id)}(?!\w)")
    for home in imports_folder().iterdir():
        try:
            results = json.loads((home / _STATE).read_text())["results"]
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue  # still being unpacked
        named = any(
            item["person_id"] == person_id or any(map(name.search, item["warnings"]))
            for item in results
        )
        if named and not (home / _RUNNING).exists():
            shutil.rmtree(home, ignore_errors=True)


def imports_folder() -> Path:
    """Return the folder of staged imports; create it if needed."""
    folder: Path = settings.DATA_DIR / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _save(staged: PictureImport) -> None:
    path = imports_folder() / staged.token / _STATE
    path.with_suffix(".part").write_text(json.dumps(asdict(staged)))
    path.with_suffix(".part").replace(path)


def _root(folder: Path) -> Path:
    """Return the folder that contains the persons' folders; many ZIPs wrap them in one more folder."""
    inside = _shown(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        below = _shown(inside[0].iterdir())
        if below and all(path.is_dir() for path in below):
            return inside[0]
    return folder


def _shown(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not is_passed_over(path)]
