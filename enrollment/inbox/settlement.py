"""Settle cards: every act is journalled, can be undone, and is done once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from enrollment import corrections, journal
from enrollment.corrections import Done
from enrollment.exceptions import ActionRefused
from enrollment.inbox.assignment import (
    UNSEEN,
    Enrolled,
    discard_faces,
    enroll_each,
    lock_faces,
    settled_already,
)
from enrollment.inbox.card import Action, Kind, is_number
from enrollment.inbox.card_contents import OF_DOUBTS, OF_FACES, OF_PAIRS, card_not_found
from enrollment.inbox.sections import COUNT, nearer_cases, pair_cases
from enrollment.judging import dismiss_doubts
from enrollment.models import DistinctPair, Doubt, FaceImage, Person, Probe, TrashItem, lock_rows
from recognition.exceptions import RecognitionError

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What settles some cards: `person` is whom it is about for ASSIGN, and who is kept for MERGE;
    `new` are the `person_id` and details of somebody new for NEW."""

    keys: Sequence[str]
    action: str
    person: Person | None = None
    new: Mapping[str, Any] | None = None


def settle(
    keys: Sequence[str],
    action: str,
    *,
    person: Person | None = None,
    new: Mapping[str, Any] | None = None,
    source: str = FaceImage.Source.PAGE,
    whole_group: bool = True,
) -> Settled:
    """Settle these cards by one `Answer`; with `whole_group` all faces that look like one stranger.

    Raise `CardNotFound`, `ActionRefused` for what does not fit, `AlreadySettled` when somebody was
    faster, and what the act itself raises; nothing is settled then.
    """
    answer = Answer(keys, action, person, new)
    (settled,) = settle_each([answer], source=source, whole_group=whole_group)
    if isinstance(settled, Exception):
        raise settled
    return settled


