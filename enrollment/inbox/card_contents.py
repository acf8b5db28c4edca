"""The cards themselves: why, who it may be, and what is likeliest. Only those shown are computed."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from django.db.models import Count, QuerySet
from django.template.defaultfilters import floatformat
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from enrollment.exceptions import CardNotFound
from enrollment.gallery import SearchHit, Weights, compared_weights, search_gallery
from enrollment.inbox.card import Action, Candidate, Card, Filters, Kind, is_number
from enrollment.inbox.sections import keys, nearer_cases, pair_cases
from enrollment.judging import doubts_of
from enrollment.models import Doubt, FaceImage, Person, Probe, ProbeChannel
from enrollment.probes import Said, embeddings_of, feedback_on, read_face, rejected
from recognition.decision import Decision
from recognition.exceptions import RecognitionError
from recognition.inference import Embeddings

logger = logging.getLogger(__name__)

MOST_CANDIDATES: Final = 3
_ASKED: Final = 6  # hits, of which some may be the doubted person or rejected
LIKELY: Final = (Decision.MATCH, Decision.REVIEW)

OF_FACES: Final = (Action.ASSIGN, Action.NEW, Action.DISCARD)
OF_DOUBTS: Final = (Action.CONFIRM, Action.ASSIGN, Action.NEW, Action.DELETE)
OF_PAIRS: Final = (Action.MERGE, Action.CONFIRM)

_REASONS: Final = {
    "no_face_detected": _("An import refused this picture: no face was found."),
    "several_faces": _("An import refused this picture: it shows several faces."),
    "nobodys": _("An import refused this picture: it says of nobody whom it shows."),
    "somebody_elses": _("An import refused this picture: somebody else has the same."),
    "low_quality": _("An import refused this face: it is of low quality."),
    "doubtful_identity": _("An import refused this face: it looks like somebody else."),
}


def cards(
    filters: Filters | None = None,
    *,
    limit: int,
    offset: int = 0,
    leave_out: Collection[str] = (),
    persons: QuerySet[Person] | None = None,
) -> list[Card]:
    """Return what waits, what settles most first; `leave_out` are keys of cards not wanted.

    Candidates are only of `persons`, if given. While the vector database does not answer there are
    none, and each card says why.
    """
    return cards_of(keys(filters or Filters(), leave_out, offset, limit), persons)


def card(key: str, persons: QuerySet[Person] | None = None) -> Card:
    """Return one card that waits. Raise `CardNotFound`."""
    found = cards_of([key], persons)
    if not found:
        raise card_not_found(key)
    return found[0]


def face_of(key: str) -> bytes:
    """Return the JPEG of the searched or refused face of a card. Raise `CardNotFound`."""
    kind, _dash, number = key.partition("-")
    is_face = kind in (Kind.PROBE, Kind.FILE) and is_number(number)
    probe = Probe.objects.waiting().filter(pk=int(number)).first() if is_face else None
    if probe is None:
        raise card_not_found(key)
    return read_face(probe)


def card_not_found(key: str) -> CardNotFound:
    message = gettext("The inbox has no card '%(key)s', or it was settled meanwhile.")
    return CardNotFound(message % {"key": key[:40]})


def cards_of(wanted: Sequence[str], persons: QuerySet[Person] | None = None) -> list[Card]:
    """Return the cards with these keys that wait, in this order."""
    numbers: defaultdict[str, list[str]] = defaultdict(list)
    for key in wanted:
        kind, _dash, number = key.partition("-")
        numbers[kind].append(number)
    faces = [*numbers["probe"], *numbers["file"]]
    found = _of_faces([int(number) for number in faces if is_number(number)])
    found |= _of_doubts([int(number) for number in numbers["doubt"] if is_number(number)])
    if numbers["pair"]:
        found |= _of_pairs(numbers["pair"])
    shown = [found[key] for key in wanted if key in found]
    return _with_candidates(shown, persons)


# Searched and refused faces


def _of_faces(ids: Sequence[int]) -> dict[str, Card]:
    probes = Probe.objects.waiting().in_bulk(ids) if ids else {}
    groups = {probe.group for probe in probes.values() if probe.group}
    same = Probe.objects.waiting().filter(group__in=groups, decision=Decision.UNKNOWN).order_by()
    sizes = dict(same.values_list("group").annotate(size=Count("pk"))) if groups else {}
    return {made.key: made for probe in probes.values() if (made := _of_face(probe, sizes))}


def _of_face(probe: Probe, sizes: dict[int, int]) -> Card:
    size = sizes.get(probe.group or 0, 1)
    if probe.channel == ProbeChannel.IMPORT:
        kind, likeliest = Kind.FILE, Action.ASSIGN if probe.person_id else None
        if not probe.picture_hash:
            likeliest = Action.DISCARD
        why = str(_REASONS.get(probe.reason, _("An import refused this picture.")))
    else:
        kind, likeliest, why = Kind.PROBE, None, _why(probe, size)
    return Card(
        key=f"{kind}-{probe.pk}",
        kind=kind,
        why=why,
        at=probe.created_at,
        actions=OF_FACES if probe.picture_hash else (Action.DISCARD,),
        likeliest=likeliest,
        probe=probe,
        who=probe.username,
        group=probe.group,
        size=size,
    )


def _why(probe: Probe, size: int) -> str:
    if probe.channel == ProbeChannel.VERIFY:
        return gettext("A verification was not sure that this is the person it asked for.")
    if probe.decision == Decision.REVIEW:
        return gettext("A searched face is like somebody who is enrolled, but not surely.")
    if size == 1:
        return gettext("A searched face is like nobody who is enrolled.")
    text = ngettext(
        "This stranger came %(count)d time.", "This stranger came %(count)d times.", size
    )
    return text % {"count": size}


# Doubted pictures


def _of_doubts(ids: Sequence[int]) -> dict[str, Card]:
    if not ids:
        return {}
    doubts = doubts_of(ids)
    cases = nearer_cases() if set(ids) - doubts.keys() else {}
    pictures = FaceImage.objects.select_related("person").in_bulk(ids)
    return {
        made.key: made
        for pk, picture in pictures.items()
        if (made := _of_doubted(picture, doubts[pk], cases.get(pk)))
    }


def _of_doubted(picture: FaceImage, doubts: Iterable[Doubt], case: Any) -> Card | None:
    whom = [doubt for doubt in doubts if doubt.code in Doubt.Resemblance]
    first = next(iter([*whom, *doubts]), None)
    if first is None and case is None:
        return None
    why = first.message if first else _nearer(picture.person)
    likeliest = Action.CONFIRM
    if first and first.code == Doubt.Resemblance.SAME_PICTURE:
        likeliest = Action.DELETE
    elif first is None:
        likeliest = Action.ASSIGN
    candidates = [
        Candidate(doubt.other.person, doubt.other, doubt.given)
        for doubt in whom
        if doubt.other and doubt.other.person_id != picture.person_id
    ]
    return Card(
        key=f"doubt-{picture.pk}",
        kind=Kind.DOUBT,
        why=why,
        at=picture.created_at,
        actions=OF_DOUBTS,
        likeliest=likeliest,
        candidates=candidates[:1],
        picture=picture,
        person=picture.person,
    )


def _nearer(person: Person) -> str:
    message = gettext(
        "The picture is nearer to somebody else than to other pictures of %(person)s."
    )
    return message % {"person": person}


# Pairs


def _of_pairs(wanted: Sequence[str]) -> dict[str, Card]:
    cases = {key: case for key, (_pair, case) in pair_cases().items() if key in wanted}
    persons = Person.objects.in_bulk({pk for case in cases.values() for pk in case["persons"]})
    pictures = FaceImage.objects.in_bulk({pk for case in cases.values() for pk in case["pictures"]})
    found = {}
    for key, case in cases.items():
        similarity = case["similarity"] or 0.0
        both = [
            Candidate(persons[person], pictures.get(picture), similarity)
            for person, picture in zip(case["persons"], case["pictures"], strict=True)
            if person in persons
        ]
        if len(both) == 2:
            message = gettext("These two people look like one (similarity %(given)s).")
            found[f"pair-{key}"] = Card(
                key=f"pair-{key}",
                kind=Kind.PAIR,
                why=message % {"given": floatformat(similarity, 3)},
                at=max(each.person.updated_at for each in both),
                actions=OF_PAIRS,
                likeliest=Action.MERGE,
                candidates=both,
            )
    return found


# Who it may be


def _with_candidates(shown: list[Card], persons: QuerySet[Person] | None) -> list[Card]:
    """Return the cards with who is most similar, by one search for each weights file."""
    asked: defaultdict[Weights, list[tuple[int, np.ndarray]]] = defaultdict(list)
    try:
        vectors, problems = _vectors(shown)
        for place, (vector, weights) in vectors.items():
            asked[weights].append((place, vector))
        hits: dict[int, list[SearchHit]] = {}
        for weights, probes in asked.items():
            stacked = np.stack([vector for _place, vector in probes])
            probe = Embeddings(stacked, weights.model, weights.fingerprint)
            answers = search_gallery(probe, _ASKED, group_by_person=True, persons=persons)
            hits |= dict(zip([place for place, _vector in probes], answers, strict=True))
    except RecognitionError as error:
        logger.warning("The inbox shows nobody: %s", error)
        return [
            each if each.kind == Kind.PAIR else replace(each, problem=str(error)) for each in shown
        ]
    said = feedback_on(each.probe.picture_hash for each in shown if each.probe)
    return [
        _completed(each, hits[place], said)
        if place in hits
        else replace(each, problem=problems.get(place, ""))
        for place, each in enumerate(shown)
    ]


def _vectors(
    shown: Sequence[Card],
) -> tuple[dict[int, tuple[np.ndarray, Weights]], dict[int, str]]:
    """Return the vectors of the cards' faces, and why a face has none, by the card's place."""
    found, problems = {}, {}
    pictures = {each.picture.pk: n for n, each in enumerate(shown) if each.picture}
    if pictures and (weights := compared_weights()):
        for row in weights.rows.filter(face_image__in=pictures):
            found[pictures[row.face_image_id]] = (row.computed_array(), weights)
    for place, each in enumerate(shown):
        if each.probe and each.probe.picture_hash:
            try:
                made = embeddings_of(each.probe)
            except RecognitionError as error:
                logger.warning("Face %d of the inbox cannot be compared: %s", each.probe.pk, error)
                problems[place] = str(error)
                continue
            found[place] = made.vectors[0], Weights.of(made)
    return found, problems


def _completed(shown: Card, hits: Sequence[SearchHit], said: Mapping[str, Said]) -> Card:
    not_these = {shown.person.pk} if shown.person else set()
    if shown.probe:
        not_these |= rejected(said.get(shown.probe.picture_hash, {}))
    named = [each for each in shown.candidates if each.person.pk not in not_these]
    nearest = [
        Candidate(hit.person, hit.face_image, hit.similarity, hit.decision)
        for hit in hits
        if hit.person.pk not in not_these
    ]
    first = {each.person.pk for each in named}
    named = [next((new for new in nearest if new.person.pk == old.person.pk), old) for old in named]
    candidates = [*named, *(each for each in nearest if each.person.pk not in first)]
    if shown.kind == Kind.FILE and shown.probe and shown.probe.person_id:
        candidates.sort(key=lambda each: each.person.pk != shown.probe.person_id)  # type: ignore[union-attr]
    candidates = candidates[:MOST_CANDIDATES]
    return replace(shown, candidates=candidates, likeliest=_likeliest(shown, candidates))


def _likeliest(shown: Card, candidates: Sequence[Candidate]) -> Action | None:
    best = candidates[0].decision if candidates else None
    if shown.kind == Kind.DOUBT:
        sure = best == Decision.MATCH and shown.likeliest == Action.CONFIRM
        return Action.ASSIGN if sure else shown.likeliest
    if shown.likeliest == Action.ASSIGN or best in LIKELY:
        return Action.ASSIGN
    return Action.NEW if Action.NEW in shown.actions else Action.DISCARD
