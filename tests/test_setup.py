"""`manage.py setup` as an administrator runs it: a process of its own, on an empty installation."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from faceproject.environment import write_settings
from tests.gallery_folder import migrated_data
from tests.test_server import ROOT, environment

SECONDS = 240  # a busy machine is waited for; a test may take 300
ACCOUNT = {
    "DJANGO_SUPERUSER_USERNAME": "boss",
    "DJANGO_SUPERUSER_PASSWORD": "a long pass phrase",
}


def setup(folder: Path, *words: str, typed: str = "", **knobs: str):
    env = environment(folder / "data") | {"ENV_FILE": str(folder / ".env")} | knobs
    env.pop("API_AUTH_REQUIRED")
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "setup", *words],
        env=env,
        input=typed,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_flags_bring_an_empty_installation_to_a_search_that_works(tmp_path: Path) -> None:
    words = ["--set", "PERSON_KEEP_DAYS=30", "--set", "ALLOWED_HOSTS=a.example,b.example"]
    done = setup(tmp_path, "--no-input", *words, **ACCOUNT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Made the admin account 'boss'." in done.stdout
    assert "a drawn picture" in done.stdout and "/people/new." in done.stdout
    text = (tmp_path / ".env").read_text()
    assert text == "PERSON_KEEP_DAYS=30\nALLOWED_HOSTS=a.example,b.example\n"
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    again = setup(tmp_path, "--no-input", **ACCOUNT)
    assert (again.returncode, "There is one." in again.stdout) == (0, True)
    assert (tmp_path / ".env").read_text() == text


@pytest.fixture
def migrated(tmp_path: Path) -> None:
    """Tables that are up to date: to make them takes as long as all the rest."""
    shutil.copytree(migrated_data(), tmp_path / "data")


@pytest.mark.usefixtures("migrated")
def test_answers_are_asked_again_until_they_fit_and_hold_at_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nLANGUAGE_CODE=en\nTHREADS=3\n")
    done = setup(tmp_path, typed="klingon\npt-br\n0.0.0.0\n\n1\n\n7\n", **ACCOUNT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LANGUAGE_CODE: 'klingon' was given, and one of en, pt-br is expected." in done.stdout
    lines = [
        "# mine",
        "THREADS=3",
        "LANGUAGE_CODE=pt-br",
        "HOST=0.0.0.0",
        "API_AUTH_REQUIRED=1",
        "SEARCH_LOG_DAYS=7",
    ]
    assert (tmp_path / ".env").read_text().splitlines() == lines
    assert "Todos precisam de uma conta." in done.stdout  # by the answers just given
    assert " http://localhost:0/" in done.stdout  # http://0.0.0.0 would be answered 400
    assert "then they are erased" in done.stdout and "](" not in done.stdout  # no Markdown


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "COLOUR=red"], "'COLOUR' is no setting"),
        (["--set", "PORT=many"], "a whole number from 0 to 65535 is expected"),
        (["--set", "SECRET_KEY=it's mine"], "cannot be written to .env"),
        ([], "DJANGO_SUPERUSER_PASSWORD"),
    ],
)
def test_what_is_missing_or_wrong_is_said_and_fails(tmp_path: Path, words, said: str) -> None:
    done = setup(tmp_path, "--no-input", *words)
    assert done.returncode == 1 and said in done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_where_no_file_can_be_written_the_environment_is_named(tmp_path: Path) -> None:
    done = setup(tmp_path, "--no-input", "--set", "THREADS=4", ENV_FILE=os.devnull)
    assert done.returncode == 1 and "THREADS=4" in done.stderr


@pytest.mark.usefixtures("migrated")
def test_weights_that_cannot_be_fetched_are_named_and_the_rest_is_done(tmp_path: Path) -> None:
    words = ["--fetch", "yunet"]
    done = setup(
        tmp_path,
        "--no-input",
        *words,
        WEIGHTS_DIR=str(ROOT / "weights"),
        HTTPS_PROXY="http://127.0.0.1:9",
        **ACCOUNT,
    )
    assert done.returncode == 1 and "Does not work: yunet." in done.stderr
    assert "a drawn picture" in done.stdout


def test_a_setting_keeps_its_value_on_the_way_through_the_file(tmp_path: Path) -> None:
    import environ

    file = tmp_path / ".env"
    values = {"A": "x y #z", "B": 'say "hi"', "C": "postgres://u:p@h:5432/n?x=1"}
    write_settings(file, {"A": "old"})
    write_settings(file, values)
    os.environ.update(dict.fromkeys(values, ""))
    for name in values:
        del os.environ[name]
    environ.Env.read_env(file)
    assert {name: os.environ.pop(name) for name in values} == values


def test_settings_that_cannot_be_written_leave_no_second_file_with_passwords(tmp_path, monkeypatch):
    file = tmp_path / ".env"
    write_settings(file, {"A": "old"})
    monkeypatch.setattr(Path, "replace", _full)
    with pytest.raises(OSError, match="full"):
        write_settings(file, {"DATABASE_URL": "postgres://me:secret@host/db"})
    assert list(tmp_path.iterdir()) == [file]


def _full(*paths: Path) -> None:
    raise OSError("full")
