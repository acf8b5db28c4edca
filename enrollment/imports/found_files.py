"""Find the files of a folder with one folder for each person."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError

from enrollment.enrolling import clean_person_id
from recognition.conf import get_settings
from recognition.sentences import gettext as _
from recognition.sentences import joined

# Files and folders of operating systems and network drives, in lower case.
SYSTEM_FILES: Final = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    }
)


_BYTE: Final = re.compile(rb"\\x([0-9a-f]{2})")
NOBODYS: Final = "nobodys"  # the code of a picture that is in no person's folder


class FileStatus(StrEnum):
    ENROLLED = "enrolled"
    SKIPPED = "skipped"  # enrolled before
    REFUSED = "refused"
    IGNORED = "ignored"  # hidden, or of the operating system


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the folder, with its person or the reason why it is not enrolled.

    `details` are as in `Upload`. `code` tells of a reason what a program needs to know. With an
    `address` the picture is there, and `path` is its name. `found` is where `Upload.found` may lie,
    as JSON.
    """

    path: Path
    shown_path: str  # relative to the imported folder
    person_id: str = ""
    name: str = ""
    reason: str = ""
    status: FileStatus = FileStatus.REFUSED
    details: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    address: str = ""
    found: Path | None = None


def too_large() -> str:
    """Return why a file of more bytes than a request may have is refused."""
    message = _(
        "The file is larger than the %(limit)d MB that the administrator allows (MAX_REQUEST_MB)."
    )
    return message % {"limit": get_settings().max_request_bytes // 1024**2}


def find_files(folder: Path, person_id: str | None = None) -> list[FoundFile]:
    """Return every file below the folder, ordered by name.

    With `person_id` all belong to that person. Otherwise each top-level folder is a person: its
    name is the person's id and, with spaces for underscores, the person's name.
    """
    root = folder.resolve()
    return list(_scan(root, root, FoundFile(root, "", person_id or "")))


def _scan(folder: Path, root: Path, owner: FoundFile) -> Iterator[FoundFile]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield _refused(folder, root, _("The folder cannot be read: %(error)s."), error.strerror)
        return
    for path in entries:
        if is_passed_over(path):
            yield _refused(path, root, _("Hidden and system files are passed over."), ignored=True)
        elif path.is_symlink() and not _leads_to_file_within(path, root):
            yield _refused(path, root, _("Links to folders or out of the folder are not followed."))
        elif path.is_dir():
            known = owner.person_id or owner.reason
            yield from _scan(path, root, owner if known else _person(path))
        elif not path.is_file():
            yield _refused(path, root, _("This is no regular file."))
        elif not owner.person_id and not owner.reason:
            reason = _(
                "The file is not in a person's folder. Move it into one that is named by the "
                "person's id."
            )
            yield _refused(path, root, reason, code=NOBODYS)
        else:
            yield FoundFile(path, _shown(path, root), owner.person_id, owner.name, owner.reason)


def is_passed_over(path: Path) -> bool:
    """Return whether the file or folder is hidden or belongs to the operating system."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM_FILES


def _leads_to_file_within(path: Path, root: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(root)


def _refused(
    path: Path,
    root: Path,
    reason: str,
    error: str | None = None,
    *,
    ignored: bool = False,
    code: str = "",
) -> FoundFile:
    status = FileStatus.IGNORED if ignored else FileStatus.REFUSED
    reason %= {"error": error}
    return FoundFile(path, _shown(path, root), reason=reason, status=status, code=code)


def _shown(path: Path, root: Path) -> str:
    return as_text(path.relative_to(root))


def as_text(path: Path) -> str:
    """Return the path as text for SQL; invalid UTF-8 appears as `\\xe3`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def from_text(text: str) -> str:
    """Return the path of which this is `as_text`, if some of it was not UTF-8."""
    return os.fsdecode(_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode()))


def _person(folder: Path) -> FoundFile:
    """Return the person that a folder stands for."""
    try:
        folder.name.encode()
        person_id = clean_person_id(folder.name)
    except ValidationError as error:
        return FoundFile(folder, "", reason=joined(error.messages))
    except UnicodeEncodeError:
        return FoundFile(folder, "", reason=_("The folder's name is not UTF-8. Rename it."))
    name = person_id.replace("_", " ").strip()
    return FoundFile(folder, "", person_id, name if name != person_id else "")
