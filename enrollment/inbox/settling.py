"""Settle cards: every act is journalled, can be undone, and is done once.

Faces are enrolled by the one write path before they count as settled: cut off in between, the same
act again finds the same pictures and goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.cache import cache
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from enrollment import enrolling, journal
from enrollment.enrolling import Done, Outcome, Upload
from enrollment.exceptions import ActionRefused, AlreadySettled
from enrollment.inbox.card import Action, Kind
from enrollment.inbox.feedback import Verdict, give_feedback
from enrollment.inbox.keeping import read_face, read_record
from enrollment.inbox.sections import COUNT, nearer_cases, pair_cases
from enrollment.inbox.showing import OF_DOUBTS, OF_FACES, OF_PAIRS, card_not_found, is_number
from enrollment.judging import dismiss_doubts
from enrollment.models import DistinctPair, Doubt, FaceImage, ImportFile, Person, Probe, TrashItem
from recognition.decision import Decision

MOST_ENROLLED: Final = 5  # faces of a stranger who came more often: the best
ACTIONS: Final[Mapping[Kind, Collection[Action]]] = {
    Kind.PROBE: OF_FACES,
    Kind.FILE: OF_FACES,
    Kind.DOUBT: OF_DOUBTS,
    Kind.PAIR: OF_PAIRS,
}


@dataclass(slots=True)
class Settled:
    """How many faces, pictures or pairs were settled, whose they are since, and what undoes it."""

    count: int = 0
    person: Person | None = None
    undo: list[TrashItem] = field(default_factory=list)
    pictures: int = 0  # enrolled or moved

    def add(self, count: int, done: Done) -> None:
        self.count += count
        self.pictures += done.pictures
        self.person = self.person or done.person
        self.undo += [done.undo] if done.undo else []


def settle(
    keys: Sequence[str],
    action: str,
    *,
    person: Person | None = None,
    new: Mapping[str, Any] | None = None,
    source: str = FaceImage.Source.PAGE,
    whole_group: bool = True,
) -> Settled:
    """Settle these cards by one action; with `whole_group` all faces that look like one stranger.

    `person` is whom it is about for ASSIGN, and who is kept for MERGE; `new` are the `person_id` and
    details of somebody new for NEW. Raise `CardNotFound`, `ActionRefused` for what does not fit,
    `AlreadySettled` when somebody was faster, and what the act itself raises; nothing is settled
    then.
    """
    numbers = _parsed(keys, action)
    if action in (Action.ASSIGN, Action.MERGE) and person is None:
        raise ActionRefused(gettext("Say who it is: this needs a person who is enrolled."))
    if action == Action.NEW and not (new and new.get("person_id")):
        raise ActionRefused(gettext("Give an id for the new person."))
    settled = Settled()
    probes = _faces(list(map(int, numbers[Kind.PROBE] + numbers[Kind.FILE])), whole_group)
    pictures = _doubted(list(map(int, numbers[Kind.DOUBT])))
    enrols = probes and action != Action.DISCARD
    with _enrolled(probes, person, new, source) if enrols else _discarded(probes) as done:
        if probes:
            settled.add(len(probes), done)
            person = done.person
        if pictures:
            for done in _settle_doubted(pictures, action, person, new):
                settled.add(0, done)
            settled.count += len(pictures)
        for number in numbers[Kind.PAIR]:
            settled.add(1, _settle_pair(number, action, person))
    cache.delete(COUNT)
    return settled


def _parsed(keys: Sequence[str], action: str) -> defaultdict[str, list[str]]:
    numbers: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        kind, _dash, number = key.partition("-")
        if kind not in ACTIONS or not is_number(number.replace("-", "")):
            raise card_not_found(key)
        if action not in ACTIONS[Kind(kind)]:
            message = gettext("'%(action)s' does not settle '%(key)s'. These do: %(known)s.")
            known = ", ".join(ACTIONS[Kind(kind)])
            raise ActionRefused(message % {"action": action[:40], "key": key, "known": known})
        numbers[kind].append(number)
    return numbers


# Searched and refused faces


def _faces(ids: Sequence[int], whole_group: bool) -> list[Probe]:
    """Return the waiting faces, with those that look like the same strangers."""
    waiting = Probe.objects.waiting()
    found = {probe.pk: probe for probe in waiting.filter(pk__in=ids)}
    if len(found) < len(set(ids)):
        raise _settled_already()
    groups = {probe.group for probe in found.values() if probe.group}
    if whole_group and groups:
        found |= {each.pk: each for each in waiting.filter(group__in=groups)}
    return [found[pk] for pk in sorted(found)]


def _settled_already() -> AlreadySettled:
    return AlreadySettled(
        gettext("This was settled meanwhile, or is not kept any more. Nothing was changed.")
    )


def discard_faces(probes: Sequence[Probe]) -> Done:
    """Settle faces of which nothing is to become."""
    with _discarded(probes) as done:
        return done


@contextmanager
def _discarded(probes: Sequence[Probe]) -> Iterator[Done]:
    """Discard the faces, if any, in one transaction with what the block does."""
    with journal.changes():
        item = enrolling.new_settlement("") if probes else None
        if probes:
            _mark(probes, Probe.Settled.DISCARDED, item)
            facts = {"faces": len(probes)}
            journal.record(journal.Action.DISCARDED, facts=enrolling.undoable(facts, item))
        yield Done(0, item)


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
    with _enrolled(probes, person, new, source) as done:
        return done


@contextmanager
def _enrolled(
    probes: Sequence[Probe],
    person: Person | None,
    new: Mapping[str, Any] | None,
    source: str,
) -> Iterator[Done]:
    """Do `enroll_faces`; if what the block does in the same transaction fails, take it all back."""
    if any(not probe.picture_hash for probe in probes):
        raise ActionRefused(gettext("This picture shows no face that could be enrolled."))
    best = _best(probes)
    whose = person or enrolling.create_newcomer(dict(new or {}), _file_of(probes))
    try:
        outcomes = _enroll(best, whose, source)
        stored = [outcome.picture.pk for outcome in outcomes]
    except BaseException:
        if person is None:
            _take_back([], whose, is_new=True)
        raise
    whose = outcomes[0].picture.person  # or whom that one was merged into meanwhile
    fresh = [outcome.picture.pk for outcome in outcomes if outcome.crop]
    try:
        with journal.changes():
            facts = {"pictures": stored, "is_new": person is None}
            item = enrolling.new_settlement(str(whose), taker_pk=whose.pk, facts=facts)
            _mark(probes, Probe.Settled.ASSIGNED, item)
            said = _teach([probe for probe, _record in best], whose)
            if item:
                item.facts["feedback"] = said
                item.pictures = len(stored)
                item.save(update_fields=["facts", "pictures"])
            told = {"faces": len(probes), **journal.pictures(stored)}
            journal.record(
                journal.Action.SETTLED, person=whose, facts=enrolling.undoable(told, item)
            )
            yield Done(len(stored), item, whose)
    except Exception:
        _take_back(fresh, whose, is_new=person is None)
        raise


def _file_of(probes: Sequence[Probe]) -> ImportFile | None:
    """Return the file of an import of which the first of the faces is, that is from one."""
    files = ImportFile.objects.filter(probe_pk__in=[probe.pk for probe in probes])
    return files.select_related("job").order_by("pk").first()


def _best(probes: Sequence[Probe]) -> list[tuple[Probe, dict[str, Any] | None]]:
    """Return the best faces with their records: fewest doubts, then the widest; no picture twice."""

    def rank(face: tuple[Probe, dict[str, Any] | None]) -> tuple[int, float]:
        quality = (face[1] or {}).get("quality") or {}
        return len(quality.get("reasons", ())), -(quality.get("width") or 0.0)

    once = {probe.picture_hash: probe for probe in probes}.values()
    return sorted(((probe, read_record(probe)) for probe in once), key=rank)[:MOST_ENROLLED]


def _enroll(
    faces: Sequence[tuple[Probe, dict[str, Any] | None]], person: Person, source: str
) -> list[Outcome]:
    outcomes = []
    for is_detected in (True, False):
        uploads = [
            Upload(
                person.person_id,
                f"inbox-{probe.pk}.jpg",
                read_face(probe),
                key=f"inbox-{probe.pk}-{person.pk}",
                face=record,
            )
            for probe, record in faces
            if bool(record) is is_detected
        ]
        if uploads:
            outcomes += enrolling.enroll_pictures(
                uploads, source=source, use_face_detection=is_detected
            )
    accepted = [outcome for outcome in outcomes if outcome.face_image]
    if not accepted:
        raise next(outcome.error for outcome in outcomes if outcome.error)
    return accepted


def _mark(probes: Sequence[Probe], settled_as: str, item: TrashItem | None) -> None:
    """Mark the faces as settled, in the caller's transaction. Raise `AlreadySettled`.

    With nothing to undo they are deleted.
    """
    ids = [probe.pk for probe in probes]
    rows = Probe.objects.select_for_update().filter(pk__in=ids, settled_at=None).order_by("pk")
    if len(list(rows.values_list("pk", flat=True))) < len(ids):
        raise _settled_already()
    marked = Probe.objects.filter(pk__in=ids)
    if item is None:
        marked.delete()
        return
    marked.update(
        settled_at=timezone.now(),
        settled_as=settled_as,
        settled_by=journal.current_author().who[:150],
        settled_in=item.pk,
    )


def _teach(probes: Sequence[Probe], person: Person) -> list[int]:
    """Remember of the nearest person whether it was them, where a search was not sure."""
    said = []
    nearest = Person.objects.in_bulk({each.person_id for each in probes if each.person_id})
    for probe in probes:
        near = nearest.get(probe.person_id or 0)
        if near is None or probe.similarity is None or not probe.model:
            continue
        if near == person:
            verdict = Verdict.CONFIRMED
        elif probe.decision == Decision.REVIEW:
            verdict = Verdict.REJECTED
        else:
            continue
        feedback = give_feedback(
            probe, near, verdict, similarity=probe.similarity, decision=probe.decision
        )
        said.append(feedback.pk)
    return said


def _take_back(pictures: list[int], person: Person, *, is_new: bool) -> None:
    """Erase what was enrolled for an act that failed after it, or that somebody else was faster with."""
    if pictures:
        enrolling.erase_pictures(person, pictures)
    if is_new:
        enrolling.erase_person(person)


# Doubted pictures


def _doubted(ids: Sequence[int]) -> list[FaceImage]:
    """Return the pictures, if each of them still waits."""
    doubted = set(
        Doubt.objects.filter(face_image__in=ids).values_list("face_image", flat=True).distinct()
    )
    if missing := set(ids) - doubted:
        doubted |= missing & nearer_cases().keys()
    pictures = FaceImage.objects.filter(pk__in=doubted).select_related("person")
    found = list(pictures.order_by("pk"))
    if len(found) < len(set(ids)):
        raise _settled_already()
    return found


def _settle_doubted(
    pictures: Sequence[FaceImage],
    action: str,
    person: Person | None,
    new: Mapping[str, Any] | None,
) -> list[Done]:
    ids = [picture.pk for picture in pictures]
    with journal.changes():
        if action == Action.CONFIRM:
            return [_dismiss(FaceImage.objects.filter(pk__in=ids), ids)]
        if action == Action.DELETE:
            by_person: defaultdict[Person, list[int]] = defaultdict(list)
            for picture in pictures:
                by_person[picture.person].append(picture.pk)
            return [enrolling.delete_pictures(each, own) for each, own in by_person.items()]
        if person is not None:
            return [enrolling.move_pictures(ids, person)]
        details = dict(new or {})
        done = enrolling.move_to_new_person(
            ids, details.pop("person_id"), name=details.pop("name", "")
        )
        if any(details.values()):
            enrolling.change_person(done.owner, **details)
        return [done]


def _dismiss(pictures: QuerySet[FaceImage], ids: Sequence[int]) -> Done:
    """Dismiss all doubts of the pictures, also what only the last audit found."""
    who = journal.current_author().who[:150]
    cases = nearer_cases()
    for pk in ids:
        if pk in cases and not Doubt.objects.filter(face_image=pk, other__isnull=False).exists():
            case, _day, _persons = cases[pk]
            Doubt.objects.create(
                face_image_id=pk,
                code=Doubt.Resemblance.LOOKS_LIKE_SOMEONE_ELSE,
                given=case["similarity"],
                expected=case["own_similarity"],
                other_id=case["pictures"][1],
                persons="{} {}".format(*case["persons"]),
            )
    doubts = list(Doubt.objects.filter(face_image__in=ids).values_list("pk", flat=True))
    dismiss_doubts(pictures, who)
    label = str(first.person) if (first := pictures.first()) else ""
    return Done(0, enrolling.new_settlement(label, facts={"doubts": doubts}))


# Pairs


def _settle_pair(number: str, action: str, kept: Person | None) -> Done:
    known = pair_cases().get(number)
    if known is None:
        raise _settled_already()
    ids, _case = known
    persons = Person.objects.in_bulk(ids)
    first, second = (persons[pk] for pk in ids)
    if action == Action.MERGE:
        if kept not in (first, second):
            message = gettext("Of a pair one is kept: %(first)s or %(second)s.")
            raise ActionRefused(message % {"first": first, "second": second})
        return enrolling.merge_persons(kept, second if kept == first else first)
    with journal.changes():
        pair, is_new = DistinctPair.objects.get_or_create(
            first=first,
            second=second,
            defaults={"username": journal.current_author().who[:150]},
        )
        if not is_new:
            raise _settled_already()
        item = enrolling.new_settlement(f"{first}, {second}", facts={"pairs": [pair.pk]})
        journal.record(
            journal.Action.KEPT_APART,
            persons=[("", first), ("", second)],
            facts=enrolling.undoable({}, item),
        )
    return Done(0, item)
