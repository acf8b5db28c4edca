"""Import a folder of pictures, one folder for each person, in batches. It can be run again."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from enrollment import journal
from enrollment.enrolling.merged_ids import takers
from enrollment.enrolling.services import (
    Outcome,
    Upload,
    clean_person_id,
    enroll_pictures,
    sync_again,
)
from enrollment.gallery import easily_mistaken
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person
from recognition.conf import get_settings
from recognition.exceptions import NoFaceDetected
from recognition.networks import find_weights, load_network, usable_names
from recognition.vector_store import get_vector_store

BATCH_PICTURES: Final = 64
BATCH_BYTES: Final = 64 * 1024 * 1024  # total size of the files of a batch in memory
# Files and folders of operating systems and network drives, in lower case.
SYSTEM_FILES: Final = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    }
)


class FileStatus(StrEnum):
    ENROLLED = "enrolled"
    SKIPPED = "skipped"  # enrolled before
    REFUSED = "refused"
    IGNORED = "ignored"  # hidden, or of the operating system


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the folder, with its person or the reason why it is not enrolled."""

    path: Path
    shown_path: str  # relative to the imported folder
    person_id: str = ""
    name: str = ""
    reason: str = ""
    status: FileStatus = FileStatus.REFUSED


@dataclass(slots=True)
class FileResult:
    """The result for a file; `searchable` is False while it has no vectors.

    `face_detected` is None if detection did not run or the file was not read. `doubts` are about
    the picture, `mistakable` about a person who is new with it and may be enrolled already.
    """

    shown_path: str
    person_id: str
    status: FileStatus
    reason: str = ""
    face_detected: bool | None = None
    searchable: bool = True
    doubts: list[Doubt] = field(default_factory=list)
    mistakable: list[str] = field(default_factory=list)
    waited: bool = False  # an identical file comes first; if that is refused, this one is tried

    @property
    def warnings(self) -> list[str]:
        """What the operator should look at, in sentences."""
        return [*self.mistakable, *(doubt.message for doubt in self.doubts)]


def check_readiness() -> None:
    """Raise an error that would affect every picture, before the first is stored."""
    find_weights(get_settings().default_model)
    for name in usable_names():
        load_network(name)
    get_vector_store().ping()


def find_files(folder: Path, person_id: str | None = None) -> list[FoundFile]:
    """Return every file below the folder, ordered by name.

    With `person_id` all belong to that person. Otherwise each top-level folder is a person: its
    name is the person's id and, with spaces for underscores, the person's name.
    """
    root = folder.resolve()
    return list(_scan(root, root, FoundFile(root, "", person_id or "")))


def _scan(folder: Path, root: Path, owner: FoundFile) -> Iterator[FoundFile]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield _refused(folder, root, _("The folder cannot be read: %(error)s."), error.strerror)
        return
    for path in entries:
        if is_passed_over(path):
            yield _refused(path, root, _("Hidden and system files are passed over."), ignored=True)
        elif path.is_symlink() and not _leads_to_file_within(path, root):
            yield _refused(path, root, _("Links to folders or out of the folder are not followed."))
        elif path.is_dir():
            known = owner.person_id or owner.reason
            yield from _scan(path, root, owner if known else _person(path))
        elif not path.is_file():
            yield _refused(path, root, _("This is no regular file."))
        elif not owner.person_id and not owner.reason:
            reason = _(
                "The file is not in a person's folder. Move it into one that is named by the "
                "person's id."
            )
            yield _refused(path, root, reason)
        else:
            yield FoundFile(path, _shown(path, root), owner.person_id, owner.name, owner.reason)


def is_passed_over(path: Path) -> bool:
    """Return whether the file or folder is hidden or belongs to the operating system."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM_FILES


def _leads_to_file_within(path: Path, root: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(root)


def _refused(
    path: Path, root: Path, reason: str, error: str | None = None, *, ignored: bool = False
) -> FoundFile:
    status = FileStatus.IGNORED if ignored else FileStatus.REFUSED
    return FoundFile(path, _shown(path, root), reason=reason % {"error": error}, status=status)


def _shown(path: Path, root: Path) -> str:
    """Return the path relative to the root as text for SQL; invalid UTF-8 appears as `\\xe3`."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def _person(folder: Path) -> FoundFile:
    """Return the person that a folder stands for."""
    try:
        folder.name.encode()
        person_id = clean_person_id(folder.name)
    except ValidationError as error:
        return FoundFile(folder, "", reason=" ".join(error.messages))
    except UnicodeEncodeError:
        return FoundFile(folder, "", reason=_("The folder's name is not UTF-8. Rename it."))
    name = person_id.replace("_", " ").strip()
    return FoundFile(folder, "", person_id, name if name != person_id else "")


