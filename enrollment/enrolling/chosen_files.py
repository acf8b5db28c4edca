"""Pictures chosen in a form that could not be saved, kept so that nobody has to choose them again.

They lie in a folder of `DATA_DIR/imports`, for the account that chose them alone, until they are
enrolled, and a day at most. Nothing of them is enrolled before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from django.conf import settings
from django.core.files import File

from enrollment.enrolling.staging_folder import forget_old_imports, imports_folder

MOST_BYTES_IN_REQUESTS: Final = 4  # times MAX_REQUEST_MB, of one account
_NAMES: Final = "names.json"


def keep_files(owner: int, files: Iterable[File[Any]], token: str = "") -> str:
    """Keep the files, beside those that the account keeps under the token, and return the token.

    Return an empty text when they are too many or cannot be stored; they must be chosen again then.
    """
    forget_old_imports()
    home, names = _folder(owner, token), chosen_names(owner, token)
    if not names:
        token = token_hex(16)
        home = _folder(owner, token)
    files = list(files)
    held = sum(path.stat().st_size for path in imports_folder().glob(f"chosen-{owner}-*/*"))
    if (
        held + sum(file.size for file in files)
        > MOST_BYTES_IN_REQUESTS * settings.MAX_REQUEST_BYTES
    ):
        return ""
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        for number, file in enumerate(files, len(names)):
            file.seek(0)
            (home / str(number)).write_bytes(file.read())
        told = [*names, *(file.name or "" for file in files)]
        (home / _NAMES).write_text(json.dumps(told))
    except OSError:
        shutil.rmtree(home, ignore_errors=True)
        return ""
    return token


def chosen_names(owner: int, token: str) -> list[str]:
    """Return the names of the files that the account keeps under this token."""
    try:
        names: list[str] = json.loads((_folder(owner, token) / _NAMES).read_text())
    except (OSError, ValueError):
        return []
    return names


@contextmanager
def chosen_files(owner: int, token: str) -> Iterator[Sequence[File[Any]]]:
    """Yield the open files that the account keeps under this token, and delete them after that."""
    home = _folder(owner, token)
    with ExitStack() as opened:
        yield [
            File(opened.enter_context((home / str(number)).open("rb")), name)
            for number, name in enumerate(chosen_names(owner, token))
        ]
    if token:
        shutil.rmtree(home, ignore_errors=True)


def _folder(owner: int, token: str) -> Path:
    known = token if token.isascii() and token.isalnum() else "none"
    return imports_folder() / f"chosen-{owner}-{known}"
