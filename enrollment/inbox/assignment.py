"""Searched and refused faces become pictures of people, or are discarded.

Faces are enrolled by the one write path before they count as settled: cut off in between, the same
act again finds the same pictures and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext

from enrollment import corrections, enrolling, journal
from enrollment.corrections import CHANGEABLE, Done, create_person
from enrollment.enrolling import Outcome, Upload, record_first_consent
from enrollment.exceptions import ActionRefused, AlreadySettled, PersonNotFound
from enrollment.imports import details_of
from enrollment.judging import dismiss_doubts
from enrollment.models import Doubt, FaceImage, ImportFile, Person, Probe, TrashItem, lock_rows
from enrollment.probes import Verdict, Word, give_feedback, read_face, read_record
from recognition.decision import Decision
from recognition.exceptions import RecognitionError

MOST_ENROLLED: Final = 5  # faces of a stranger who came more often: the best
# What whoever says whose a face is cannot have seen: all other doubts about it they settle, too.
UNSEEN: Final = (Doubt.Resemblance.LOOKS_LIKE_SOMEONE_ELSE, Doubt.Resemblance.SAME_PICTURE)

Faces = Sequence[tuple[Probe, dict[str, Any] | None]]  # each with its record


def settled_already() -> AlreadySettled:
    """Return the error for what somebody else settled meanwhile."""
    return AlreadySettled(
        gettext("This was settled meanwhile, or is not kept any more. Nothing was changed.")
    )


def discard_faces(probes: Sequence[Probe]) -> Done:
    """Settle faces of which nothing is to become."""
    with journal.changes():
        item = corrections.new_settlement("")
        _mark(probes, Probe.Settled.DISCARDED, item)
        facts = {"faces": len(probes)}
        journal.record(journal.Action.DISCARDED, facts=corrections.undoable(facts, item))
    return Done(0, item)


def enroll_faces(
    probes: Sequence[Probe],
    person: Person | None,
    new: Mapping[str, Any] | None,
    source: str,
) -> Done:
    """Enrol the best of the faces as pictures of the person, or of somebody new; all are settled.

    Somebody new gets what the import that brought the faces gives its new persons, where `new` says
    nothing else. Of nearest persons who were to be reviewed it is remembered whether it was them.
    """
    (enrolled,) = enroll_each([(probes, person, new)], source)
    if isinstance(enrolled, Exception):
        raise enrolled
    try:
        return enrolled.settle()
    except BaseException:
        enrolled.take_back()
        raise


@dataclass(slots=True, eq=False)
class Enrolled:
    """Faces of which the `best` are enrolled as pictures of a person, and not settled yet."""

    probes: Sequence[Probe]
    best: Faces
    person: Person
    is_new: bool
    outcomes: list[Outcome] = field(default_factory=list)

    def settle(self) -> Done:
        """Settle all the faces, and the doubts about what was seen. Raise `AlreadySettled`."""
        person = self.outcomes[0].picture.person  # or whom that one was merged into meanwhile
        stored = [outcome.picture.pk for outcome in self.outcomes]
        with journal.changes():
            said = _teach(self.best, person)
            facts = {"pictures": stored, "is_new": self.is_new, "feedback": said}
            item = corrections.new_settlement(
                str(person), taker_pk=person.pk, facts=facts, pictures=len(stored)
            )
            _mark(self.probes, Probe.Settled.ASSIGNED, item)
            facts = {"faces": len(self.probes), **journal.pictures(stored)}
            facts = corrections.undoable(facts, item)
            journal.record(journal.Action.SETTLED, person=person, facts=facts)
            if any(outcome.doubts for outcome in self.outcomes):
                pictures = FaceImage.objects.filter(pk__in=stored)
                dismiss_doubts(pictures, journal.current_author().who, but=UNSEEN)
        return Done(len(stored), item, person)

    def take_back(self) -> None:
        """Erase what was enrolled for an act that failed after it, or that somebody else was faster
        with."""
        fresh = [outcome.picture for outcome in self.outcomes if outcome.crop]
        if fresh:
            corrections.erase_pictures(fresh[0].person, [picture.pk for picture in fresh])
        if self.is_new:
            with suppress(PersonNotFound):  # merged into somebody meanwhile
                corrections.erase_person(self.person)


Wanted = tuple[Sequence[Probe], Person | None, Mapping[str, Any] | None]


def enroll_each(
    wanted: Sequence[Wanted], source: str
) -> list[Enrolled | RecognitionError | ValidationError]:
    """Enrol faces as `enroll_faces` does, of several persons by one pass of the network.

    What is enrolled is to be settled, or taken back; where nothing could be enrolled stands the error.
    """
    found: list[Enrolled | RecognitionError | ValidationError] = []
    for probes, person, new in wanted:
        try:
            found.append(_begun(probes, person, new))
        except (RecognitionError, ValidationError) as error:
            found.append(error)
    begun = [each for each in found if isinstance(each, Enrolled)]
    try:
        outcomes = _enroll(begun, source)
    except BaseException as error:
        for each in begun:
            each.take_back()
        if not isinstance(error, PersonNotFound):  # somebody was deleted meanwhile
            raise
        return [error if isinstance(each, Enrolled) else each for each in found]
    for each in begun:
        each.outcomes = [outcome for outcome in outcomes[id(each)] if outcome.face_image]
        if not each.outcomes:
            each.take_back()
            errors = (outcome.error for outcome in outcomes[id(each)])
            found[found.index(each)] = next(error for error in errors if error)
    return found


def _begun(
    probes: Sequence[Probe], person: Person | None, new: Mapping[str, Any] | None
) -> Enrolled:
    if any(not probe.picture_hash for probe in probes):
        raise ActionRefused(gettext("This picture shows no face that could be enrolled."))
    best = _best(probes)
    whose = person or create_newcomer(dict(new or {}), _file_of(probes))
    return Enrolled(probes, best, whose, person is None)


def _file_of(probes: Sequence[Probe]) -> ImportFile | None:
    """Return the file of an import of which the first of the faces is, that is from one."""
    files = ImportFile.objects.filter(probe_pk__in=[probe.pk for probe in probes])
    return files.select_related("job").order_by("pk").first()


def _best(probes: Sequence[Probe]) -> Faces:
    """Return the best faces with their records: fewest doubts, then the widest; no picture twice."""

    def rank(face: tuple[Probe, dict[str, Any] | None]) -> tuple[int, float]:
        quality = (face[1] or {}).get("quality") or {}
        return len(quality.get("reasons", ())), -(quality.get("width") or 0.0)

    once = {probe.picture_hash: probe for probe in probes}.values()
    return sorted(((probe, read_record(probe)) for probe in once), key=rank)[:MOST_ENROLLED]


def _enroll(begun: Sequence[Enrolled], source: str) -> dict[int, list[Outcome]]:
    """Enrol the best faces of each; return the outcomes by the object's id."""
    whose: dict[Upload, int] = {}
    for each in begun:
        for probe, record in each.best:
            upload = Upload(
                each.person.person_id,
                f"inbox-{probe.pk}.jpg",
                read_face(probe),
                key=f"inbox-{probe.pk}-{each.person.pk}",
                face=record,
                is_known=True,
            )
            whose[upload] = id(each)
    found: dict[int, list[Outcome]] = {}
    for is_detected in (True, False):
        uploads = [upload for upload in whose if bool(upload.face) is is_detected]
        if uploads:
            for outcome in enrolling.enroll_pictures(
                uploads, source=source, use_face_detection=is_detected
            ):
                found.setdefault(whose[outcome.upload], []).append(outcome)
    return found