def import_files(
    files: Iterable[FoundFile],
    *,
    use_face_detection: bool = True,
    on_several_faces: Literal["largest", "refuse"] = "largest",
    dry_run: bool = False,
    key: str = "",
) -> Iterator[FileResult]:
    """Enrol the files and yield a result for each, in order; `dry_run` writes nothing.

    `key` begins the upload keys of the pictures, by which the import can be undone.

    A picture already enrolled for the same person is skipped, and its missing vectors are computed.
    A picture already enrolled for another person is refused, and so is one without a face.
    """
    run = _Import(use_face_detection, on_several_faces, dry_run)
    counts: Counter[str] = Counter()
    persons: set[str] = set()
    for batch in _read(files):
        for item in batch:
            if key and isinstance(item, Upload):
                digest = hashlib.sha256(item.original_path.encode()).hexdigest()
                item.key = f"{key}:{digest[:16]}"
        results = iter(run.enroll([item for item in batch if isinstance(item, Upload)]))
        for item in batch:
            result = next(results) if isinstance(item, Upload) else item
            counts[result.status] += 1
            if result.status is FileStatus.ENROLLED:
                persons.add(result.person_id)
            yield result
    if counts and not dry_run:
        journal.record(journal.Action.IMPORTED, facts={**counts, "persons": len(persons)})


class _Import:
    def __init__(
        self,
        use_face_detection: bool,
        on_several_faces: Literal["largest", "refuse"],
        dry_run: bool,
    ) -> None:
        self.use_face_detection = use_face_detection
        self.on_several_faces: Literal["largest", "refuse"] = on_several_faces
        self.dry_run = dry_run
        self.met: dict[
            str, tuple[str, str]
        ] = {}  # by digest: person and path of the first in this run
        self.led: dict[str, str] = {}  # ids that were merged, and whom they stand for
        self.planned: dict[str, Person] = {}  # the new persons of a dry run, by id
        self.planned_by_key: defaultdict[str, list[Person]] = defaultdict(list)

    def enroll(self, uploads: list[Upload]) -> list[FileResult]:
        self.led = takers({upload.person_id for upload in uploads})
        owners, new = _owners(uploads), self._new_persons(uploads)
        results: dict[int, FileResult] = {}
        left = dict(enumerate(uploads))
        while left:
            judged = {
                number: self._judge(each, owners[each.digest]) for number, each in left.items()
            }
            self._enroll(left, judged)
            results |= judged
            # If a file was refused, try the identical files that waited for it.
            left = {
                number: upload
                for number, upload in left.items()
                if judged[number].waited and upload.digest not in self.met
            }
        outcomes = [results[number] for number in range(len(uploads))]
        self._warn_about(new, outcomes)
        if not self.dry_run:
            _finish(uploads, outcomes)
        return outcomes

    def _enroll(self, uploads: dict[int, Upload], judged: dict[int, FileResult]) -> None:
        """Enrol the files that were judged good, and update their results."""
        fresh = [
            (uploads[number], result)
            for number, result in judged.items()
            if result.status is FileStatus.ENROLLED
        ]
        outcomes = enroll_pictures(
            [upload for upload, _result in fresh],
            source=FaceImage.Source.FOLDER,
            use_face_detection=self.use_face_detection,
            on_several_faces=self.on_several_faces,
            dry_run=self.dry_run,
        )
        for (upload, result), outcome in zip(fresh, outcomes, strict=True):
            _apply(outcome, result)
            if result.status is FileStatus.REFUSED:
                del self.met[upload.digest]

    def _new_persons(self, uploads: list[Upload]) -> dict[str, Person]:
        """Return the persons that are not enrolled yet, unsaved, by id."""
        new = {
            each.person_id: Person(person_id=each.person_id, name=each.name)
            for each in uploads
            if each.person_id not in {*self.planned, *self.led}
        }
        known = Person.objects.filter(person_id__in=list(new))
        for person_id in known.values_list("person_id", flat=True):
            del new[person_id]
        for person in new.values():
            person.compute()
        return new

    def _warn_about(self, new: dict[str, Person], results: list[FileResult]) -> None:
        """Add warnings about new persons to the results of their first enrolled files."""
        for result in results:
            if result.status is not FileStatus.ENROLLED or result.person_id not in new:
                continue
            person = new.pop(result.person_id)
            keys = {f"id {person.id_key}", f"name {person.name_key}"}
            planned = {other.person_id: other for key in keys for other in self.planned_by_key[key]}
            result.mistakable = easily_mistaken(person, planned.values())
            if self.dry_run:
                self.planned[person.person_id] = person
                for key in keys:
                    self.planned_by_key[key].append(person)

    def _judge(self, upload: Upload, owners: set[str]) -> FileResult:
        person_id = self.led.get(upload.person_id, upload.person_id)
        path = upload.original_path
        result = FileResult(path, person_id, FileStatus.ENROLLED)
        if upload.person_id in self.led:
            text = _("'%(person_id)s' was merged into '%(taker)s', who gets the picture.")
            result.mistakable.append(text % {"person_id": upload.person_id, "taker": person_id})
        first = self.met.setdefault(upload.digest, (person_id, path))
        result.waited = first != (person_id, path) and not owners
        others = owners | {first[0]}
        if person_id in owners:
            result.status, result.reason = FileStatus.SKIPPED, _("Enrolled before.")
        elif others != {person_id}:
            result.status = FileStatus.REFUSED
            reason = _("The same picture is enrolled for another person: %(person_id)s.")
            result.reason = reason % {"person_id": min(others - {person_id})}
        elif first != (person_id, path):
            result.status = FileStatus.SKIPPED
            result.reason = _("The same picture as %(path)s.") % {"path": first[1]}
        return result


