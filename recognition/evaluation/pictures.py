"""The pictures of an evaluation, from folders and zip archives, and pairs of them."""

from __future__ import annotations

import csv
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from django.utils.translation import gettext

from recognition.imaging import EXTENSIONS


class EvaluationError(Exception):
    """The given pictures or pairs cannot be evaluated; the message says why and what to give."""


class Pair(NamedTuple):
    """Two pictures by name, and whether they show the same person."""

    first: str
    second: str
    same: bool


class _File(NamedTuple):
    root: Path  # the folder or zip archive
    path: PurePath  # inside it
    inside: PurePath  # relative to the source, which may be a folder inside the archive


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures of folders and zip archives, by name. The person is the name of the picture's
    folder.

    A picture's name is the stem of its file, or `folder/stem` where several files have the same
    stem.
    """

    roots: dict[str, Path]  # name → the folder or zip archive it is in
    members: dict[str, str]  # name → path inside
    people: dict[str, str]  # name → person

    def read(self, stems: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield file name and bytes of each picture, in order."""
        with ExitStack() as stack:
            archives: dict[Path, zipfile.ZipFile] = {}
            for stem in stems:
                root, member = self.roots[stem], self.members[stem]
                if root.is_dir():
                    content = (root / member).read_bytes()
                else:
                    if root not in archives:
                        archives[root] = stack.enter_context(zipfile.ZipFile(root))
                    content = archives[root].read(member)
                yield PurePath(member).name, content


def open_pictures(*sources: Path) -> PictureSet:
    """Return the pictures of folders (recursively), zip archives, and folders inside archives.

    Raise `EvaluationError` for a source without pictures and for duplicate names.
    """
    files = [file for source in sources for file in _files(source)]
    stems = Counter(file.path.stem for file in files)
    found = PictureSet({}, {}, {})
    for file in files:
        stem, person = file.path.stem, file.inside.parent.name
        name = stem if stems[stem] == 1 else f"{person}/{stem}"
        if name in found.members:
            raise EvaluationError(
                gettext("Two pictures are called %(name)s; file names must differ.")
                % {"name": name}
            )
        found.roots[name], found.members[name] = file.root, str(file.path)
        found.people[name] = person
    return found


def _files(source: Path) -> list[_File]:
    """Return the pictures of one source. Raise `EvaluationError` when there is none."""
    if source.is_dir():
        root, inside = source, PurePath()
        names = [str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_file()]
    elif archives := [path for path in (source, *source.parents) if zipfile.is_zipfile(path)]:
        root = archives[0]
        inside = source.relative_to(root)
        with zipfile.ZipFile(root) as archive:
            names = sorted(archive.namelist())
    else:
        raise EvaluationError(
            gettext("%(path)s is neither a folder nor a zip archive of pictures.")
            % {"path": source}
        )
    paths = [PurePath(n) for n in names if n.lower().rsplit(".", 1)[-1] in EXTENSIONS]
    files = [_File(root, p, p.relative_to(inside)) for p in paths if p.is_relative_to(inside)]
    if not files:
        raise EvaluationError(
            gettext("There is no picture in %(path)s; expected: %(allowed)s.")
            % {"path": source, "allowed": ", ".join(EXTENSIONS)}
        )
    return files


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a CSV (image_a, image_b, same: 1 or 0) or of LFW's `pairs.txt`.

    Raise `EvaluationError` for lines that are no pairs.
    """
    lines = path.read_text("utf-8").splitlines()
    if lines and lines[0].replace(" ", "").lower().startswith("image_a,"):
        pairs = [
            Pair(row["image_a"], row["image_b"], row["same"].strip() == "1")
            for row in csv.DictReader(lines, skipinitialspace=True)
        ]
    else:
        pairs = [
            _lfw_pair(line, number) for number, line in enumerate(lines[1:], 2) if line.strip()
        ]
    if not pairs:
        raise EvaluationError(gettext("There is no pair in %(file)s.") % {"file": path.name})
    return pairs


def _lfw_pair(line: str, number: int) -> Pair:
    match line.split("\t") if "\t" in line else line.split():
        case [name, first, second] if first.isdigit() and second.isdigit():
            return Pair(f"{name}_{int(first):04d}", f"{name}_{int(second):04d}", True)
        case [name, first, other, second] if first.isdigit() and second.isdigit():
            return Pair(f"{name}_{int(first):04d}", f"{other}_{int(second):04d}", False)
    raise EvaluationError(
        gettext(
            "Line %(number)d of the pairs is neither 'name n m' nor 'name n other m', and the file "
            "does not start with the CSV header image_a,image_b,same."
        )
        % {"number": number}
    )


def missing_pictures(pairs: Iterable[Pair], known: Iterable[str]) -> list[str]:
    """Return the names in pairs that are not among the known pictures."""
    return sorted({stem for pair in pairs for stem in pair[:2]} - set(known))
