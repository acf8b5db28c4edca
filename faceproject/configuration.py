"""Write the tables of docs/configuration.md and `.env.example` from the declared settings.

python -m faceproject.configuration
"""

from __future__ import annotations

import re
from pathlib import Path

from enrollment.conf import EnrollmentSettings
from faceproject.conf import ProjectSettings
from recognition.conf import RecognitionSettings
from recognition.setting import Setting, settings_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / ".env.example"
TABLE = re.compile(r"(<!-- settings: (.+?) -->\n).*?(<!-- end of settings -->)", re.DOTALL)
SETTINGS = [
    item
    for declaration in (ProjectSettings, RecognitionSettings, EnrollmentSettings)
    for item in settings_of(declaration)
]


def page() -> str:
    """Return docs/configuration.md with its tables generated from the settings."""
    return TABLE.sub(lambda match: match[1] + _table(match[2]) + match[3], PAGE.read_text())


def _table(section: str) -> str:
    rows = ["| Variable | Takes | Default | Effect |", "| --- | --- | --- | --- |"]
    for item in _described_in(section):
        default = _default(item)
        shown = f"`{default}`" if default else "none"
        rows.append(f"| `{item.name}` | {item.expected} | {shown} | {item.meaning} |")
    return "\n".join(rows) + "\n"


def example() -> str:
    """Return `.env.example`: every setting as a comment with its default."""
    lines = [
        "# Every setting, with its default. Copy this file to .env and uncomment what you change; a variable",
        "# of the environment wins over this file. docs/configuration.md says more about each.",
    ]
    for _start, section, _end in TABLE.findall(PAGE.read_text()):
        lines += ["", f"# {section}"]
        for item in _described_in(section):
            # Text shown instead of a default is no usable value.
            given = f"{item.name}={'' if item.shown else _default(item)}"
            lines.append(f"# {given:<36} {_brief(item.meaning)}")
    return "\n".join(lines) + "\n"


def _described_in(section: str) -> list[Setting]:
    return [item for item in SETTINGS if item.section == section]


def _default(item: Setting) -> str:
    return item.shown or item.written(item.default)


def _brief(meaning: str) -> str:
    """Return the first sentence, without Markdown."""
    return as_text(meaning).split(". ")[0].rstrip(".")


def as_text(meaning: str) -> str:
    """Return the meaning of a setting without Markdown."""
    return re.sub(r"\[(.+?)\]\(\S+?\)", r"\1", meaning).replace("`", "")


def write() -> None:
    """Write both files."""
    PAGE.write_text(page())
    EXAMPLE.write_text(example())


if __name__ == "__main__":
    write()
