"""Calls about pictures and models: they parse, call one function, and present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import ngettext
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from recognition.api import schema, serializers
from recognition.api.forms import FormCall
from recognition.embedding import (
    Crop,
    CropOptions,
    crop_all_faces_of_upload,
    crop_upload,
    embed_crops,
    embed_uploads,
)
from recognition.exceptions import RecognitionError
from recognition.health import examine
from recognition.networks import NETWORKS, load_network


def root(request: HttpRequest) -> HttpResponse:
    """No call, but where people who look for the calls begin."""
    if request.get_preferred_type(["application/json", "text/html"]) != "text/html":
        raise Http404
    return redirect("api-docs")


class UploadView(FormCall):
    """A call that reads a form with pictures; `serializer_class` is also what a browser fills in."""

    parser_classes = [MultiPartParser, FormParser]
    throttle_scope: str | dict[str, str] = "embed"


def crop_options(form: dict[str, Any]) -> CropOptions:
    """Which faces count, as the form asks for."""
    return {
        "use_face_detection": form["use_face_detection"],
        "require_face": form["require_face"],
        "min_score": form.get("min_score"),
        "min_face_size": form.get("min_face_size"),
    }


def crop_file(file: UploadedFile, form: dict[str, Any], *, all_faces: bool = False) -> list[Crop]:
    """What is cut out of one file of the form, largest first; raises what is wrong with it."""
    options = crop_options(form) | {"all_faces": all_faces}
    return crop_upload(file.read(), **options)


def every_image_failed(results: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The error of a request of which nothing came; what was wrong stands with each file."""
    message = ngettext(
        "The picture could not be used: %(reason)s",
        "None of the %(count)d pictures could be used. The first: %(reason)s",
        len(results),
    ) % {"count": len(results), "reason": results[0]["error"].message}
    return {"error": "all_images_failed", "message": message}


class HealthView(APIView):
    """Whether the service can do its work. Open to all, so that what watches it needs no account."""

    authentication_classes = ()  # also when the database of accounts is away
    permission_classes = [AllowAny]

    @schema.health
    def get(self, request: Request) -> Response:
        return Response(serializers.HealthResponseSerializer.answer(examine()))


class ModelsView(APIView):
    """The models that turn a face into an embedding."""

    @schema.models
    def get(self, request: Request) -> Response:
        models = {"models": NETWORKS.values()}
        return Response(serializers.ModelsResponseSerializer.answer(models))


class DetectView(UploadView):
    """Every face in one picture."""

    serializer_class = serializers.DetectFormSerializer

    @schema.detect
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        image, crops = crop_all_faces_of_upload(
            form["image"].read(),
            min_score=form.get("min_score"),
            min_face_size=form.get("min_face_size"),
        )
        return Response(
            serializers.DetectResponseSerializer.answer({"image": image, "crops": crops})
        )


class EmbeddingView(UploadView):
    """The embedding of the largest face in one picture."""

    serializer_class = serializers.EmbeddingFormSerializer

    @schema.embedding
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        load_network(form["model"])  # a model that cannot answer says so before anything else
        (crop,) = crop_file(form["image"], form)
        embeddings = embed_crops([crop.pixels], form["model"])
        result = {"model": embeddings.model, "embedding": embeddings.vectors[0], "crop": crop}
        return Response(serializers.EmbeddingResponseSerializer.answer(result))


class EmbeddingsBatchView(UploadView):
    """The embeddings of many pictures. A picture that fails does not stop the others."""

    serializer_class = serializers.EmbeddingsBatchFormSerializer

    @schema.embeddings_batch
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        contents = (file.read() for file in form["images"])
        outcomes, embeddings = embed_uploads(contents, form["model"], **crop_options(form))
        names = [file.name for file in form["images"]]
        batch = {
            "model": embeddings.model,
            "results": list(_batch_results(names, outcomes, embeddings.vectors)),
        }
        if not len(embeddings.vectors):
            failure = batch | every_image_failed(batch["results"])
            body = serializers.EmbeddingsBatchFailureSerializer.answer(failure)
            return Response(body, status=HTTPStatus.UNPROCESSABLE_ENTITY)
        return Response(serializers.EmbeddingsBatchResponseSerializer.answer(batch))


def _batch_results(
    names: Iterable[str], outcomes: Iterable[Crop | RecognitionError], vectors: np.ndarray
) -> Iterator[dict[str, Any]]:
    """One result for each file; `vectors` (N×512 float32) are those of the N crops, in order."""
    remaining = iter(vectors)
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, RecognitionError):
            yield {"filename": name, "error": outcome}
        else:
            yield {"filename": name, "crop": outcome, "embedding": next(remaining)}
