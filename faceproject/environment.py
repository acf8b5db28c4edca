"""Reads the deploy knobs; a value that makes no sense stops the start with a sentence, not a guess."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zoneinfo import available_timezones

import environ
from django.core.exceptions import ImproperlyConfigured
from tzlocal import get_localzone_name

Value = TypeVar("Value")

SECRETS = {"DATABASE_URL"}  # may hold a password: never repeated in a message

FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class Knob(NamedTuple):
    """What a setting takes, in words, and what stands when it is not given."""

    expected: str
    default: Any


class Environment:
    """The environment over an optional `.env` file; an empty variable counts as not set."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.knobs: dict[str, Knob] = {}  # every one that was asked for, set or not
        self.file = Path(os.environ.get("ENV_FILE") or base / ".env")
        environ.Env.read_env(self.file)  # does not overwrite what the environment has

    def text(self, name: str, default: Any = "") -> Any:
        return self._read(name, default, str, "text")

    def flag(self, name: str, default: bool | None) -> bool | None:
        return self._read(name, default, lambda value: FLAGS[value.lower()], "1 or 0")

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of `choices`, in any case."""
        known = {choice.lower(): choice for choice in choices}
        expected = f"one of {', '.join(choices)}"
        return self._read(name, default, lambda value: known[value.lower()], expected)

    def integer(self, name: str, default: Any = None, *, least: int | None = None) -> Any:
        def convert(value: str) -> int:
            if least is not None and int(value) < least:
                raise ValueError(value)
            return int(value)

        limit = "" if least is None else f" of {least} or more"
        return self._read(name, default, convert, f"a whole number{limit}")

    def number(self, name: str, default: Any = None) -> Any:
        return self._read(name, default, float, "a number")

    def rate(self, name: str) -> str | None:
        """How often something may be done, as `60/minute`; None: as often as one likes."""
        return self._read(name, None, _rate, "a number and a time such as 60/minute or 10/second")

    def time_zone(self, name: str) -> str:
        """The name of a time zone; the machine's own when none is given."""
        expected = "the name of a time zone such as America/Sao_Paulo"
        return self._read(name, "", _zone, expected) or get_localzone_name() or "UTC"

    def words(self, name: str, default: Any = ()) -> Any:
        return self._read(name, default, _split, "words with commas between them")

    def path(self, name: str, default: str) -> Path:
        """A folder or file; a relative one starts at the project's root."""
        return self.base / Path(self._read(name, default, str, "a folder")).expanduser()

    def database(self, name: str, default: dict[str, Any]) -> dict[str, Any]:
        return self._read(name, default, _database, "an address like postgres://user:pass@host/db")

    def _read(
        self, name: str, default: Value, convert: Callable[[str], Value], expected: str
    ) -> Value:
        # A copy: Django writes into the dict of a database that it is given.
        self.knobs[name] = Knob(expected, copy(default))
        value = os.environ.get(name, "").strip()
        if not value:
            return default
        try:
            return convert(value)
        except (KeyError, ValueError, ImproperlyConfigured) as error:
            given = name if name in SECRETS else f"{name}={value}"
            raise ImproperlyConfigured(
                f"{given} was given, in the environment or in {self.file.name}, but {expected} is "
                "expected. See docs/configuration.md."
            ) from error


def _split(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _rate(value: str) -> str:
    number, _slash, period = value.partition("/")
    if int(number) < 1 or period.strip() not in ("second", "minute", "hour", "day"):
        raise ValueError(value)
    return f"{int(number)}/{period.strip()}"


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(value)
    return value


def _database(value: str) -> dict[str, Any]:
    if value.partition(":")[0] not in environ.Env.DB_SCHEMES:
        raise ValueError(value)
    return environ.Env.db_url_config(value)
