"""Declare each setting once, as a field of a frozen dataclass.

    threads: int = setting(8, "Requests that are worked on at the same time.", least=1, most=256)

The field's name in upper case is the environment variable. The type says how the variable is parsed,
`Literal` lists the choices, and a number has limits. Code that reads the environment, writes the
documentation or checks the values gets the declarations from `settings_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

Value = TypeVar("Value")

FLAGS: Final[Mapping[str, bool]] = MappingProxyType(
    dict.fromkeys(("1", "true", "yes", "on"), True)
    | dict.fromkeys(("0", "false", "no", "off"), False)
)


def setting(
    default: Value,
    meaning: str,
    *,
    section: str = "",
    least: float | None = None,
    most: float | None = None,
    unit: int = 1,
    variable: str = "",
    read: Callable[[str], Any] | None = None,
    takes: str = "",
    shown: str = "",
    is_secret: bool = False,
) -> Value:
    """Declare a field of a settings dataclass.

    `meaning` is Markdown; its first sentence must be enough by itself. `section` is its heading in
    the documentation; empty repeats the previous field's. `least` and `most` limit a number, which
    the environment gives in multiples of `unit`. `variable` is the environment variable if it is
    not the field's name. `read` parses the text for types without a parser here, or raises
    `ValueError`, and `takes` describes what it expects. The documentation shows `shown` for a
    default that depends on the installation. The value of a setting that `is_secret` appears in no
    message.
    """
    declared = {
        "meaning": meaning,
        "section": section,
        "least": least,
        "most": most,
        "unit": unit,
        "variable": variable,
        "read": read,
        "takes": takes,
        "shown": shown,
        "is_secret": is_secret,
    }
    return field(default=default, repr=not is_secret, metadata=declared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A declared setting."""

    field: str
    kind: Any  # int, float, bool, str, Path, a Literal, a tuple of str
    default: Any
    meaning: str
    section: str
    least: float | None
    most: float | None
    unit: int
    variable: str
    read: Callable[[str], Any] | None
    takes: str
    shown: str
    is_secret: bool

    @property
    def name(self) -> str:
        """The name of the environment variable."""
        return self.variable or self.field.upper()

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values; empty if any value is allowed."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def expected(self) -> str:
        """A description of the expected value."""
        if self.takes:
            return self.takes
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        kinds = {
            bool: "1 or 0",
            int: "a whole number",
            float: "a number",
            Path: "a folder",
            str: "text",
        }
        expected = kinds.get(self.kind, "words with commas between them")
        if self.least is None or self.most is None:
            return expected
        return f"{expected} from {self.written(self.least)} to {self.written(self.most)}"

    def parse(self, text: str) -> Any:
        """Return the value written as `text`. Raise `ValueError` if it is invalid or beyond the
        limits."""
        if self.read:
            return self.read(text)
        value = self._parse(text)
        if not self.allows(value):
            raise ValueError(text)
        return value

    def _parse(self, text: str) -> Any:
        if self.choices:
            return next((it for it in self.choices if it.lower() == text.lower()), None)
        if self.kind is bool:
            if text.lower() not in FLAGS:
                raise ValueError(text)
            return FLAGS[text.lower()]
        if self.kind in (int, float):
            return self.kind(text) * self.unit
        if self.kind in (str, Path):
            return self.kind(text)
        return tuple(part.strip() for part in text.split(",") if part.strip())

    def allows(self, value: Any) -> bool:
        """Return whether the value is one of the choices, or within the limits."""
        if self.choices:
            return value in self.choices
        if self.least is None or self.most is None:
            return True
        if value is None:
            return self.default is None
        return isinstance(value, int | float) and self.least <= value <= self.most

    def written(self, value: Any) -> str:
        """Return the value as written in the environment; empty for None."""
        if isinstance(value, tuple):
            return ",".join(value)
        if isinstance(value, bool):
            return str(int(value))
        if isinstance(value, int | float):
            value = value / self.unit if value % self.unit else value // self.unit
            return f"{value:g}" if isinstance(value, float) else str(value)
        return "" if value is None else str(value)


def settings_of(declaration: type) -> list[Setting]:
    """Return the settings that a dataclass declares, in its order."""
    kinds = get_type_hints(declaration)
    found: list[Setting] = []
    for item in fields(declaration):
        declared = dict(item.metadata)
        declared["section"] = declared["section"] or found[-1].section
        kind = kinds[item.name]
        if NoneType in get_args(kind):  # None: not set
            kind = next(part for part in get_args(kind) if part is not NoneType)
        found.append(Setting(field=item.name, kind=kind, default=item.default, **declared))
    return found
