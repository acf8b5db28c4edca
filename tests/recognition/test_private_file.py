"""Secrets in files of their own."""

from __future__ import annotations

import os
import stat

import pytest

from recognition.private_file import new_private_file, private_file


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
