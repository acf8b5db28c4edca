"""The size of files is limited, so that each can be read at one sitting."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 400
KINDS = {".py", ".html", ".css", ".js", ".md", ".toml", ".sh", ""}
ELSEWHERE = ("tests/", "locale/")


def test_no_file_is_longer_than_can_be_read_at_one_sitting() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    ours = [
        name
        for name in listed
        if Path(name).suffix in KINDS
        and not name.startswith(ELSEWHERE)
        and "/migrations/" not in name
        and (ROOT / name).is_file()
    ]
    assert len(ours) > 100
    long = {name for name in ours if len((ROOT / name).read_text().splitlines()) > MOST_LINES}
    assert long == set()
