"""Calls about pictures and models: they parse, call one function, and present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import ngettext
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from recognition.api import schema, serializers
from recognition.api.errors import error_body
from recognition.api.fields import default_model
from recognition.embedding import (
    CropOptions,
    CroppedUpload,
    FaceCrop,
    crop_all_faces_of_upload,
    crop_uploads,
    embed_crops,
    embed_uploads,
)
from recognition.exceptions import RecognitionError
from recognition.health import examine
from recognition.networks import (
    NETWORKS,
    has_weights,
    load_network,
    loaded_names,
    usable_names,
)
from recognition.networks.registry import EMBEDDING_DIM


def root(request: HttpRequest) -> HttpResponse:
    """No call, but where people who look for the calls begin."""
    if request.get_preferred_type(["application/json", "text/html"]) != "text/html":
        raise Http404
    return redirect("api-docs")


class UploadView(APIView):
    """A call that reads a form with pictures; `serializer_class` is also what a browser fills in."""

    parser_classes = [MultiPartParser, FormParser]
    throttle_scope: str | dict[str, str] = "embed"

    def read_form(self, request: Request) -> dict[str, Any]:
        """The checked fields of the form; `ValidationError` otherwise."""
        form = self.serializer_class(data=request.data)
        form.is_valid(raise_exception=True)
        return form.validated_data


def crop_options(form: dict[str, Any]) -> CropOptions:
    """Which faces count, as the form asks for."""
    return {
        "detect": form["use_face_detection"],
        "require_face": form["require_face"],
        "min_score": form.get("min_score"),
        "min_size": form.get("min_face_size"),
    }


def crop_file(
    file: UploadedFile, form: dict[str, Any], *, all_faces: bool = False
) -> CroppedUpload:
    """What is cut out of one file of the form; raises what is wrong with it."""
    options = crop_options(form) | {"all_faces": all_faces}
    (outcome,) = crop_uploads([(file.name, file.read())], **options)
    if isinstance(outcome, RecognitionError):
        raise outcome
    return outcome


def refused(filename: str, error: RecognitionError) -> dict[str, Any]:
    """The result of a file that failed."""
    return {"filename": filename, "success": False, "error": error.code, "message": error.message}


def every_image_failed(results: Sequence[dict[str, Any]], **extra: Any) -> Response:
    """A request of which nothing came is no success; what was wrong stands with each file."""
    message = ngettext(
        "The picture could not be used: %(reason)s",
        "None of the %(count)d pictures could be used. The first: %(reason)s",
        len(results),
    ) % {"count": len(results), "reason": results[0]["message"]}
    body = error_body("all_images_failed", message, **extra, results=results)
    return Response(body, status=HTTPStatus.UNPROCESSABLE_ENTITY)


class HealthView(APIView):
    """Whether the service can do its work. Open to all, so that what watches it needs no account."""

    authentication_classes = ()  # also when the database of accounts is away
    permission_classes = [AllowAny]

    @schema.health
    def get(self, request: Request) -> Response:
        health = examine()
        return Response(
            {
                "status": "degraded" if health.problems else "healthy",
                "models_loaded": loaded_names(),
                "models_available": usable_names(),
                "milvus_connected": health.milvus_connected,
                "device": health.device,
                "problems": health.problems,
                "timestamp": timezone.now(),
            }
        )


class ModelsView(APIView):
    """The models that turn a face into an embedding."""

    @schema.models
    def get(self, request: Request) -> Response:
        loaded = loaded_names()
        models = [
            {
                "name": network.name,
                "embedding_dim": EMBEDDING_DIM,
                "description": str(network.description),
                "loaded": network.name in loaded,
                "weight_exists": has_weights(network.name),
            }
            for network in NETWORKS.values()
        ]
        return Response({"models": models, "default": default_model()})


class DetectView(UploadView):
    """Every face in one picture."""

    serializer_class = serializers.DetectFormSerializer

    @schema.detect
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        upload = crop_all_faces_of_upload(
            form["image"].read(),
            min_score=form.get("min_score"),
            min_size=form.get("min_face_size"),
        )
        return Response(
            {
                "success": True,
                "faces": [crop.describe()["face"] for crop in upload.crops],
                "total": len(upload.crops),
                "width": upload.image.width,
                "height": upload.image.height,
            }
        )


class EmbeddingView(UploadView):
    """The embedding of the largest face in one picture."""

    serializer_class = serializers.EmbeddingFormSerializer

    @schema.embedding
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        load_network(form["model"])  # a model that cannot answer says so before anything else
        crop = crop_file(form["image"], form).crop
        embeddings = embed_crops([crop.pixels], form["model"])
        return Response(
            {
                "success": True,
                "model": embeddings.model,
                "embedding": embeddings.vectors[0].tolist(),
                "embedding_dim": EMBEDDING_DIM,
                **crop.describe(),
            }
        )


class EmbeddingsBatchView(UploadView):
    """The embeddings of many pictures. A picture that fails does not stop the others."""

    serializer_class = serializers.EmbeddingsBatchFormSerializer

    @schema.embeddings_batch
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        contents = ((file.name, file.read()) for file in form["images"])
        outcomes, embeddings = embed_uploads(contents, form["model"], **crop_options(form))
        names = [file.name for file in form["images"]]
        results = list(_batch_results(names, outcomes, embeddings.vectors))
        body = {"model": embeddings.model, **_counts(results)}
        if not body["successful"]:
            return every_image_failed(results, **body)
        return Response({"success": True, **body, "results": results})


def _batch_results(
    names: Iterable[str], outcomes: Iterable[FaceCrop | RecognitionError], vectors: np.ndarray
) -> Iterator[dict[str, Any]]:
    """One result for each file; `vectors` (N×512 float32) are those of the N crops, in order."""
    remaining = iter(vectors)
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, RecognitionError):
            yield refused(name, outcome)
            continue
        embedding = next(remaining).tolist()
        yield {"filename": name, "embedding": embedding, "success": True, **outcome.describe()}


def _counts(results: Sequence[dict[str, Any]]) -> dict[str, int]:
    successful = sum(result["success"] for result in results)
    return {
        "total": len(results),
        "successful": successful,
        "failed": len(results) - successful,
    }
