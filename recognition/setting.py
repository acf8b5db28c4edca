"""How a setting is declared: once, as a field of a frozen dataclass, and everything else follows from it.

    threads: int = setting(8, "Requests that are worked on at the same time.", least=1, most=256)

The field's name in capitals is the environment variable. Its type says how the variable is read, `Literal`
which values there are; a number says its limits. Whoever reads the environment, writes the
documentation or checks the values asks `settings_of` for what was declared.
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
    """Declares a field of a settings dataclass.

    `meaning` is Markdown, and its first sentence says enough by itself; `section` is where it is
    described, that of the field before when empty. `least` and `most` are the limits of a number, which is
    given in the environment in multiples of `unit`; `variable` is the environment variable where it is not
    the field's name. `read` makes the value of a type that has no reading of its own, or raises
    ValueError, and `takes` says in words what it expects. `shown` stands in the documentation for a
    default that each installation finds itself. What `is_secret` is repeated in no message.
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
    """One declared setting."""

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
        """The environment variable."""
        return self.variable or self.field.upper()

    @property
    def choices(self) -> tuple[str, ...]:
        """The values there are, or none where any is taken."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def expected(self) -> str:
        """What it takes, in words."""
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
        """The value that is written as `text`; ValueError when it is none, or beyond the limits."""
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
        """Whether a value is one of the choices, or within the limits."""
        if self.choices:
            return value in self.choices
        if self.least is None or self.most is None:
            return True
        return isinstance(value, int | float) and self.least <= value <= self.most

    def written(self, value: Any) -> str:
        """A value as one would write it into the environment; empty when there is none."""
        if isinstance(value, tuple):
            return ",".join(value)
        if isinstance(value, bool):
            return str(int(value))
        if isinstance(value, int | float):
            value = value / self.unit if value % self.unit else value // self.unit
            return f"{value:g}" if isinstance(value, float) else str(value)
        return "" if value is None else str(value)


def settings_of(declaration: type) -> list[Setting]:
    """What a settings dataclass declares, in its order."""
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