def lock_faces(probes: Iterable[Probe]) -> None:
    """Lock the faces until the transaction ends, so that two who settle several never deadlock."""
    lock_rows(Probe.objects.filter(pk__in={probe.pk for probe in probes}))


def _mark(probes: Sequence[Probe], settled_as: str, item: TrashItem | None) -> None:
    """Mark the faces as settled, in the caller's transaction. Raise `AlreadySettled`.

    With nothing to undo they are deleted.
    """
    lock_faces(probes)
    waiting = Probe.objects.filter(pk__in=[probe.pk for probe in probes], settled_at=None)
    if item is None:
        count = waiting.delete()[0]
    else:
        count = waiting.update(
            settled_at=timezone.now(),
            settled_as=settled_as,
            settled_by=journal.current_author().who,
            settled_in=item.pk,
        )
    if count < len(probes):
        raise settled_already()


def _teach(faces: Faces, person: Person) -> list[int]:
    """Remember of the nearest person whether it was them, where a search was not sure."""
    words = []
    nearest = Person.objects.in_bulk({probe.person_id for probe, _record in faces} - {None})
    for probe, _record in faces:
        near = nearest.get(probe.person_id or 0)
        if near is None or probe.similarity is None or not probe.model:
            continue
        if near == person:
            verdict = Verdict.CONFIRMED
        elif probe.decision == Decision.REVIEW:
            verdict = Verdict.REJECTED
        else:
            continue
        words.append(Word(probe, near, verdict, probe.similarity, decision=probe.decision))
    return [said.pk for said in give_feedback(words)] if words else []


def create_newcomer(given: Mapping[str, Any], row: ImportFile | None) -> Person:
    """Create somebody new of whom the picture is this file of an import, if there is one.

    `given` are `CHANGEABLE` fields; where it says nothing they are as the import has them for its new
    persons, with a consent to its purposes. What the row says of whom it names is only for that id.
    Raise the errors of `create_person`.
    """
    details: dict[str, Any] = {}
    if row is not None:
        is_named = row.person_id == given.get("person_id")
        details = details_of(row if is_named else ImportFile(job=row.job))
    known = {name: value for name, value in details.items() if name in CHANGEABLE}
    with journal.changes():
        person = create_person(**known | {name: each for name, each in given.items() if each})
        record_first_consent(person, details)
    return person
