"""The compiled translations are those of the sources: `.mo` files are kept, as gettext may be absent."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path

import pytest

LOCALE = Path(__file__).resolve().parent.parent / "locale"
SOURCES = sorted(LOCALE.glob("*/LC_MESSAGES/django.po"))

KEYWORD = re.compile(r"(msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)\s+(.*)")


def read_po(path: Path) -> dict[object, str]:
    """The translated entries of a .po file under the keys that `gettext` gives those of a .mo file."""
    catalog: dict[object, str] = {}
    for block in re.split(r"\n\s*\n", path.read_text()):
        if re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE):
            continue
        entry = read_entry(block)
        key = entry.get("msgid", "")
        if context := entry.get("msgctxt"):
            key = f"{context}\x04{key}"
        if not key:
            continue
        for name, text in entry.items():
            if name.startswith("msgstr") and text:
                plural = re.search(r"\d+", name)
                catalog[(key, int(plural[0])) if plural else key] = text
    return catalog


def read_entry(block: str) -> dict[str, str]:
    entry: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if found := KEYWORD.match(line):
            name, text = found.groups()
            entry[name] = ast.literal_eval(text)
        elif line.startswith('"'):
            entry[name] += ast.literal_eval(line)
    return entry


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parts[-3])
def test_compiled_translations_are_current(source):
    with source.with_suffix(".mo").open("rb") as file:
        compiled = {
            key: text for key, text in gettext.GNUTranslations(file)._catalog.items() if key
        }
    assert compiled == read_po(source), "Run 'msgfmt -o django.mo django.po' and commit both."


def test_there_is_a_brazilian_translation():
    assert [path.parts[-3] for path in SOURCES] == ["pt_BR"]
