"""OpenAPI descriptions of the endpoints that store nothing, and helpers for all endpoints."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from recognition.api import serializers
from recognition.api.errors import ErrorSerializer


def read_examples(module: str) -> dict[str, Any]:
    """Return the real answers recorded beside a module, by name.

    tests/test_api_examples.py records them.
    """
    recorded = Path(module).with_name("examples.json").read_text("utf-8")
    return defaultdict(dict, json.loads(recorded))


EXAMPLES: Final = read_examples(__file__)
_ERRORS: Final = {
    400: _("Something in the request is wrong; `fields` says what."),
    401: _("An account is needed and none was named."),
    403: _(
        "The account lacks the permission; or another site's page, or a session without its CSRF "
        "token, sent the request."
    ),
    413: _("The request is too large."),
    415: _("The content type is none that the call takes."),
    422: _("No face was found where one is required."),
    429: _(
        "More requests than the server's limits allow; `Retry-After` says how many seconds to wait."
    ),
    500: _("The server failed; its log says why."),
    503: _(
        "SQL, the vector store, the storage of the pictures or the weights of the model cannot be used; "
        "`message` says what mends it."
    ),
}


def errors(*statuses: int) -> dict[int, OpenApiResponse]:
    """Return the error responses with these statuses, each with its example."""
    return {status: failure(f"error_{status}", EXAMPLES, _ERRORS[status]) for status in statuses}


def failure(name: str, examples: dict[str, Any], description: str) -> OpenApiResponse:
    """Return an error response with the example of this name."""
    example = OpenApiExample(name, examples[name])
    return OpenApiResponse(ErrorSerializer, description=description, examples=[example])


def answer(serializer: Any, example: dict[str, Any], description: str = "") -> OpenApiResponse:
    """Return a response with its example, in which embeddings are shortened."""
    return OpenApiResponse(
        serializer, description=description, examples=[OpenApiExample("answer", example)]
    )


def request_example(value: dict[str, Any]) -> OpenApiExample:
    """Return an example of a form request."""
    return OpenApiExample("request", value, request_only=True, media_type="multipart/form-data")


UPLOAD_ERRORS: Final = (400, 401, 403, 413, 415, 429)


def without_trailing_slash(endpoints: list[Any], **kwargs: Any) -> list[Any]:
    """Drop the duplicate URLs with a trailing slash from the document."""
    return [endpoint for endpoint in endpoints if not endpoint[0].endswith("/")]


def with_summaries(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Make the first sentence of each description the summary of the operation."""
    for methods in result["paths"].values():
        for operation in methods.values():
            summary, _dot, rest = operation.pop("description").partition(". ")
            operation["summary"] = summary.removesuffix(".")
            if rest:
                operation["description"] = rest
    return result


def with_common_errors(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Describe the errors that any call can answer, where the call does not describe its own."""
    for methods in result["paths"].values():
        for operation in methods.values():
            responses = operation["responses"]
            statuses = [400, 500, *([503] if "401" in responses else [])]
            statuses += [413, 415] if "requestBody" in operation else []
            schema = {"$ref": "#/components/schemas/Error"}
            for status in statuses:
                error = {"description": str(_ERRORS[status])}
                error["content"] = {"application/json": {"schema": schema}}
                responses.setdefault(str(status), error)
            operation["responses"] = dict(sorted(responses.items()))
    return result


def with_warnings(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Describe the `warnings` that every answer of a call with fields may have: see `FormCall`."""
    warnings = {
        "type": "array",
        "items": {"type": "string"},
        "description": gettext(
            "Sentences on what was passed over, such as fields that the call does not know, and on others "
            "for whom a new person may be taken. Absent when there is nothing to say."
        ),
    }
    schemas = result["components"]["schemas"]
    for methods in result["paths"].values():
        for operation in methods.values():
            if "requestBody" not in operation:
                continue
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    name = content["schema"]["$ref"].rpartition("/")[2]
                    schemas[name]["properties"].setdefault("warnings", warnings)
    return result


health = extend_schema(
    operation_id="health",
    description=_(
        "Whether the service can do its work. Open to all, so that what watches it needs no account."
    ),
    tags=["service"],
    responses=answer(
        serializers.HealthResponseSerializer,
        EXAMPLES["health"],
        _("Answers 200 also when degraded: `status` and `problems` tell."),
    ),
)

models = extend_schema(
    operation_id="models",
    description=_("The models that turn a face into an embedding."),
    tags=["service"],
    responses={
        200: answer(
            serializers.ModelsResponseSerializer,
            EXAMPLES["models"],
        ),
        **errors(401),
    },
)

detect = extend_schema(
    operation_id="detect",
    description=_("Every face in one picture."),
    tags=["faces"],
    request={"multipart/form-data": serializers.DetectFormSerializer},
    responses={
        200: answer(
            serializers.DetectResponseSerializer,
            EXAMPLES["detect"],
            _("A picture without a face is answered 200 with no `faces`."),
        ),
        **errors(*UPLOAD_ERRORS, 503),
    },
    examples=[request_example({"image": "group.jpg", "min_score": 0.95, "min_face_size": 40})],
)

embedding = extend_schema(
    operation_id="embedding",
    description=_("The embedding of the largest face in one picture."),
    tags=["embeddings"],
    request={"multipart/form-data": serializers.EmbeddingFormSerializer},
    responses={
        200: answer(
            serializers.EmbeddingResponseSerializer,
            EXAMPLES["embedding"],
        ),
        **errors(*UPLOAD_ERRORS, 422, 503),
    },
    examples=[request_example({"image": "face.jpg", "model": "mobilenetv3_large"})],
)

embeddings_batch = extend_schema(
    operation_id="embeddings_batch",
    description=_(
        "The embeddings of many pictures. A picture that fails does not stop the others."
    ),
    tags=["embeddings"],
    request={"multipart/form-data": serializers.EmbeddingsBatchFormSerializer},
    responses={
        200: answer(
            serializers.EmbeddingsBatchResponseSerializer,
            EXAMPLES["embeddings_batch"],
        ),
        **errors(*UPLOAD_ERRORS, 503),
        422: answer(
            serializers.EmbeddingsBatchFailureSerializer,
            EXAMPLES["embeddings_batch_422"],
            _("Every picture failed."),
        ),
    },
    examples=[request_example({"images": ["ana.jpg", "notes.jpg"], "model": "mobilenetv3_large"})],
)
