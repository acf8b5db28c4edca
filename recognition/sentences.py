"""Sentences that are stored and read later, perhaps by somebody with another language.

`gettext` and `gettext_lazy` of here translate as Django's do, and what they return remembers its English
source and the values in it. They are for messages only: labels and descriptions go into YAML, which writes
no subclass of `str`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Final

from django.template.defaultfilters import floatformat
from django.utils import translation
from django.utils.functional import lazy

_MARK: Final = "\x1f"  # begins a stored sentence; no text that people read has it


class Sentence(str):
    """A text in the active language, which can be said again in another.

    A value may be a sentence, too. A number that is none of the whole ones is written with three decimals.
    """

    source: str
    values: dict[str, Any] | None

    def __new__(cls, source: str, values: Mapping[str, object] | None = None) -> Sentence:
        text = translation.gettext(source)
        if values is not None:
            text %= {name: _shown(value) for name, value in values.items()}
        said = super().__new__(cls, text)
        said.source = source
        said.values = None if values is None else dict(values)
        return said

    def __mod__(self, values: Any) -> Sentence:
        return Sentence(self.source, values)

    def __str__(self) -> str:  # that of an exception, too, is this very object
        return self


def gettext(source: str) -> str:
    """Return the translation of an English text."""
    return Sentence(source)


gettext_lazy = lazy(gettext, str)


def joined(sentences: Iterable[str]) -> str:
    """Return the sentences as one, with spaces between them."""
    values = {f"s{number}": sentence for number, sentence in enumerate(sentences)}
    return Sentence(" ".join(f"%({name})s" for name in values), values) if values else ""


def stored(text: str) -> str:
    """Return what to store of a text, from which `said` makes it in the active language."""
    if not isinstance(text, Sentence):
        return text
    return _MARK + json.dumps(_parts(text), ensure_ascii=False)


def said(text: str) -> str:
    """Return what was stored in the active language; a text that is no sentence stays as it is."""
    return str(_from_parts(json.loads(text[1:]))) if text.startswith(_MARK) else text


def _shown(value: object) -> object:
    number = _number(value)
    return floatformat(number, 3) if isinstance(number, float) else value


def _number(value: object) -> int | float | None:
    """Return the number as Python's own, None for what is none."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def _parts(value: object) -> Any:
    """Return the value for JSON, a sentence as a list of its source and its values."""
    if isinstance(value, Sentence):
        values = value.values
        return [value.source, values and {name: _parts(each) for name, each in values.items()}]
    number = _number(value)
    return str(value) if number is None else number


def _from_parts(parts: Any) -> Any:
    if not isinstance(parts, list):
        return parts
    source, values = parts
    return Sentence(source, values and {name: _from_parts(each) for name, each in values.items()})
