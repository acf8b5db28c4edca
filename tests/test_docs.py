"""The documentation names files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from faceproject import __version__

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.pt-BR.md", ROOT / "weights" / "README.md"]
PAGES += [ROOT / "training" / "README.md", ROOT / "training" / "runs.md"]
PAGES += [ROOT / "data" / "README.md"]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r'\]\(([^)\s]+)\)|click \w+ "([^"]+)"')


def test_links_lead_somewhere() -> None:
    missing = []
    for page in PAGES:
        targets = [first or second for first, second in LINK.findall(page.read_text())]
        files = [target.partition("#")[0] for target in targets if "://" not in target]
        missing += [(page, file) for file in files if file and not (page.parent / file).exists()]
    assert missing == []


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text()), re.M)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


def test_links_lead_to_headings() -> None:
    missing = []
    for page in PAGES:
        for first, second in LINK.findall(page.read_text()):
            file, _, part = (first or second).partition("#")
            target = page.parent / file if file else page
            if "://" not in file and part and target.suffix == ".md":
                missing += [(page.name, first)] if part not in _anchors(target) else []
    assert missing == []


def test_commands_exist() -> None:
    named = {
        (command, page)
        for page in PAGES
        for command in re.findall(r"(?:script/manage|manage\.py) ([a-z_]{3,})", page.read_text())
    }
    known = get_commands()
    assert [each for each in named if each[0] not in known] == []


@pytest.mark.parametrize("name", ["README", "docs/gallery", "docs/operators"])
def test_both_languages_have_the_same_parts(name: str) -> None:
    """The same headings, lists, rows of tables, examples and pictures in the same order."""
    english, portuguese = (
        re.findall(
            r"^(?:#+|-|\d\.|\||```|!\[)", (ROOT / f"{name}{part}.md").read_text(), re.MULTILINE
        )
        for part in ("", ".pt-BR")
    )
    assert english == portuguese


def test_both_readmes_tell_the_same_commands() -> None:
    english, portuguese = (
        re.findall(r"^(?:script/\S+|curl -F \S+)", page.read_text(), re.MULTILINE)
        for page in PAGES[:2]
    )
    assert [line.split("@")[0] for line in english] == [line.split("@")[0] for line in portuguese]


def test_all_tell_the_same_of_how_well_the_weights_recognise() -> None:
    """The figures of `weights/README.md` are in both READMEs' tables, and rounded where they begin."""
    rows = r"^\| \*\*{}\*\*.*\n(?:\| ….*\n)*?\| … .*0\.1 % \| \*\*([\d.]+) %.*?\*\*([\d.]+) %"
    weights = PAGES[2].read_text()
    crops = re.search(rows.format("LFW, 541 people, crops"), weights, re.MULTILINE)
    wild = re.search(rows.format("CelebA, in the wild"), weights, re.MULTILINE)
    photos = re.search(r"LFW from the photo on.*?([\d.]+) %\*\*.*?([\d.]+) %\*\*", weights)
    assert crops and wild and photos
    measured = [*crops.groups(), *wild.groups(), *photos.groups()]
    for page in PAGES[:2]:
        text = page.read_text().replace(",", ".")
        told = re.findall(
            r"^\| .*(?:LFW|CelebA).*\| ([\d.]+) % \| ([\d.]+) % \|", text, re.MULTILINE
        )
        assert [figure for row in told for figure in row] == measured
        begins = re.search(r"(\d+) % .*?(\d+) (?:to|a) (\d+) %", text)
        assert begins and [float(figure) for figure in begins.groups()] == [
            round(float(figure)) for figure in (photos[1], *sorted(wild.groups()))
        ]


def test_changelog_begins_with_this_version_and_what_to_do() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+).*\n\n### What to do\n", text, re.MULTILINE)
    assert newest and newest[1] == __version__
    assert newest.start() == text.index("\n## ") + 1
