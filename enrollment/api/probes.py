"""Endpoints for search and verification. Each view parses, calls one function and renders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.template.defaultfilters import floatformat
from django.utils.translation import gettext
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment.api import probe_schema as schema
from enrollment.api import probe_serializers as serializers
from enrollment.exceptions import PersonNotComparable, PersonNotFound
from enrollment.gallery import (
    NO_THRESHOLDS,
    SearchHit,
    Weights,
    best_of_person,
    note_search,
    note_verification,
    person_meant,
    search_gallery,
    search_thresholds,
    thresholds_in_force,
    without_verdict,
)
from enrollment.models import FaceEmbedding, Person, ProbeChannel, SearchEntry
from enrollment.probes import (
    FacePicture,
    Remembered,
    Said,
    face_pictures_of,
    keeps,
    remember,
    said_of,
)
from enrollment.web import Act, found_by, is_found, keep_search, searchable_by
from recognition.api.access import may
from recognition.api.views import UploadView, crop_file
from recognition.decision import Thresholds, decide
from recognition.embedding import Crop, embed_crops
from recognition.exceptions import NoFaceDetected, RecognitionError
from recognition.inference import Embeddings
from recognition.neighbours import as_cosine
from recognition.networks import find_weights, load_network


class SearchView(UploadView):
    """Find the enrolled pictures most similar to the largest face of a picture, or to every face."""

    serializer_class = serializers.SearchFormSerializer
    throttle_scope = "search"

    @schema.milvus_search
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        crops, embeddings = _probe(form)
        thresholds = search_thresholds(Weights.of(embeddings))
        options = {
            "threshold": form.get("threshold", -1.0),
            "group_by_person": form["group_by_person"],
            "thresholds": thresholds,
            "persons": searchable_by(request),
        }
        found = search_gallery(embeddings, form["top_k"], **options)
        remembered = remember(embeddings, crops, found, form["top_k"], **options)
        nearest = [each.hits for each in remembered]
        found = [
            without_verdict(hits) if crop and crop.lacks_face else hits
            for crop, hits in zip(crops, found_by(request, nearest, thresholds), strict=True)
        ]
        aside = found_by(request, [each.aside for each in remembered], thresholds)
        note_search(request, SearchEntry.Channel.API, form["model"], found, aside)
        pictures = _pictures(form.get("image"), crops, ProbeChannel.API)
        kept = keep_search(request, ProbeChannel.API, pictures, embeddings, nearest, thresholds)
        faces = [
            {
                "crop": crop,
                "results": hits,
                **_set_aside(request, others, each.said),
                **_decided(hits[0].similarity if hits else -1.0, thresholds, crop),
            }
            for crop, hits, others, each in zip(crops, found, aside, remembered, strict=True)
        ]
        body = {**faces[0], "model": form["model"], "thresholds": thresholds, "answer": kept}
        if form["all_faces"]:
            body["faces"] = faces
        return Response(serializers.SearchResponseSerializer.answer(body, request))


def _set_aside(request: Request, aside: Sequence[SearchHit], said: Said) -> dict[str, Any]:
    """Return the field that tells of persons whom the picture does not show, as somebody said."""
    if not aside:
        return {}
    named = may(request, Act.BROWSE)
    told = [(hit, said[hit.person.pk]) for hit in aside]
    return {
        "set_aside": [
            {"hit": hit, "said": each, **({"by": each.username} if named else {})}
            for hit, each in told
        ]
    }


def _probe(form: dict[str, Any]) -> tuple[list[Crop | None], Embeddings]:
    """Return the crops and their embeddings. A given embedding has the crop None."""
    model = form["model"]
    if "embedding" in form:
        vectors = form["embedding"][None]
        return [None], Embeddings(vectors, model, find_weights(model).fingerprint)
    load_network(model)  # report an unusable model before reading the picture
    crops = crop_file(form["image"], form, all_faces=form["all_faces"])
    return list(crops), embed_crops([crop.pixels for crop in crops], model)


def _pictures(
    file: UploadedFile | None, crops: Sequence[Crop | None], channel: str
) -> list[tuple[Crop | None, FacePicture | None]]:
    """Return each crop of the file with what is to be kept of it; None where nothing is."""
    seen = [crop for crop in crops if crop]
    if file is None or not seen or not keeps(channel):
        return [(crop, None) for crop in crops]
    file.seek(0)
    return list(zip(seen, face_pictures_of(file.read(), seen), strict=True))


def _decided(
    similarity: float, thresholds: Thresholds | None, *crops: Crop | FaceEmbedding | None
) -> dict[str, Any]:
    """Return the decision for the similarity, or None and the reason why there is none."""
    if any(isinstance(crop, Crop) and crop.lacks_face for crop in crops):
        return {"decision": None, "decision_reason": NoFaceDetected.code}
    if thresholds is None:
        return {"decision": None, "decision_reason": NO_THRESHOLDS}
    return {"decision": decide(similarity, thresholds)}


class VerifyView(UploadView):
    """Decide whether two pictures, or a picture and an enrolled person, show the same person."""

    serializer_class = serializers.VerifyFormSerializer
    throttle_scope = "search"

    @schema.verify
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        load_network(form["model"])  # report an unusable model before reading the pictures
        source = _crop("source_image", form)
        target: Crop | FaceEmbedding | None
        try:
            target, similarity, probe = _compare(source, form, searchable_by(request))
        except (PersonNotFound, PersonNotComparable):
            if may(request, Act.BROWSE):
                raise
            target, similarity, probe = None, -1.0, None
        weights = Weights.of(probe) if probe else Weights.in_use(form["model"])
        limits = thresholds_in_force(weights)
        verdict = _verdict(similarity, limits, form, source, target)
        kept, aside = None, {}
        if isinstance(target, FaceEmbedding) and probe:
            picture, decision = target.face_image, verdict["decision"]
            note_verification(request, form["model"], picture.person, similarity, decision)
            pictures = _pictures(form["source_image"], [source], ProbeChannel.VERIFY)
            hits = [SearchHit(target.pk, similarity, decision, picture)]
            kept = keep_search(request, ProbeChannel.VERIFY, pictures, probe, [hits], limits)
            (said,) = said_of([source])
            aside = _set_aside(request, Remembered.of(hits, said).aside, said)
        if "person_id" in form and not self._may_know(similarity, limits, source):
            verdict, target, kept, aside = _nobody_alike(limits, form, source), None, None, {}
        body = {
            **verdict,
            **aside,
            "model": form["model"],
            "use_face_detection": form["use_face_detection"],
            "source": {"crop": source},
            "target": {"crop": target},
            "answer": kept,
        }
        return Response(serializers.VerifyResponseSerializer.answer(body, request))

    def _may_know(self, similarity: float, limits: Thresholds | None, source: Crop) -> bool:
        """Return whether the user may be told anything of the person with the id.

        Person ids can be guessed, so users who may not browse learn nothing of them, not even that they
        exist, unless the faces are similar.
        """
        if may(self.request, Act.BROWSE):
            return True
        return not source.lacks_face and is_found(similarity, limits)


def _compare(
    source: Crop, form: dict[str, Any], persons: QuerySet[Person] | None
) -> tuple[Crop | FaceEmbedding, float, Embeddings]:
    """Return the face or embedding that the face was compared with, the cosine, and the vectors."""
    if "person_id" in form:
        # Look the person up last, so that the time does not tell a known id from an unknown one.
        probe = embed_crops([source.pixels], form["model"])
        (best,) = best_of_person(probe, person_meant(form["person_id"], among=persons))
        return *best, probe
    target = _crop("target_image", form)
    probe = embed_crops([source.pixels, target.pixels], form["model"])
    first, second = probe.vectors
    return target, as_cosine(first @ second), probe


def _crop(field: str, form: dict[str, Any]) -> Crop:
    """Return the crop of the picture in this form field; an error names the field."""
    file: UploadedFile = form[field]
    try:
        (crop,) = crop_file(file, form)
    except RecognitionError as error:
        raise type(error)(f"{field}: {error.api_message}") from error
    return crop


def _nobody_alike(
    thresholds: Thresholds | None, form: dict[str, Any], source: Crop
) -> dict[str, Any]:
    """Return the verdict for users who may not browse, for an unknown id and for an unlike person."""
    decided = _decided(-1.0, thresholds, source)
    message = gettext(
        "Not known to be the same person: nobody is enrolled under this id whom the picture resembles."
    )
    return {
        "verified": None if decided["decision"] is None else False,
        "similarity": None,
        "threshold": form.get("threshold", thresholds and thresholds.match.similarity),
        **decided,
        "message": message,
    }


def _verdict(
    similarity: float,
    thresholds: Thresholds | None,
    form: dict[str, Any],
    *crops: Crop | FaceEmbedding | None,
) -> dict[str, Any]:
    threshold = form.get("threshold", thresholds and thresholds.match.similarity)
    decided = _decided(similarity, thresholds, *crops)
    if decided.get("decision_reason") == NoFaceDetected.code:
        message = gettext(
            "No face was found in at least one of the pictures, so there is no verdict: the similarity "
            "of %(similarity)s says nothing of people."
        )
        verified = None
    else:
        verified = None if threshold is None else similarity >= threshold
        message = _in_words(verified)
    numbers = {"similarity": similarity, "threshold": threshold}
    written = {name: floatformat(number, 4) for name, number in numbers.items()}
    return {"verified": verified, **numbers, **decided, "message": message % written}


def _in_words(verified: bool | None) -> str:
    if verified is None:
        return gettext(
            "The similarity is %(similarity)s. From which one on two faces are one person's was "
            "not measured for these weights, so there is no verdict. Send a threshold, or have the "
            "administrator run 'manage.py calibrate --save' or 'manage.py evaluate --save'."
        )
    if verified:
        return gettext(
            "The same person: the similarity is %(similarity)s, and at least %(threshold)s is "
            "expected."
        )
    return gettext(
        "Not known to be the same person: the similarity is %(similarity)s, and at least "
        "%(threshold)s is expected."
    )