def settle_each(
    answers: Sequence[Answer],
    *,
    source: str = FaceImage.Source.PAGE,
    whole_group: bool = True,
) -> list[Settled | RecognitionError | ValidationError]:
    """Settle cards by several answers, each as `settle` does; where one fails stands its error.

    Their faces are enrolled together, which takes far less time than one by one.
    """
    done: dict[int, Settled | RecognitionError | ValidationError] = {}
    waiting = _faces({pk for answer in answers for pk in _face_ids(answer.keys)}, whole_group)
    chosen: dict[int, _Chosen] = {}
    for place, answer in enumerate(answers):
        try:
            each = _chosen(answer, waiting)
        except RecognitionError as error:
            done[place] = error
            continue
        chosen[place] = each
        taken = set(each.probes)  # a later answer about them comes too late
        waiting = {pk: its for pk, its in waiting.items() if taken.isdisjoint(its)}
    enrol = [place for place, each in chosen.items() if each.is_to_enrol]
    wanted = [
        (each.probes, each.answer.person, each.answer.new)
        for each in (chosen[place] for place in enrol)
    ]
    enrolled = dict(zip(enrol, enroll_each(wanted, source), strict=True))
    try:
        with journal.changes():
            _lock(chosen.values())
            for place, each in chosen.items():
                try:
                    with journal.changes():
                        done[place] = _settle(each, enrolled.get(place))
                except (RecognitionError, ValidationError) as error:
                    done[place] = error
    except BaseException:
        done.clear()
        raise
    finally:
        for place, its in enrolled.items():
            if isinstance(its, Enrolled) and not isinstance(done.get(place), Settled):
                its.take_back()
    cache.delete(COUNT)
    return [done[place] for place in range(len(answers))]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An answer that fits its cards, and what of them waits."""

    answer: Answer
    probes: list[Probe]
    pictures: list[FaceImage]
    pairs: list[str]

    @property
    def is_to_enrol(self) -> bool:
        return bool(self.probes) and self.answer.action != Action.DISCARD


def _chosen(answer: Answer, waiting: Mapping[int, list[Probe]]) -> _Chosen:
    numbers = _parsed(answer.keys, answer.action)
    if answer.action in (Action.ASSIGN, Action.MERGE) and answer.person is None:
        raise ActionRefused(gettext("Say who it is: this needs a person who is enrolled."))
    if answer.action == Action.NEW and not (answer.new and answer.new.get("person_id")):
        raise ActionRefused(gettext("Give an id for the new person."))
    probes: dict[int, Probe] = {}
    for pk in _face_ids(answer.keys):
        if pk not in waiting:
            raise settled_already()
        probes |= {probe.pk: probe for probe in waiting[pk]}
    pictures = _doubted([int(number) for number in numbers[Kind.DOUBT]])
    return _Chosen(answer, [probes[pk] for pk in sorted(probes)], pictures, numbers[Kind.PAIR])


def _lock(chosen: Iterable[_Chosen]) -> None:
    """Lock what several answers are about, in the order of the keys: so two of them never deadlock."""
    chosen = list(chosen)
    if len(chosen) > 1:
        persons = {picture.person_id for each in chosen for picture in each.pictures}
        persons |= {each.answer.person.pk for each in chosen if each.answer.person}
        persons |= {int(pk) for each in chosen for pair in each.pairs for pk in pair.split("-")}
        lock_rows(Person.objects.filter(pk__in=persons))
        lock_faces(probe for each in chosen for probe in each.probes)


def _settle(
    chosen: _Chosen, enrolled: Enrolled | RecognitionError | ValidationError | None
) -> Settled:
    if isinstance(enrolled, Exception):
        raise enrolled
    settled, answer = Settled(), chosen.answer
    person = answer.person
    if chosen.probes:
        done = enrolled.settle() if enrolled else discard_faces(chosen.probes)
        settled.add(len(chosen.probes), done)
        person = done.person
    if chosen.pictures:
        for done in _settle_doubted(chosen.pictures, answer.action, person, answer.new):
            settled.add(0, done)
        settled.count += len(chosen.pictures)
    for number in chosen.pairs:
        settled.add(1, _settle_pair(number, answer.action, person))
    return settled


def _face_ids(keys: Iterable[str]) -> list[int]:
    """Return the keys of the searched and refused faces among these cards."""
    parts = (key.partition("-") for key in keys)
    return [
        int(number)
        for kind, _dash, number in parts
        if kind in (Kind.PROBE, Kind.FILE) and is_number(number)
    ]


def _parsed(keys: Sequence[str], action: str) -> defaultdict[str, list[str]]:
    numbers: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        kind, _dash, number = key.partition("-")
        parts = number.split("-") if kind == Kind.PAIR else [number]
        if kind not in ACTIONS or not all(map(is_number, parts)):
            raise card_not_found(key)
        if action not in ACTIONS[Kind(kind)]:
            message = gettext("'%(action)s' does not settle '%(key)s'. These do: %(known)s.")
            known = ", ".join(ACTIONS[Kind(kind)])
            raise ActionRefused(message % {"action": action[:40], "key": key, "known": known})
        numbers[kind].append(number)
    return numbers


def _faces(ids: Collection[int], whole_group: bool) -> dict[int, list[Probe]]:
    """Return those of the faces that wait, each with all that look like the same stranger if the
    `whole_group` is settled."""
    waiting = Probe.objects.waiting()
    found = {probe.pk: probe for probe in waiting.filter(pk__in=ids)} if ids else {}
    groups: dict[int | None, list[Probe]] = defaultdict(list)
    wanted = {probe.group for probe in found.values() if probe.group}
    if whole_group and wanted:
        for probe in waiting.filter(group__in=wanted):
            groups[probe.group].append(probe)
    return {pk: groups.get(probe.group) or [probe] for pk, probe in found.items()}


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
        raise settled_already()
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
            return [corrections.delete_pictures(each, own) for each, own in by_person.items()]
        if person is not None:
            done = corrections.move_pictures(ids, person)
        else:
            details = dict(new or {})
            done = corrections.move_to_new_person(
                ids, details.pop("person_id"), name=details.pop("name", "")
            )
            if any(details.values()):
                corrections.change_person(done.owner, **details)
        _dismiss_seen(ids, done)
        return [done]


def _dismiss_seen(ids: Sequence[int], done: Done) -> None:
    """Dismiss the doubts about what was seen by whoever said whose the moved pictures are.

    Those that compare it with other pictures of the person arise when it is judged, after the move.
    """
    who, pictures = journal.current_author().who, FaceImage.objects.filter(pk__in=ids)
    seen = Doubt.objects.filter(face_image__in=ids).exclude(code__in=Doubt.Resemblance)
    if done.undo:
        done.undo.facts["doubts"] = list(seen.values_list("pk", flat=True))
        done.undo.save(update_fields=["facts"])
    dismiss_doubts(pictures, who, but=Doubt.Resemblance.values)

    # No partial: when one fails, Django 5.2 drops the hooks after it.
    def dismiss_what_follows() -> None:
        dismiss_doubts(pictures, who, but=UNSEEN)

    transaction.on_commit(dismiss_what_follows, robust=True)


def _dismiss(pictures: QuerySet[FaceImage], ids: Sequence[int]) -> Done:
    """Dismiss all doubts of the pictures, also what only the last audit found."""
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
    dismiss_doubts(pictures, journal.current_author().who)
    at = Doubt.with_dismissed.filter(pk__in=doubts).values_list("dismissed_at", flat=True).first()
    # A picture that is judged again has other rows, dismissed at the same time.
    facts = {"doubts": doubts, "doubted": list(ids), "dismissed_at": at and at.isoformat()}
    label = str(first.person) if (first := pictures.first()) else ""
    return Done(0, corrections.new_settlement(label, facts=facts))


# Pairs


def _settle_pair(number: str, action: str, kept: Person | None) -> Done:
    known = pair_cases().get(number)
    if known is None:
        raise settled_already()
    ids, _case = known
    persons = Person.objects.in_bulk(ids)
    first, second = (persons[pk] for pk in ids)
    if action == Action.MERGE:
        if kept not in (first, second):
            message = gettext("Of a pair one is kept: %(first)s or %(second)s.")
            raise ActionRefused(message % {"first": first, "second": second})
        return corrections.merge_persons(kept, second if kept == first else first)
    with journal.changes():
        pair, is_new = DistinctPair.objects.get_or_create(
            first=first,
            second=second,
            defaults={"username": journal.current_author().who},
        )
        if not is_new:
            raise settled_already()
        item = corrections.new_settlement(f"{first}, {second}", facts={"pairs": [pair.pk]})
        journal.record(
            journal.Action.KEPT_APART,
            persons=[("", first), ("", second)],
            facts=corrections.undoable({}, item),
        )
    return Done(0, item)
