"""The settings: each is read, documented, and strict about its value."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from faceproject import configuration
from faceproject.conf import ProjectSettings
from faceproject.environment import Environment
from faceproject.secret import private_folder, stored_secret_key
from recognition.conf import RecognitionSettings
from recognition.setting import setting, settings_of
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
    """Also a folder from a clone that has only its README.md."""
    cloned = tmp_path / "cloned"
    cloned.mkdir(mode=0o755)
    (cloned / "README.md").touch()
    assert private_folder(cloned).stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path / "made").stat().st_mode & 0o777 == 0o700


def test_data_folder_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    for folder in (taken, taken / "below"):
        with pytest.raises(ImproperlyConfigured, match=rf"DATA_DIR is {folder}, .* cannot be used"):
            private_folder(folder)
    with pytest.raises(ImproperlyConfigured, match="DATA_DIR"):
        stored_secret_key(taken / "secret_key")


@pytest.mark.parametrize("holds", [(), ("README.md", "db.sqlite3")], ids=["empty", "in use"])
def test_data_folder_that_somebody_opened_stays_open(
    tmp_path: Path, holds: tuple[str, ...]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    for name in holds:
        (folder / name).touch()
    assert private_folder(folder).stat().st_mode & 0o777 == 0o755


def test_page_has_one_table_of_every_section() -> None:
    """And so a row for every setting."""
    tables = configuration.TABLE.findall(configuration.PAGE.read_text())
    sections = [section for _start, section, _end in tables]
    assert len(sections) == len(set(sections))
    assert set(sections) == {item.section for item in configuration.SETTINGS}


def test_no_two_apps_declare_the_same_setting() -> None:
    names = [item.name for item in configuration.SETTINGS]
    assert len(names) == len(set(names))


def test_setting_brings_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class More:
        new_knob: int = setting(3, "Turns. More words.", section="Networks", least=1, most=9)

    monkeypatch.setattr(configuration, "SETTINGS", configuration.SETTINGS + settings_of(More))
    row = "| `NEW_KNOB` | a whole number from 1 to 9 | `3` | Turns. More words. |"
    assert row in configuration.page()
    assert f"# {'NEW_KNOB=3':<36} Turns\n" in configuration.example()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("MAX_REQUEST_MB", "| `MAX_REQUEST_MB` | a whole number from 1 to 4096 | `50` |"),
        ("MILVUS_URI", "| `MILVUS_URI` | text | `DATA_DIR/milvus_face.db` |"),
        ("PRELOAD_MODELS", "| `PRELOAD_MODELS` | words with commas between them | none |"),
        ("NO_FACE_POLICY", "| `NO_FACE_POLICY` | one of embed, error | `embed` |"),
    ],
)
def test_row_tells_what_is_taken_and_the_default(name: str, row: str) -> None:
    assert f"\n{row} " in configuration.page()


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One setting of each kind."""

    flag: bool | None = setting(None, "A flag.", section="Kinds")
    count: int = setting(7, "A count.", least=1, most=9)
    bytes_: int = setting(1024, "A size.", least=1024, most=4096, unit=1024, variable="KILOBYTES")
    share: float = setting(0.5, "A share.", least=0, most=1)
    level: Literal["INFO", "DEBUG"] = setting("INFO", "A choice.")
    token: str = setting("", "A text.")
    hosts: tuple[str, ...] = setting((), "Words.")
    folder: Path = setting(Path("x"), "A folder.")


def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **values: str) -> Environment:
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Environment(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("FLAG", "ture", "1 or 0", id="flag"),
        pytest.param("COUNT", "8OOO", "a whole number from 1 to 9", id="integer"),
        pytest.param("COUNT", "0", "a whole number from 1 to 9", id="below the least"),
        pytest.param("COUNT", "10", "a whole number from 1 to 9", id="above the most"),
        pytest.param("KILOBYTES", "5", "a whole number from 1 to 4", id="of a unit"),
        pytest.param("SHARE", "half", "a number from 0 to 1", id="number"),
        pytest.param("SHARE", "nan", "a number from 0 to 1", id="not a number"),
        pytest.param("LEVEL", "loud", "one of INFO, DEBUG", id="choice"),
    ],
)
def test_senseless_value_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, expected: str
) -> None:
    env = environment(monkeypatch, tmp_path, **{name: value})
    with pytest.raises(ImproperlyConfigured, match=f"{name}={value} .* {expected} is expected"):
        env.read(Declared)


