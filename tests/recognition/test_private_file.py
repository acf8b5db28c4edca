"""Secrets in files of their own."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from recognition.private_file import (
    AS_USUAL,
    _nameless_file,
    new_private_file,
    private_file,
    whole_file,
)
from tests.gallery_folder import ROOT


def test_who_ask_at_once_get_the_same_text(tmp_path):
    """Two threads, or two containers, whose processes have the same numbers: one had overwritten the
    key that the other used already, and the other failed."""
    path = tmp_path / "key"
    others = []

    def made_meanwhile() -> str:
        others.append(private_file(path, lambda: "of the faster one"))
        return "ours"

    assert private_file(path, made_meanwhile) == "of the faster one" == others[0]
    assert path.read_text() == "of the faster one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_fails_as_it_is_closed_does_not_stay(tmp_path):
    """What is written reaches a full disk only then."""
    path = tmp_path / "export.zip"
    with pytest.raises(OSError), new_private_file(path) as file:
        file.write(b"of a person")
        os.close(file.fileno())
    assert not path.exists()


def test_file_has_its_name_once_it_is_whole(tmp_path):
    path = tmp_path / "w.json"
    path.write_bytes(b"old")
    with whole_file(path, AS_USUAL) as one, whole_file(path) as other:
        one.write(b"one")
        other.write(b"the other")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == AS_USUAL & ~umask


@pytest.fixture(params=["a file system with nameless files", "another"])
def files(request, monkeypatch) -> None:
    if request.param == "another":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


@pytest.mark.usefixtures("files")
def test_file_that_may_not_replace_another_leaves_it(tmp_path):
    path = tmp_path / "faces.tar"
    with pytest.raises(FileExistsError), whole_file(path, may_replace=False) as slow:
        with whole_file(path, may_replace=False) as fast:
            fast.write(b"fast")
        slow.write(b"slow")
    assert path.read_bytes() == b"fast"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_killed_process_leaves_nothing_of_a_new_file(tmp_path, step):
    """A backup that was killed had left a file that holds everybody, or an empty one of its name."""
    script = (
        "import os, signal, sys, pathlib\n"
        "from recognition.private_file import whole_file\n"
        f"os.{step} = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with whole_file(pathlib.Path(sys.argv[1]), may_replace=False) as file:\n"
        "    file.write(b'of everybody')\n"
    )
    if not (nameless := _nameless_file(tmp_path, 0o600)):
        pytest.skip("this file system has no nameless files")
    nameless.close()
    path = tmp_path / "faces.tar"
    result = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_that_fails(tmp_path):
    path = tmp_path / "w.json"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), whole_file(path) as file:
        file.write(b"new")
        raise OSError("full")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
