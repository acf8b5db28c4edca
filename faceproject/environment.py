"""Read the settings from the environment; an invalid value stops the start with a message."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

from recognition.private_file import whole_file
from recognition.setting import Setting, settings_of

Declaration = TypeVar("Declaration")

LINE = re.compile(r"(?:export )?\w+=", re.ASCII)
PLAIN = re.compile(r"[\w./:@,+-]*")  # a value that needs no quotes


class Environment:
    """The environment variables and an optional `.env` file; empty variables count as unset."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.file = Path(os.environ.get("ENV_FILE") or base / ".env")
        try:
            lines = [line.strip() for line in self.file.read_text("utf-8-sig").splitlines()]
        except FileNotFoundError:
            return  # a check says so, where ENV_FILE names it
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ImproperlyConfigured(
                f"The settings in {self.file} cannot be read: {reason}. Run this as the user whom the file "
                "belongs to, or mend it. See docs/configuration.md."
            ) from error
        for number, line in enumerate(lines, 1):
            if line and not line.startswith("#") and not LINE.match(line):
                raise ImproperlyConfigured(  # without the line, which may hold a password
                    f"Line {number} of {self.file} is no setting: NAME=value was expected, without spaces "
                    "around the equals sign, or # before a comment. See docs/configuration.md."
                )
        environ.Env.read_env(io.StringIO("\n".join(lines)))  # the environment wins

    def read(self, declaration: type[Declaration], **defaults: object) -> Declaration:
        """Return the settings that a dataclass declares; `defaults` replace declared defaults.

        Relative paths are relative to the project's root. Raise `ImproperlyConfigured` for an
        invalid value.
        """
        values = {
            item.field: self._value(item, defaults.get(item.field, item.default))
            for item in settings_of(declaration)
        }
        return declaration(**values)

    def _value(self, item: Setting, default: Any) -> Any:
        text = os.environ.get(item.name, "").strip()
        try:
            value = item.parse(text) if text else default
        except (ValueError, ImproperlyConfigured) as error:
            given = item.name if item.is_secret else f"{item.name}={text}"
            raise ImproperlyConfigured(
                f"{given} was given, in the environment or in {self.file.name}, but {item.expected} "
                "is expected. See docs/configuration.md."
            ) from error
        return self.base / value.expanduser() if isinstance(value, Path) else value


def write_settings(file: Path, values: Mapping[str, str]) -> None:
    """Set variables in an `.env` file, atomically, and keep its other lines and its comments.

    Raise `ValueError` for a value that a line of the file cannot hold.
    """
    lines = file.read_text().splitlines() if file.exists() else []
    for name, value in values.items():
        if not value.isprintable() or "'" in value:
            raise ValueError(value)
        quoted = value if PLAIN.fullmatch(value) else f"'{value}'"
        line = f"{name}={quoted}"
        place = re.compile(rf"\s*(?:export\s+)?{name}\s*=")
        kept = [each for each in lines if not place.match(each)]
        lines = [*kept, line]
    with whole_file(file) as fresh:
        fresh.write(("\n".join(lines) + "\n").encode())
