"""Reads the settings; a value that makes no sense stops the start with a sentence, not a guess."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import environ
from django.core.exceptions import ImproperlyConfigured

from recognition.setting import Setting, settings_of

Declaration = TypeVar("Declaration")


class Environment:
    """The environment over an optional `.env` file; an empty variable counts as not set."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.file = Path(os.environ.get("ENV_FILE") or base / ".env")
        environ.Env.read_env(self.file)  # does not overwrite what the environment has

    def read(self, declaration: type[Declaration], **defaults: object) -> Declaration:
        """The settings that a dataclass declares; `defaults` are those that only an installation knows.

        Relative paths start at the project's root.
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
