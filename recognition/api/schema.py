"""What the OpenAPI document says beyond what the serializers do: names, errors and examples."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from recognition.api import serializers

SHORT_VECTOR: Final = [0.0312, -0.0147, 0.0581]
QUALITY: Final = {
    "score": 0.9998,
    "width": 124.5,
    "eye_distance": 56.3,
    "sharpness": 118.4,
    "brightness": 131.0,
    "contrast": 41.2,
    "yaw": 44.9,
    "roll": -1.4,
    "faces": 1,
    "share": 1.0,
    "reasons": [
        {
            "code": "turned_away",
            "message": "The face is turned to the side by about 45 degrees; at most 40 are "
            "expected. Send a picture in which the face looks into the camera.",
        }
    ],
}
FACE: Final = {
    "box": [61.4, 66.1, 124.5, 157.7],
    "score": 0.9998,
    "landmarks": [
        [93.8, 127.7],
        [150.1, 126.3],
        [121.2, 163.9],
        [98.0, 190.2],
        [146.4, 189.5],
    ],
    "rotation": 0,
    "quality": QUALITY,
}

_ERRORS: Final = {
    400: (
        _("Something in the request is wrong; `fields` says what."),
        {
            "success": False,
            "error": "unknown_model",
            "message": "model: There is no model 'resnet'. Known models: mobilenetv3_large, "
            "cosface_resnet50.",
            "fields": {
                "model": [
                    "There is no model 'resnet'. Known models: mobilenetv3_large, cosface_resnet50."
                ]
            },
        },
    ),
    401: (
        _("An account is needed and none was named."),
        {
            "success": False,
            "error": "not_authenticated",
            "message": "This needs an account: send the header 'Authorization: Token <your "
            "token>' (tokens are made in the admin), or log in.",
        },
    ),
    403: (
        _(
            "The account lacks the permission; or another site's page, or a session without its CSRF "
            "token, sent the request."
        ),
        {
            "success": False,
            "error": "permission_denied",
            "message": "CSRF Failed: CSRF token missing.",
        },
    ),
    413: (
        _("The request is too large."),
        {
            "success": False,
            "error": "request_too_large",
            "message": "The request is larger than the 50 MB that one may have. "
            "Send fewer or smaller pictures at a time.",
        },
    ),
    415: (
        _("The content type is not multipart/form-data."),
        {
            "success": False,
            "error": "unsupported_media_type",
            "message": "The request's content type is 'application/json'; expected is "
            "multipart/form-data, application/x-www-form-urlencoded. Send the pictures as "
            "multipart/form-data (curl: -F image=@face.jpg).",
        },
    ),
    422: (
        _("No face was found where one is required."),
        {
            "success": False,
            "error": "no_face_detected",
            "message": "No face was found in the picture, and one is required. Send a picture in "
            "which a face is seen from the front, well lit and at least 40 pixels wide.",
        },
    ),
    429: (
        _(
            "More requests than the server's limits allow; `Retry-After` says how many seconds to wait."
        ),
        {
            "success": False,
            "error": "throttled",
            "message": "Too many requests of this kind were made. Wait 42 seconds, then go on.",
        },
    ),
    503: (
        _("The model has no usable weights, or the vector store does not answer."),
        {
            "success": False,
            "error": "weights_unavailable",
            "message": "The model 'cosface_resnet50' has no weights on this server. Put its "
            "checkpoint into the weights folder as resnet50_cosface.ckpt or "
            "resnet50_cosface.safetensors, then run 'manage.py reindex'.",
        },
    ),
}


def errors(*statuses: int) -> dict[int, OpenApiResponse]:
    """The error answers of an operation, each with its example."""
    return {
        status: OpenApiResponse(
            serializers.ErrorSerializer,
            description=_ERRORS[status][0],
            examples=[OpenApiExample(f"error_{status}", _ERRORS[status][1])],
        )
        for status in statuses
    }


def answer(serializer: Any, example: dict[str, Any], description: str = "") -> OpenApiResponse:
    """An answer with its example; embeddings are shortened in it."""
    return OpenApiResponse(
        serializer, description=description, examples=[OpenApiExample("answer", example)]
    )


def request_example(value: dict[str, Any]) -> OpenApiExample:
    """What the fields of a form can hold."""
    return OpenApiExample("request", value, request_only=True, media_type="multipart/form-data")


UPLOAD_ERRORS: Final = (400, 401, 403, 413, 415, 429)


def without_trailing_slash(endpoints: list[Any], **kwargs: Any) -> list[Any]:
    """Every call answers with and without trailing slash; the document lists it once."""
    return [endpoint for endpoint in endpoints if not endpoint[0].endswith("/")]


def with_summaries(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """The first sentence of what a call does stands beside its address, the others below it."""
    for methods in result["paths"].values():
        for operation in methods.values():
            summary, _dot, rest = operation.pop("description").partition(". ")
            operation["summary"] = summary.removesuffix(".")
            if rest:
                operation["description"] = rest
    return result


health = extend_schema(
    operation_id="health",
    description=_(
        "Whether the service can do its work. Open to all, so that what watches it needs no account."
    ),
    tags=["service"],
    responses=answer(
        serializers.HealthResponseSerializer,
        {
            "status": "healthy",
            "models_loaded": ["mobilenetv3_large"],
            "models_available": ["mobilenetv3_large"],
            "milvus_connected": True,
            "device": "cpu",
            "problems": [],
            "timestamp": "2026-11-23T23:45:00Z",
        },
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
            {
                "models": [
                    {
                        "name": "mobilenetv3_large",
                        "embedding_dim": 512,
                        "description": "MobileNetV3-Large: small and fast, for processors "
                        "without a GPU",
                        "loaded": True,
                        "weight_exists": True,
                    }
                ],
                "default": "mobilenetv3_large",
            },
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
            {
                "success": True,
                "faces": [FACE | {"quality": QUALITY | {"faces": None, "share": None}}],
                "total": 1,
                "width": 640,
                "height": 480,
            },
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
            {
                "success": True,
                "model": "mobilenetv3_large",
                "embedding": SHORT_VECTOR,
                "embedding_dim": 512,
                "face_detected": True,
                "face": FACE,
            },
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
            {
                "success": True,
                "model": "mobilenetv3_large",
                "results": [
                    {
                        "filename": "ana.jpg",
                        "embedding": SHORT_VECTOR,
                        "success": True,
                        "face_detected": True,
                        "face": FACE,
                    },
                    {
                        "filename": "notes.jpg",
                        "success": False,
                        "error": "invalid_image",
                        "message": "The file is of type HTML; a picture in one of these "
                        "formats was expected: JPEG, PNG, WebP, HEIC, AVIF, BMP, TIFF. Convert it to JPEG or "
                        "PNG and send it again.",
                    },
                ],
                "total": 2,
                "successful": 1,
                "failed": 1,
            },
        ),
        **errors(*UPLOAD_ERRORS, 503),
        422: answer(
            serializers.EmbeddingsBatchFailureSerializer,
            {
                "success": False,
                "error": "all_images_failed",
                "message": "The picture could not be used: The file is empty. "
                "Send the bytes of a picture.",
                "model": "mobilenetv3_large",
                "total": 1,
                "successful": 0,
                "failed": 1,
                "results": [
                    {
                        "filename": "empty.jpg",
                        "success": False,
                        "error": "invalid_image",
                        "message": "The file is empty. Send the bytes of a picture.",
                    }
                ],
            },
            _("Every picture failed."),
        ),
    },
    examples=[request_example({"images": ["ana.jpg", "notes.jpg"], "model": "mobilenetv3_large"})],
)
