"""Import a folder of pictures, one folder for each person, in batches. It can be run again."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from django.db.models import Q, QuerySet

from enrollment.enrolling import (
    Look,
    Outcome,
    Upload,
    enroll_pictures,
    found_face,
    look_at,
    sync_again,
    takers,
)
from enrollment.gallery import easily_mistaken
from enrollment.imports.found_files import FileStatus, FoundFile, too_large
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person
from recognition.conf import get_settings
from recognition.detection import looks_for_faces
from recognition.embedding import Crop
from recognition.exceptions import NoFaceDetected
from recognition.lookahead import Crew, one_ahead
from recognition.networks import find_weights, load_network, usable_names
from recognition.sentences import gettext as _
from recognition.vector_store import get_vector_store

BATCH_PICTURES: Final = 64
SOMEBODY_ELSES: Final = "somebody_elses"  # the code of a picture that another person has
BATCH_BYTES: Final = 32 * 1024 * 1024  # total size of its files; two batches are in memory


class ImportOptions(NamedTuple):
    """How the pictures of an import are enrolled; see `enroll_pictures`."""

    use_face_detection: bool = True
    on_several_faces: Literal["largest", "refuse"] = "largest"


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
    code: str = ""  # of the error that refused it
    crop: Crop | None = field(default=None, repr=False)  # the face, if one was looked for and found
    picture: int | None = None  # the key of the enrolled picture
    found: dict[str, Any] | None = field(default=None, repr=False)  # `found_face`, of a dry run

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


def each_file(
    files: Iterable[FoundFile],
    options: ImportOptions,
    *,
    dry_run: bool = False,
    key: str = "",
    at_a_time: int | None = None,
) -> Iterator[FileResult]:
    """Enrol the files and yield a result for each, in order; `dry_run` writes nothing.

    `key` begins the upload keys of the pictures, by which the import can be undone; `at_a_time`
    pictures are a batch.

    A picture already enrolled for the same person is skipped, and its missing vectors are computed.
    A picture already enrolled for another person is refused, and so is one without a face.
    """
    with Crew() as crew:
        run = _Import(crew, options, dry_run)
        for batch in one_ahead(map(run.begin, _read(files, key, at_a_time or BATCH_PICTURES))):
            results = iter(run.enroll([item for item in batch if isinstance(item, Upload)]))
            for item in batch:
                yield next(results) if isinstance(item, Upload) else item


def key_of_file(key: str, path: str) -> str:
    """Return the upload key of a picture of the import with this key."""
    return f"{key}:{hashlib.sha256(path.encode()).hexdigest()[:16]}"


class _Import:
    def __init__(self, crew: Crew, options: ImportOptions, dry_run: bool) -> None:
        self.options: dict[str, Any] = {
            "use_face_detection": options.use_face_detection and looks_for_faces(),
            "on_several_faces": options.on_several_faces,
            "dry_run": dry_run,
        }
        self.dry_run = dry_run
        self.crew = crew
        self.look = partial(look_at, **self.options, require_face=False, embed_by=usable_names())
        self.looks: dict[Upload, Future[Look]] = {}
        self.met: dict[
            str, tuple[str, str]
        ] = {}  # by digest: person and path of the first in this run
        self.led: dict[str, str] = {}  # ids that were merged, and whom they stand for
        self.planned: dict[str, Person] = {}  # the new persons of a dry run, by id
        self.planned_by_key: defaultdict[str, list[Person]] = defaultdict(list)

    def begin(self, batch: list[Upload | FileResult]) -> list[Upload | FileResult]:
        """Begin to look at the pictures that are probably new, and return the batch."""
        uploads = [item for item in batch if isinstance(item, Upload)]
        seen = {*_owners(uploads), *self.met, *(upload.digest for upload in self.looks)}
        for upload in uploads:
            if upload.digest not in seen:
                seen.add(upload.digest)
                self.looks[upload] = self.crew.begin(self.look, upload)
        return batch

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
        for upload in uploads:
            self.looks.pop(upload, None)
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
            looks=self.looks,
            **self.options,
        )
        for (upload, result), outcome in zip(fresh, outcomes, strict=True):
            _apply(outcome, result)
            if self.dry_run:
                result.found = found_face(upload, outcome.crop)
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
            result.code = SOMEBODY_ELSES
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
    result.crop = outcome.crop
    if outcome.error:
        result.status, result.reason = FileStatus.REFUSED, str(outcome.error)
        result.code = outcome.error.code
        result.face_detected = False if isinstance(outcome.error, NoFaceDetected) else None
        return
    result.doubts = outcome.doubts
    result.picture = outcome.face_image.pk if outcome.face_image else None
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


def _read(
    files: Iterable[FoundFile], key: str, at_a_time: int
) -> Iterator[list[Upload | FileResult]]:
    batch: list[Upload | FileResult] = []
    held = 0
    for found in files:
        item = _read_one(found)
        if key and isinstance(item, Upload):
            item.key = key_of_file(key, item.original_path)
        batch.append(item)
        held += len(item.read()) if isinstance(item, Upload) else 0
        if len(batch) >= at_a_time or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _read_one(found: FoundFile) -> Upload | FileResult:
    reason = found.reason
    try:
        if not reason:
            if found.path.stat().st_size <= get_settings().max_request_bytes:
                return Upload(
                    found.person_id,
                    found.path.name,
                    found.path.read_bytes(),
                    found.shown_path,
                    found.name,
                    details=found.details,
                    found=_found_before(found),
                )
            reason = too_large()
    except OSError as error:
        reason = _("The file cannot be read: %(error)s.") % {"error": error.strerror}
    return FileResult(found.shown_path, found.person_id, found.status, reason, code=found.code)


def _found_before(file: FoundFile) -> dict[str, Any] | None:
    """Return the face that an earlier look found in the file, if one was kept."""
    with suppress(OSError, ValueError):
        if file.found:
            kept: dict[str, Any] = json.loads(file.found.read_bytes())
            return kept
    return None
