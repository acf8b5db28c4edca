"""The knobs: each is read, documented and strict about its value."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from faceproject import configuration
from faceproject import settings as project_settings
from faceproject.environment import Environment, Knob
from faceproject.secret import private_folder
from recognition.conf import RecognitionSettings
from tests.test_server import manage

ROOT = Path(__file__).resolve().parent.parent
WRITE = "python -m faceproject.configuration"


@pytest.mark.parametrize(
    ("file", "render"),
    [
        pytest.param(configuration.PAGE, configuration.page, id="docs/configuration.md"),
        pytest.param(configuration.EXAMPLE, configuration.example, id=".env.example"),
    ],
)
def test_settings_are_described_as_they_are(file: Path, render: Callable[[], str]) -> None:
    # A comparison of texts this long would bury the sentence.
    is_current = file.read_text() == render()
    assert is_current, f"{file.name} differs from the settings. Write it anew: {WRITE}"


def test_new_data_folder_is_its_owners_only(tmp_path: Path) -> None:
    """Also the one that a clone brings along, with nothing but its README.md in it."""
    cloned = tmp_path / "cloned"
    cloned.mkdir(mode=0o755)
    (cloned / "README.md").touch()
    assert private_folder(cloned).stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path / "made").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("holds", [(), ("README.md", "db.sqlite3")], ids=["empty", "in use"])
def test_data_folder_that_somebody_opened_stays_open(
    tmp_path: Path, holds: tuple[str, ...]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    for name in holds:
        (folder / name).touch()
    assert private_folder(folder).stat().st_mode & 0o777 == 0o755


def test_default_stays_when_django_writes_into_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read = environment(monkeypatch, tmp_path)
    read.database("DATABASE_URL", {"NAME": "db.sqlite3"})["NAME"] = "test.sqlite3"
    assert read.knobs["DATABASE_URL"].default == {"NAME": "db.sqlite3"}


def test_page_has_a_table_of_every_section() -> None:
    sections = [
        section for _start, section, _end in configuration.TABLE.findall(configuration.page())
    ]
    assert sections == list(configuration.MEANINGS)


def test_setting_without_a_meaning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(project_settings.env.knobs, "NEW_KNOB", Knob("text", None))
    with pytest.raises(LookupError, match="NEW_KNOB"):
        configuration.page()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("PORT", "| `PORT` | a whole number of 0 or more | `8000` |"),
        ("DETECTION_MIN_SCORE", "| `DETECTION_MIN_SCORE` | a number from 0 to 1 | `0.9` |"),
        ("HTTPS", "| `HTTPS` | 1 or 0 | `0` |"),
        ("MILVUS_URI", "| `MILVUS_URI` | text | `DATA_DIR/milvus_face.db` |"),
        ("PRELOAD_MODELS", "| `PRELOAD_MODELS` | words with commas between them | none |"),
        ("NO_FACE_POLICY", "| `NO_FACE_POLICY` | one of embed, error | `embed` |"),
    ],
)
def test_row_tells_what_is_taken_and_the_default(name: str, row: str) -> None:
    assert f"\n{row} " in configuration.page()


def test_every_field_of_the_recognition_settings_is_a_knob() -> None:
    fields = {name.upper() for name in RecognitionSettings.__dataclass_fields__}
    # It is given in megabytes.
    assert fields - set(configuration.knobs()) == {"MAX_REQUEST_BYTES"}


def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **values: str) -> Environment:
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Environment(tmp_path)


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        pytest.param("flag", "ture", "1 or 0", id="flag"),
        pytest.param("integer", "8OOO", "a whole number", id="integer"),
        pytest.param("number", "half", "a number", id="number"),
    ],
)
def test_senseless_value_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: str, value: str, expected: str
) -> None:
    env = environment(monkeypatch, tmp_path, KNOB=value)
    with pytest.raises(ImproperlyConfigured, match=f"KNOB={value} .* {expected} is expected"):
        getattr(env, read)("KNOB", None)


def test_time_zone_is_the_machines_own_or_the_one_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TZ", "America/Recife")
    env = environment(monkeypatch, tmp_path, NAMED="America/Sao_Paulo", WRONG="America")
    assert env.time_zone("NAMED") == "America/Sao_Paulo"
    assert env.time_zone("NONE") == "America/Recife"
    with pytest.raises(ImproperlyConfigured, match="WRONG=America .* the name of a time zone"):
        env.time_zone("WRONG")


def test_number_below_the_least_and_unknown_choice_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = environment(monkeypatch, tmp_path, THREADS="0", LEVEL="loud", LOWER="debug")
    with pytest.raises(ImproperlyConfigured, match="THREADS=0 .* a whole number of 1 or more"):
        env.integer("THREADS", 8, least=1)
    with pytest.raises(ImproperlyConfigured, match="LEVEL=loud .* one of DEBUG, INFO"):
        env.choice("LEVEL", "INFO", ("DEBUG", "INFO"))
    assert env.choice("LOWER", "INFO", ("DEBUG", "INFO")) == "DEBUG"


def test_password_in_a_bad_database_address_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = environment(monkeypatch, tmp_path, DATABASE_URL="postgrs://me:hush@host/faces")
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL was given") as refused:
        env.database("DATABASE_URL", {})
    assert "hush" not in str(refused.value)


def test_values_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """django-environ would take `$ecret` for the name of another variable."""
    env = environment(
        monkeypatch, tmp_path, TOKEN="$ecret", HOSTS="a.example, b.example,", EMPTY=""
    )
    assert env.text("TOKEN") == "$ecret"
    assert env.words("HOSTS") == ("a.example", "b.example")
    assert env.integer("EMPTY", 7) == 7
    assert env.flag("EMPTY", None) is None


def test_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\nFROM_FILE=1\nFROM_BOTH=2\n")
    monkeypatch.setitem(os.environ, "FROM_FILE", "")  # so that it is restored at the end
    monkeypatch.delenv("FROM_FILE")
    env = environment(monkeypatch, tmp_path, FROM_BOTH="3")
    assert (env.integer("FROM_FILE"), env.integer("FROM_BOTH")) == (1, 3)
    monkeypatch.delenv("FROM_FILE")


def test_relative_paths_start_at_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = environment(monkeypatch, tmp_path, NEAR="a b/c", FAR="/far/away")
    assert env.path("NEAR", "x") == tmp_path / "a b" / "c"
    assert env.path("FAR", "x") == Path("/far/away")
    assert env.path("NONE", "x") == tmp_path / "x"


def test_manage_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", PORT="eight")
    assert done.returncode == 1
    assert done.stderr.startswith("Not configured right: PORT=eight was given")
    assert "Traceback" not in done.stderr


def test_data_folder_may_have_any_name(tmp_path: Path) -> None:
    """As part of an address, `%41 #1?` would have named another file."""
    folder = tmp_path / "data %41 #1?"
    done = manage(folder, "migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    assert (folder / "db.sqlite3").stat().st_size > 0


def test_secret_key_is_made_once_and_private(tmp_path: Path) -> None:
    show = "from django.conf import settings; print(settings.SECRET_KEY)"
    first, second = (manage(tmp_path, "shell", "--no-imports", "--command", show) for _ in "12")
    assert len(first.stdout.strip()) >= 50
    assert first.stdout == second.stdout
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_tests_do_not_see_the_developers_own_settings() -> None:
    assert django_settings.DATA_DIR != ROOT / "data"
    assert django_settings.API_AUTH_REQUIRED is None
