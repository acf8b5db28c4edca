"""Endpoints for pictures and models. Each view parses, calls one function and renders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import ngettext
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import FormParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from recognition.api import schema, serializers
from recognition.api.forms import FormCall
from recognition.api.parsers import MultiPartParser
from recognition.api.renderers import is_browser
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
from recognition.liveness import load_liveness
from recognition.networks import NETWORKS, load_network


class RootView(APIView):
    """Redirect browsers from the API's root to its documentation; list the calls for other clients."""

    authentication_classes = ()  # as public as the documentation
    permission_classes = [AllowAny]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        if is_browser(request):
            return redirect("api-docs")
        generator: Any = SchemaGenerator  # untyped
        paths = generator().get_schema(public=True)["paths"]
        calls = [
            {"method": method.upper(), "path": path, "summary": operation["summary"]}
            for path, methods in paths.items()
            for method, operation in methods.items()
        ]
        addresses = {
            name: request.build_absolute_uri(reverse(f"api-{name}")) for name in ("docs", "schema")
        }
        return Response({"success": True, **addresses, "calls": calls})


class UploadView(FormCall):
    """A view that reads a form with pictures through its `serializer_class`."""

    parser_classes = [MultiPartParser, FormParser]
    throttle_scope: str | dict[str, str] = "embed"


def crop_options(form: dict[str, Any]) -> CropOptions:
    """Return the options of the form that choose and measure faces. Raise `LivenessUnavailable`."""
    if form.get("check_liveness"):
        load_liveness()  # report missing networks before reading the pictures
    return {
        "use_face_detection": form["use_face_detection"],
        "require_face": form["require_face"],
        "min_score": form.get("min_score"),
        "min_face_size": form.get("min_face_size"),
        "check_liveness": form.get("check_liveness", False),
    }


def crop_file(file: UploadedFile, form: dict[str, Any], *, all_faces: bool = False) -> list[Crop]:
    """Return the crops of an uploaded file, largest face first. Raise what is wrong with the file."""
    options = crop_options(form) | {"all_faces": all_faces}
    return crop_upload(file.read(), **options)


def every_image_failed(results: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the error code and message for a request whose pictures all failed."""
    message = ngettext(
        "The picture could not be used: %(reason)s",
        "None of the %(count)d pictures could be used. The first: %(reason)s",
        len(results),
    ) % {"count": len(results), "reason": results[0]["error"].api_message}
    return {"error": "all_images_failed", "message": message}


class HealthView(APIView):
    """Report the health of the service. Needs no account, so that any monitor can ask."""

    authentication_classes = ()  # so that it answers while the SQL database is down
    permission_classes = [AllowAny]

    @schema.health
    def get(self, request: Request) -> Response:
        return Response(serializers.HealthResponseSerializer.answer(examine()))


class ModelsView(APIView):
    """List the models that compute embeddings."""

    @schema.models
    def get(self, request: Request) -> Response:
        models = {"models": NETWORKS.values()}
        return Response(serializers.ModelsResponseSerializer.answer(models))


class DetectView(UploadView):
    """Find every face in a picture."""

    serializer_class = serializers.DetectFormSerializer

    @schema.detect
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        image, crops = crop_all_faces_of_upload(
            form["image"].read(),
            min_score=form.get("min_score"),
            min_face_size=form.get("min_face_size"),
            check_liveness=form["check_liveness"],
        )
        return Response(
            serializers.DetectResponseSerializer.answer({"image": image, "crops": crops})
        )


class EmbeddingView(UploadView):
    """Return the embedding of the largest face in a picture."""

    serializer_class = serializers.EmbeddingFormSerializer

    @schema.embedding
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        load_network(form["model"])  # report an unusable model before reading the picture
        (crop,) = crop_file(form["image"], form)
        embeddings = embed_crops([crop.pixels], form["model"])
        result = {"model": embeddings.model, "embedding": embeddings.vectors[0], "crop": crop}
        return Response(serializers.EmbeddingResponseSerializer.answer(result))


class EmbeddingsBatchView(UploadView):
    """Return the embeddings of many pictures. A picture that fails does not stop the others."""

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
    """Yield one result for each file; `vectors` (N×512 float32) belong to the N crops, in order."""
    remaining = iter(vectors)
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, RecognitionError):
            yield {"filename": name, "error": outcome}
        else:
            yield {"filename": name, "crop": outcome, "embedding": next(remaining)}
