"""Endpoints of the inbox and of feedback. Each view parses, calls one function and renders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment import inbox, probes
from enrollment.api import inbox_schema as schema
from enrollment.api import inbox_serializers as serializers
from enrollment.api.filters import read_query
from enrollment.api.pagination import PageNumbers
from enrollment.api.persons import PersonCall
from enrollment.gallery import Weights, best_of_person, person_meant, search_thresholds
from enrollment.inbox import Action, Card, Filters
from enrollment.models import Person, Probe, ProbeChannel
from enrollment.probes import Word
from enrollment.web import Act, acts_to_settle, searchable_by
from recognition.api.access import require
from recognition.api.views import crop_file
from recognition.decision import decide
from recognition.embedding import embed_crops
from recognition.inference import Embeddings


@dataclass(frozen=True, slots=True)
class Waiting:
    """The cards for a paginator, which counts them and takes a slice."""

    filters: Filters
    persons: QuerySet[Person] | None

    def count(self) -> int:
        return inbox.count(self.filters)

    def __getitem__(self, place: slice) -> list[Card]:
        first, stop = place.start or 0, place.stop
        return inbox.cards(self.filters, limit=stop - first, offset=first, persons=self.persons)


class InboxView(PersonCall):
    """List what needs a person, what settles most first."""

    serializer_class = serializers.SettleFormSerializer
    permissions = {"GET": Act.BROWSE}

    @schema.inbox_list
    def get(self, request: Request) -> Response:
        given = read_query(request, serializers.InboxQuerySerializer)
        person = person_meant(given["person_id"]).pk if given.get("person_id") else None
        filters = Filters(given.get("kind", ""), person, given.get("day"), given.get("who", ""))
        pages = PageNumbers()
        pages.paginate_queryset(Waiting(filters, searchable_by(request)), request)
        return Response(serializers.InboxPageSerializer.answer(pages, request))


class InboxCardView(PersonCall):
    """Read one card, and settle it."""

    serializer_class = serializers.SettleFormSerializer
    permissions = {"GET": Act.BROWSE, "POST": Act.BROWSE}

    @schema.inbox_read
    def get(self, request: Request, key: str) -> Response:
        card = inbox.card(key, searchable_by(request))
        return Response(serializers.CardResponseSerializer.answer(card, request))

    @schema.inbox_settle
    def post(self, request: Request, key: str) -> Response:
        form = dict(self.read_form(request))
        action, whole = form.pop("action"), form.pop("whole_group")
        for act in acts_to_settle(key, action):
            require(request, act)
        whom: dict[str, Any] = {}
        if action == Action.NEW:
            whom["new"] = form
        elif form.get("person_id"):
            whom["person"] = person_meant(form["person_id"])
        settled = inbox.settle([key], action, source=ProbeChannel.API, whole_group=whole, **whom)
        body = {
            "settled": settled.count,
            "pictures": settled.pictures,
            "person_id": settled.person.person_id if settled.person else None,
            "undo": next(iter(settled.undo), None),
        }
        return Response(serializers.SettledSerializer.answer(body))


class InboxFaceView(PersonCall):
    """Serve the face of a card as a small JPEG."""

    permissions = {"GET": Act.BROWSE}

    @schema.inbox_face
    def get(self, request: Request, key: str) -> HttpResponse:
        response = HttpResponse(inbox.face_of(key), content_type="image/jpeg")
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


class FeedbackView(PersonCall):
    """Remember whether a searched face is somebody's, or forget what was said of it."""

    serializer_class = serializers.FeedbackFormSerializer
    permissions = {"POST": Act.CHANGE_PICTURES}

    @schema.feedback
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        person = person_meant(form["person_id"], among=searchable_by(request))
        probe, vectors = _searched(form)
        ((best, similarity),) = best_of_person(vectors, person)
        own = probe.person_id == person.pk and probe.decision
        weights = Weights.of(vectors)
        word = Word(
            probe,
            person,
            form["verdict"],
            similarity,
            face_image=best.face_image,
            decision=own or decide(similarity, search_thresholds(weights)),
            weights=weights,
        )
        if word.verdict == probes.WITHDRAWN:
            probes.take_back_feedback(word.probe.picture_hash, person)
        else:
            probes.give_feedback([word])
        return Response(serializers.FeedbackResponseSerializer.answer(_told(word)))


def _searched(form: dict[str, Any]) -> tuple[Probe, Embeddings]:
    """Return the face of a kept answer, or of the picture in the form, with its vector."""
    if "answer_number" in form:
        probe = probes.probe_of(form["answer_number"], form["face"])
        return probe, probes.embeddings_of(probe)
    (crop,) = crop_file(form["image"], form | {"use_face_detection": True, "require_face": True})
    vectors = embed_crops([crop.pixels], form["model"])
    probe = Probe(
        picture_hash=probes.hash_of_face(crop.pixels),
        model=vectors.model,
        fingerprint=vectors.fingerprint,
        channel=ProbeChannel.API,
    )
    return probe, vectors


def _told(word: Word) -> dict[str, Any]:
    return {
        "person_id": word.person.person_id,
        "verdict": word.verdict,
        "similarity": word.similarity,
        "decision": word.decision,
    }