def test_unknown_time_zone_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = environment(monkeypatch, tmp_path, TIME_ZONE="America")
    with pytest.raises(ImproperlyConfigured, match="TIME_ZONE=America .* the name of a time zone"):
        env.read(ProjectSettings)


def test_time_zone_is_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = environment(monkeypatch, tmp_path, TIME_ZONE="America/Sao_Paulo")
    assert env.read(ProjectSettings).time_zone == "America/Sao_Paulo"


def test_time_zone_is_the_machines_own_when_none_is_named(tmp_path: Path) -> None:
    show = "from django.conf import settings; print(settings.TIME_ZONE)"
    done = manage(tmp_path, "shell", "--no-imports", "--command", show, TZ="America/Recife")
    assert done.stdout.strip() == "America/Recife"


@pytest.mark.parametrize("scheme", ["postgrs", "mysql"])
def test_password_in_a_bad_database_address_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    env = environment(monkeypatch, tmp_path, DATABASE_URL=f"{scheme}://me:hush@host/faces")
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL was given") as refused:
        env.read(ProjectSettings)
    assert "hush" not in str(refused.value)


def test_secrets_are_in_no_representation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A traceback or a failing test might print it."""
    names = ("SECRET_KEY", "S3_SECRET_KEY", "DJANGO_SUPERUSER_PASSWORD", "MILVUS_TOKEN")
    env = environment(monkeypatch, tmp_path, **dict.fromkeys(names, "hush"))
    assert "hush" not in f"{env.read(ProjectSettings)} {env.read(RecognitionSettings)}"


def test_values_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """django-environ would treat `$ecret` as the name of another variable."""
    read = environment(
        monkeypatch,
        tmp_path,
        TOKEN="$ecret",
        HOSTS="a.example, b.example,",
        COUNT="",
        LEVEL="debug",
        KILOBYTES="2",
        SHARE="0.25",
    ).read(Declared)
    assert read.token == "$ecret"
    assert read.hosts == ("a.example", "b.example")
    assert (read.count, read.flag, read.level) == (7, None, "DEBUG")
    assert (read.bytes_, read.share) == (2048, 0.25)


def test_a_file_of_settings_that_cannot_be_read_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its settings were passed over, such as those that close the door."""
    file = tmp_path / ".env"
    file.mkdir()
    with pytest.raises(ImproperlyConfigured, match="cannot be read: Is a directory"):
        environment(monkeypatch, tmp_path)
    file.rmdir()
    file.write_bytes(b"SECRET_KEY=p\xe3o")
    with pytest.raises(ImproperlyConfigured, match="cannot be read: it is not UTF-8"):
        environment(monkeypatch, tmp_path)


@pytest.mark.parametrize("line", ["API_AUTH_REQUIRED = 1", "THREADS: 8", "secret"])
def test_a_line_that_is_no_setting_stops_the_start(tmp_path: Path, monkeypatch, line: str) -> None:
    """It was passed over: the door that it should have closed stayed open."""
    file = tmp_path / "some.env"
    file.write_text(f"  # of the door\n\n{line}\n")
    monkeypatch.setenv("ENV_FILE", str(file))
    with pytest.raises(ImproperlyConfigured, match=rf"Line 3 of {file} is no setting") as stopped:
        Environment(tmp_path)
    assert line not in str(stopped.value)


def test_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\nCOUNT=1\nTOKEN=2\n")
    monkeypatch.setitem(os.environ, "COUNT", "")  # so that it is restored at the end
    monkeypatch.delenv("COUNT")
    read = environment(monkeypatch, tmp_path, TOKEN="3").read(Declared)
    assert (read.count, read.token) == (1, "3")
    monkeypatch.delenv("COUNT")


@pytest.mark.parametrize(
    ("given", "folder"), [("a b/c", "{base}/a b/c"), ("/far/away", "/far/away"), ("", "{base}/x")]
)
def test_relative_paths_start_at_the_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, folder: str
) -> None:
    env = environment(monkeypatch, tmp_path, FOLDER=given)
    assert env.read(Declared).folder == Path(folder.format(base=tmp_path))


def test_installation_brings_defaults_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = environment(monkeypatch, tmp_path, COUNT="2")
    read = env.read(Declared, token="found", count=3)
    assert (read.token, read.count) == ("found", 2)


def test_manage_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", PORT="eight")
    assert done.returncode == 1
    assert done.stderr.startswith("Not configured right: PORT=eight was given")
    assert "Traceback" not in done.stderr


def test_data_folder_may_have_any_name(tmp_path: Path) -> None:
    """As part of a URL, `%41 #1?` would name another file."""
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
