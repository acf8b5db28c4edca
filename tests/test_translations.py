"""Every text is translated, and the compiled catalogue matches its source.

The `.mo` files are committed, because gettext may not be installed.
"""

from __future__ import annotations

import ast
import gettext
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "locale").glob("*/LC_MESSAGES/django.po"))
PORTUGUESE = ROOT / "locale" / "pt_BR" / "LC_MESSAGES" / "django.po"
MAKE = "manage.py makemessages -l pt_BR --no-obsolete --add-location file --ignore tests --ignore training"
HINT = f"Run '{MAKE}', translate what is new, and compile with msgfmt."
# What is no part of the program, or large.
UNREAD = (".*", "__pycache__", "data", "weights", "artifacts", "docs")

PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+ #0]*[\d.]*[a-z%]|`[^`]+`|--[a-z]+|[A-Z]+_[A-Z_]+")
MARKERS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext", "npgettext"}
# What CONTRIBUTING.md's list of words calls by another name, in any text.
OTHER_WORDS = re.compile(
    r"\bpersons\b|photograph|\bimage[mn]|fotografia|\bexclu(?:a|í|ir|ind)|cópias? de segurança"
    r"|semelhança|\bidentificador",
    re.IGNORECASE,
)
# What an operator does not need to know, parameters of the API among it; what is typed, filled in or linked
# is no word of ours.
PRIVATE_WORDS = re.compile(
    r"\b[a-z]+_[a-z_]+=(?:true|false)|embedding|\bindex(?:ed|ing)|milvus|\bvectors?\b(?! database)|fingerprint|\bsync"
    r"|\bindexad|(?<!banco de )\bvetor(?:es)?\b|impressão digital|sincroni",
    re.IGNORECASE,
)
NO_WORDS = re.compile(r"'manage\.py[^']*'|%\(\w+\)[\d.]*[a-z]|<[^>]*>[^<]*</\w+>")
OPERATORS_SEE = re.compile(
    r"enrollment/(?:admin|pages|web|inbox|judging|gallery|enrolling|imports|corrections|probes|journal|models)/"
    r"|enrollment/installation_key|templates/(?!rest_framework|drf_spectacular|api/)"
)
# Names of what stands folded in the admin, and the receipts, whose signed pages keep their words.
FOLDED = {
    "embedding",
    "embeddings",
    "embeddings, one for each model",
    "weights fingerprint",
    "Files and vectors that still wait to be removed",
    "Vectors, from SQL and from the vector database",
}
KEYWORD = re.compile(r"(msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)\s+(.*)")


def read_po(path: Path) -> dict[object, str]:
    """Return the translated entries of a .po file with the keys that `gettext` uses for a .mo file."""
    catalog: dict[object, str] = {}
    for entry in read_entries(path):
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


def read_entries(path: Path) -> list[dict[str, str]]:
    """Return the entries of a .po file with its header, without fuzzy ones."""
    blocks = re.split(r"\n\s*\n", path.read_text())
    return [read_entry(block) for block in blocks if not is_fuzzy(block)]


def is_fuzzy(block: str) -> bool:
    return bool(re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE))


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


def texts(entry: dict[str, str], name: str) -> list[str]:
    return [text for key, text in entry.items() if key.startswith(name)]


def test_every_text_is_translated():
    untranslated = [e["msgid"] for e in read_entries(PORTUGUESE) if not all(texts(e, "msgstr"))]
    assert not untranslated
    source = PORTUGUESE.read_text()
    assert not [block for block in source.split("\n\n") if is_fuzzy(block)]
    assert "#~" not in source, "Texts that are no longer used: " + HINT


def test_translations_keep_what_is_filled_in_and_what_is_typed():
    for entry in read_entries(PORTUGUESE)[1:]:
        # A singular may say "one" where its plural counts.
        plural = entry.get("msgid_plural", entry["msgid"])
        kept = [Counter(PLACEHOLDER.findall(text)) for text in (entry["msgid"], plural)]
        for text in texts(entry, "msgstr"):
            assert Counter(PLACEHOLDER.findall(text)) in kept, entry


def test_one_thing_has_one_word():
    """The list of words is in CONTRIBUTING.md."""
    for block in re.split(r"\n\s*\n", PORTUGUESE.read_text())[1:]:
        entry = read_entry(block)
        forbidden = [OTHER_WORDS]
        if OPERATORS_SEE.search(block) and entry["msgid"] not in FOLDED:
            forbidden.append(PRIVATE_WORDS)
        for text in map(partial(NO_WORDS.sub, ""), texts(entry, "msg")):
            assert not [words.search(text) for words in forbidden if words.search(text)], entry


def test_a_fresh_extraction_finds_the_same_texts(tmp_path):
    """In a copy, because makemessages writes into the tree it reads."""
    if not shutil.which("xgettext"):
        pytest.skip("gettext is not installed: 'apt-get install gettext' makes this test run.")
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*UNREAD))
    env = os.environ | {"DATA_DIR": str(tmp_path / "data"), "ENV_FILE": os.devnull}
    env.pop("DJANGO_SETTINGS_MODULE", None)
    subprocess.run([sys.executable, *MAKE.split()], cwd=tree, env=env, check=True)
    fresh = {entry["msgid"] for entry in read_entries(tree / PORTUGUESE.relative_to(ROOT))}
    kept = {entry["msgid"] for entry in read_entries(PORTUGUESE)}
    # What is new but resembles something old comes as fuzzy, and is missing from `fresh`.
    assert kept == fresh, HINT


def test_no_text_hides_in_an_f_string():
    """xgettext ignores f-strings, so their texts would stay English."""
    hidden = []
    for path in (
        p
        for app in ("enrollment", "recognition", "faceproject")
        for p in (ROOT / app).rglob("*.py")
    ):
        inner = (
            call
            for string in ast.walk(ast.parse(path.read_text()))
            if isinstance(string, ast.JoinedStr)
            for call in ast.walk(string)
            if isinstance(call, ast.Call)
        )
        hidden += [
            f"{path.relative_to(ROOT)}:{call.lineno}"
            for call in inner
            if isinstance(call.func, ast.Name) and call.func.id in MARKERS
        ]
    assert not hidden
