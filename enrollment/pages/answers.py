"""Answers of the search page that are kept for a while: show them again, and act on their faces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext
from django.views.decorators.http import require_POST, require_safe

from enrollment import inbox, probes
from enrollment.exceptions import AnswerNotFound, FaceGone
from enrollment.gallery import hits_again, note_shown_again, person_named
from enrollment.models import FaceImage, Person, Probe, SearchAnswer, TrashItem
from enrollment.pages.forms import SearchForm
from enrollment.pages.people_forms import NewFaceForm
from enrollment.pages.query_pictures import (
    Problem,
    QueryFace,
    QueryPicture,
    ShownHit,
    ShownThresholds,
)
from enrollment.pages.views import show_page
from enrollment.probes import Remembered, Verdict, Word, feedback_on, take_back_feedback, unseal
from enrollment.web import Act, error_text, may_undo, say_done, say_mistakable, searchable_by
from recognition.api.access import lacking_permission, may, page_access
from recognition.decision import Thresholds
from recognition.detection import Face
from recognition.embedding import Crop
from recognition.exceptions import RecognitionError
from recognition.networks.descriptor import Threshold
from recognition.quality import FaceQuality
from recognition.vector_store import VectorHit

MOST_ANSWERS: Final = 100  # in one address
_NO_PIXELS: Final = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """A kept answer with what of it the user may see."""

    answer: SearchAnswer
    pictures: list[QueryPicture]
    thresholds: ShownThresholds | None

    @property
    def faces(self) -> list[QueryFace]:
        return [face for picture in self.pictures for face in picture.faces]


@page_access
@require_safe
def answers(request: HttpRequest, numbers: str) -> HttpResponse:
    """Show the answers with these numbers, separated by commas, as the search page showed them."""
    shown, problems = [], {}
    for number in dict.fromkeys(numbers.split(",")[:MOST_ANSWERS]):
        try:
            shown.append(shown_answer(request, probes.answer_of(number)))
        except RecognitionError as error:
            problems[error.message] = Problem.of(error)
    for each in shown:
        hits = [[hit.hit for hit in (*face.hits, *face.aside)] for face in each.faces]
        note_shown_again(request, each.answer, hits)
    context = {"results": shown, "problems": [*problems.values()], "numbers": numbers}
    # What an act on a face lacked stands beside the face, to which the browser scrolls.
    context["beside"] = [face.key for each in shown for face in each.faces]
    response = show_page(request, "search", SearchForm(), context)
    patch_cache_control(response, private=True, no_store=True)
    return response


def shown_answer(request: HttpRequest, answer: SearchAnswer) -> ShownAnswer:
    """Return the answer as it was given, less whom the user may not see and who is gone since.

    Raise `AnswerNotFound` for an answer to a program, and `SealBroken`.
    """
    if answer.content is None:
        raise AnswerNotFound(
            gettext("The answer %(number)s was given to a program, so there is no page of it.")
            % {"number": answer.number}
        )
    content = json.loads(unseal(answer.content))
    thresholds = _thresholds(content["thresholds"])
    faces = [face for picture in content["pictures"] for face in picture["faces"]]
    hits = hits_again(
        [[VectorHit(*hit) for hit in face["hits"]] for face in faces],
        thresholds,
        persons=searchable_by(request),
    )
    probes = {probe.place: probe for probe in answer.probes.all()}
    said = feedback_on(probe.picture_hash for probe in probes.values())
    pictures = [_unpacked(picture) for picture in content["pictures"]]
    places = count(1)
    for face, its in zip((f for picture in pictures for f in picture.faces), hits, strict=True):
        face.probe = probes.get(next(places))
        known = said.get(face.probe.picture_hash, {}) if face.probe else {}
        face.show(request, Remembered.of(its, known), thresholds)
    _give_settlements(request, [probe for probe in probes.values() if probe.settled_in])
    return ShownAnswer(answer, pictures, ShownThresholds.of(thresholds))


def _thresholds(packed: list[list[Any]] | None) -> Thresholds | None:
    return Thresholds(*(Threshold(*each) for each in packed)) if packed else None


def _unpacked(packed: dict[str, Any]) -> QueryPicture:
    """Return the picture with crops without pixels: they are shown by their URIs, and not decoded."""
    faces = []
    for each in packed["faces"]:
        face = each["face"] and Face.of_record(each["face"])
        crop = Crop(_NO_PIXELS, face, FaceQuality.from_record(each["quality"]))
        faces.append((crop, each["uri"]))
    return QueryPicture.shown(packed["filename"], packed["uri"], tuple(packed["size"]), faces)


def _give_settlements(request: HttpRequest, settled: list[Probe]) -> None:
    """Give the settled faces `settlement`, which undoes it, if the user may."""
    items = TrashItem.objects.in_bulk({probe.settled_in for probe in settled})
    for probe in settled:
        item = items.get(probe.settled_in)
        probe.settlement = item
        probe.may_undo = item is not None and may_undo(request, item)


@page_access
@require_POST
def act(request: HttpRequest, number: str, place: int) -> HttpResponse:
    """Confirm or reject a match of one face, take that back, or enrol the face."""
    acts: dict[str, Callable[[HttpRequest, Probe], HttpResponse | None]] = {
        "confirm": _confirm,
        "reject": _reject,
        "take_back": _take_back,
        "add": _add,
        "new": _enrol_new,
    }
    try:
        do = acts.get(request.POST.get("act", ""))
        if do is None:
            raise ValidationError(gettext("Say what to do: press one of the buttons of the face."))
        response = do(request, probes.probe_of(number, place))
    except (RecognitionError, ValidationError) as error:
        messages.error(request, error_text(error), extra_tags=f"{number}-{place}")
    else:
        if response:
            return response
    return redirect(_place(request, number, place))


def _place(request: HttpRequest, number: str, place: int) -> str:
    """Return the address of the face on the page on which the user acts."""
    page = reverse("answers", args=[_shown_numbers(request, number)])
    return f"{page}#face-{number}-{place}"


def _shown_numbers(request: HttpRequest, number: str) -> str:
    """Return the numbers of all answers that the page shows on which the user acts."""
    shown = [each for each in request.POST.get("answers", "").split(",") if each.isalnum()]
    return ",".join(shown[:MOST_ANSWERS] if number in shown else [number])


def _require(request: HttpRequest, *acts: Act) -> None:
    for act in acts:
        if not may(request, act):
            raise ValidationError(lacking_permission(act))


def _confirm(request: HttpRequest, probe: Probe) -> None:
    _judge(request, probe, Verdict.CONFIRMED)


def _reject(request: HttpRequest, probe: Probe) -> None:
    _judge(request, probe, Verdict.REJECTED)


def _judge(request: HttpRequest, probe: Probe, verdict: str) -> None:
    _require(request, Act.CHANGE_PICTURES)
    shown = _chosen_hit(request, probe)
    word = Word(
        probe,
        shown.hit.person,
        verdict,
        shown.similarity,
        face_image=shown.hit.face_image,
        decision=shown.decision,
    )
    probes.give_feedback([word])
    if verdict == Verdict.CONFIRMED:
        text = gettext("Remembered: this is %(person)s.")
    else:
        text = gettext(
            "Remembered: this is not %(person)s, who is set aside when this picture is searched again."
        )
    messages.success(request, text % {"person": shown.hit.person})


def _take_back(request: HttpRequest, probe: Probe) -> None:
    _require(request, Act.CHANGE_PICTURES)
    shown = _chosen_hit(request, probe)
    take_back_feedback(probe.picture_hash, shown.hit.person)
    text = gettext("Taken back: nothing is remembered of this picture and %(person)s.")
    messages.success(request, text % {"person": shown.hit.person})


def _chosen_hit(request: HttpRequest, probe: Probe) -> ShownHit:
    """Return the hit of the face that the form names by the person's key."""
    face = _face(request, probe)
    for shown in (*face.hits, *face.aside):
        if str(shown.hit.person.pk) == request.POST.get("person"):
            return shown
    raise ValidationError(
        gettext("This person is not in the answer any more. Reload the page and choose again.")
    )