def _owners(uploads: list[Upload]) -> dict[str, set[str]]:
    """Return, by digest, the ids of the persons for whom each picture is already enrolled."""
    owners: dict[str, set[str]] = defaultdict(set)
    rows = FaceImage.objects.filter(content_hash__in={upload.digest for upload in uploads})
    for digest, person_id in rows.values_list("content_hash", "person__person_id"):
        owners[digest].add(person_id)
    return owners


def _apply(outcome: Outcome, result: FileResult) -> None:
    if outcome.error:
        result.status, result.reason = FileStatus.REFUSED, str(outcome.error)
        result.face_detected = False if isinstance(outcome.error, NoFaceDetected) else None
        return
    result.doubts = outcome.doubts
    result.face_detected = True if outcome.crop and outcome.crop.face else None


def _finish(uploads: list[Upload], results: list[FileResult]) -> None:
    """Complete pictures of an interrupted run, and record which pictures are not searchable."""
    skipped = {
        upload.digest
        for upload, result in zip(uploads, results, strict=True)
        if result.status is FileStatus.SKIPPED
    }
    if unfinished := list(_unsearchable(skipped)):
        sync_again(unfinished)
    there = {
        upload.digest
        for upload, result in zip(uploads, results, strict=True)
        if result.status in (FileStatus.ENROLLED, FileStatus.SKIPPED)
    }
    lacking = set(_unsearchable(there).values_list("content_hash", flat=True))
    for upload, result in zip(uploads, results, strict=True):
        result.searchable = upload.digest not in lacking


def _unsearchable(digests: set[str]) -> QuerySet[FaceImage]:
    unfinished = Q(embeddings__model__in=usable_names()) & ~Q(
        embeddings__status=FaceEmbedding.Status.INDEXED
    )
    lacking = FaceImage.objects.filter(unfinished | Q(embeddings__isnull=True))
    return lacking.filter(content_hash__in=digests).distinct()


def _read(files: Iterable[FoundFile]) -> Iterator[list[Upload | FileResult]]:
    batch: list[Upload | FileResult] = []
    held = 0
    for found in files:
        item = _read_one(found)
        batch.append(item)
        held += len(item.read()) if isinstance(item, Upload) else 0
        if len(batch) >= BATCH_PICTURES or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _read_one(found: FoundFile) -> Upload | FileResult:
    reason = found.reason
    try:
        if not reason:
            limit = get_settings().max_request_bytes
            if found.path.stat().st_size <= limit:
                return Upload(
                    found.person_id,
                    found.path.name,
                    found.path.read_bytes(),
                    found.shown_path,
                    found.name,
                )
            reason = _("The file is larger than MAX_REQUEST_MB allows (%(limit)d MB).")
            reason %= {"limit": limit // 1024**2}
    except OSError as error:
        reason = _("The file cannot be read: %(error)s.") % {"error": error.strerror}
    return FileResult(found.shown_path, found.person_id, found.status, reason)
