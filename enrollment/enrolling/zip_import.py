"""A ZIP of pictures, a folder for each person: unpacked, looked at, and enrolled once that was confirmed.

What is unpacked lies below `DATA_DIR/imports`, readable by the server's account only, until it was
enrolled; what nobody confirmed goes after a day.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Final

from django.conf import settings
from django.utils.translation import gettext

from enrollment.enrolling.folder_import import FileResult, FileStatus, find_files, import_files
from recognition.exceptions import RecognitionError

KEPT_SECONDS: Final = 24 * 3600
MAX_FILES: Final = 10_000
MAX_BYTES: Final = 2 * 1024**3  # unpacked
_TOKEN: Final = re.compile(r"[A-Za-z0-9_]{4,40}")
_STATE: Final = "import.json"
_FILES: Final = "files"
_RUNNING: Final = (
    "running"  # what the files are called while they are enrolled: by one request only
)


class BadArchive(RecognitionError):
    """The file is no ZIP that can be unpacked here."""

    code = "bad_archive"
    status = 400


class ImportGone(RecognitionError):
    """There is no such import, or it is already being carried out."""

    code = "import_gone"
    status = 404


@dataclass(slots=True)
class FileReport:
    """What will become, or became, of a file; see `FileResult`. `warnings` are sentences."""

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
            [doubt.message for doubt in result.doubts],
        )


@dataclass(slots=True)
class PictureImport:
    """An import, before and after it is carried out; `results` tell what will be, or was, done."""

    token: str
    owner: int
    filename: str
    options: dict[str, bool]
    results: list[FileReport] = field(default_factory=list)
    done: bool = False

    def count(self, status: FileStatus) -> int:
        return sum(result.status is status for result in self.results)

    @property
    def persons(self) -> set[str]:
        """Those who get pictures."""
        return {item.person_id for item in self.results if item.status is FileStatus.ENROLLED}


def stage_import(file: IO[bytes], filename: str, owner: int, **options: bool) -> PictureImport:
    """Unpacks the ZIP and looks at every picture; writes nothing to the gallery. Raises `BadArchive`."""
    _forget_old()
    home = Path(tempfile.mkdtemp(prefix="", dir=_imports()))
    try:
        _unpack(file, home / _FILES)
        staged = PictureImport(home.name, owner, filename, options)
        files = find_files(_root(home / _FILES))
        results = import_files(files, dry_run=True, **options)
        staged.results = [FileReport.of(result) for result in results]
        _save(staged)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return staged


def load_import(token: str, owner: int) -> PictureImport:
    """The import, for whom it belongs to; raises `ImportGone`."""
    try:
        if not _TOKEN.fullmatch(token):
            raise FileNotFoundError
        state = json.loads((_imports() / token / _STATE).read_text())
    except FileNotFoundError as error:
        raise ImportGone(gettext("This import is gone. Upload the file again.")) from error
    if state["owner"] != owner:
        raise ImportGone(gettext("This import is gone. Upload the file again."))
    results = [
        FileReport(**item | {"status": FileStatus(item["status"])}) for item in state["results"]
    ]
    return PictureImport(**state | {"results": results})


def carry_out_import(staged: PictureImport) -> None:
    """Enrols what was staged and keeps the report. What a crash cuts off is skipped the next time."""
    home = _imports() / staged.token
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
        results = import_files(files, use_face_detection=staged.options["use_face_detection"])
        staged.results = [FileReport.of(result) for result in results]
    except BaseException:
        (home / _RUNNING).rename(home / _FILES)
        raise
    staged.done = True
    _save(staged)
    shutil.rmtree(home / _RUNNING)


def discard_import(staged: PictureImport) -> None:
    """Forgets an import and deletes what was unpacked."""
    shutil.rmtree(_imports() / staged.token, ignore_errors=True)


def _imports() -> Path:
    folder = settings.DATA_DIR / "imports"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _forget_old() -> None:
    for home in _imports().iterdir():
        if home.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(home, ignore_errors=True)


def _save(staged: PictureImport) -> None:
    path = _imports() / staged.token / _STATE
    path.with_suffix(".part").write_text(json.dumps(asdict(staged)))
    path.with_suffix(".part").replace(path)


def _unpack(file: IO[bytes], folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check(entries)
            for entry in entries:
                _write(archive, entry, folder)
        folder.mkdir(exist_ok=True)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadArchive(
            gettext(
                "The file is no ZIP, is damaged, or uses a compression or a password that is not "
                "supported. Pack the folders again as a plain ZIP."
            )
        ) from error
    except (OSError, ValueError) as error:
        raise BadArchive(
            gettext(
                "The ZIP holds names that cannot be files here, or the disk is full. Rename what has a "
                "very long or odd name and pack it again."
            )
        ) from error


def _check(entries: list[zipfile.ZipInfo]) -> None:
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_FILES or size > MAX_BYTES:
        message = gettext(
            "The ZIP holds %(count)d files of together %(size)d MB; at most %(most)d files of %(limit)d "
            "MB are unpacked. Split it, or use 'manage.py enroll' on the server."
        )
        numbers = {"count": len(entries), "size": size >> 20}
        numbers |= {"most": MAX_FILES, "limit": MAX_BYTES >> 20}
        raise BadArchive(message % numbers)


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Below the folder, as a plain file; never more bytes than the entry says it has."""
    inside = PurePosixPath(entry.filename.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
        message = gettext("The ZIP holds a file outside of its folders: %(name)s. Pack it again.")
        raise BadArchive(message % {"name": entry.filename[:200]})
    if stat.S_ISLNK(entry.external_attr >> 16):
        return
    path = folder / inside
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target)


def _root(folder: Path) -> Path:
    """The folder whose folders are the persons: many a ZIP wraps them all in one more."""
    inside = _shown(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        below = _shown(inside[0].iterdir())
        if below and all(path.is_dir() for path in below):
            return inside[0]
    return folder


def _shown(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not path.name.startswith((".", "__MACOSX"))]