def _face(request: HttpRequest, probe: Probe) -> QueryFace:
    if probe.answer is not None:
        for face in shown_answer(request, probe.answer).faces:
            if face.probe == probe:
                return face
    raise FaceGone(gettext("This face is not kept any more."))


def _add(request: HttpRequest, probe: Probe) -> None:
    """Enrol the face as a picture of the person of a hit, or of whom the form names by id or name."""
    _require(request, Act.BROWSE, Act.ADD_PICTURES)
    if text := request.POST.get("who", "").strip():
        person = person_named(text, among=searchable_by(request))
    else:
        person = _chosen_hit(request, probe).hit.person
    _enrol(request, probe, person, None)


def _enrol_new(request: HttpRequest, probe: Probe) -> HttpResponse | None:
    """Enrol somebody new with the face; return the page with the form if it must be corrected."""
    _require(request, Act.ADD_PERSON, Act.ADD_PICTURES)
    form = NewFaceForm(request.POST)
    if not form.is_valid():
        numbers = _shown_numbers(request, str(probe.answer))
        context = {"form": form, "face": _face(request, probe), "numbers": numbers}
        response = render(request, "enrollment/answer_new.html", context, status=400)
        patch_cache_control(response, private=True, no_store=True)
        return response
    say_mistakable(request, _enrol(request, probe, None, form.cleaned_data))
    return None


def _enrol(
    request: HttpRequest, probe: Probe, person: Person | None, new: dict[str, Any] | None
) -> Person:
    done = inbox.enroll_faces([probe], person, new, FaceImage.Source.PAGE)
    text = gettext("The face is now enrolled as a picture of %(person)s.")
    say_done(
        request,
        text % {"person": done.owner},
        done,
        back=_place(request, str(probe.answer), probe.place),
    )
    return done.owner
