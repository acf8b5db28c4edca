"""The knobs: each is read, documented and strict about its value."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from faceproject import settings as project_settings
from faceproject.environment import Environment
from recognition.conf import RecognitionSettings
from tests.test_server import manage

ROOT = Path(__file__).resolve().parent.parent
# Read by Django itself, by `manage.py serve`, or before the settings.
READ_ELSEWHERE = {
    "DJANGO_SUPERUSER_USERNAME",
    "DJANGO_SUPERUSER_PASSWORD",
    "DJANGO_SUPERUSER_EMAIL",
    "ENV_FILE",
}


def knobs() -> set[str]:
    return project_settings.env.names | READ_ELSEWHERE


def example() -> dict[str, tuple[str, str]]:
    """Default and meaning of every line of `.env.example`."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    found = [re.fullmatch(r"# ([A-Z][A-Z0-9_]+)=(\S*)\s+(\S.*)", line) for line in lines]
    return {match[1]: (match[2], match[3]) for match in found if match}


def test_env_example_lists_every_knob_and_no_other() -> None:
    assert set(example()) == knobs()


def test_configuration_page_lists_every_knob_and_no_other() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    documented = re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", page, re.MULTILINE)
    assert sorted(documented) == sorted(knobs())


def test_every_field_of_the_recognition_settings_is_a_knob() -> None:
    fields = {name.upper() for name in RecognitionSettings.__dataclass_fields__}
    # One is given in megabytes; the other is part of the API's contract.
    assert fields - knobs() == {"MAX_REQUEST_BYTES", "ALLOWED_EXTENSIONS"}


def test_defaults_in_env_example_are_the_real_ones() -> None:
    real = RecognitionSettings()
    for name, (default, _meaning) in example().items():
        if default and hasattr(real, name.lower()) and name != "WEIGHTS_DIR":
            value = getattr(real, name.lower())
            is_number = isinstance(value, float | bool)
            assert default == (f"{value:g}" if is_number else str(value)), name


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
