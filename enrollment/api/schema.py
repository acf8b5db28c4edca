"""What the OpenAPI document says of the calls about the gallery."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from enrollment.api import serializers
from recognition.api.schema import FACE, UPLOAD_ERRORS, answer, errors, request_example
from recognition.api.serializers import ErrorSerializer
from recognition.vector_store import COLLECTION

_INSERTED = {
    "filename": "ana-1.jpg",
    "success": True,
    "id": 41,
    "face_detected": True,
    "face": FACE,
    "stored": True,
    "searchable": True,
    "warnings": [
        {
            "code": "looks_like_someone_else",
            "message": "The face looks like somebody else who is enrolled: Bia (987.654.321-00) "
            "(similarity 0.71; less than 0.55 was expected). Check whom it shows.",
            "person_id": "987.654.321-00",
            "similarity": 0.7102,
        }
    ],
}
_STORED = _INSERTED | {"searchable": False, "warnings": []}
_REFUSED = {
    "filename": "empty.jpg",
    "success": False,
    "error": "invalid_image",
    "message": "The file is empty. Send the bytes of a picture.",
    "stored": False,
    "searchable": False,
}


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description=_(
        "Any text of up to 255 characters, new for each request. Sent again with the same "
        "request within 24 hours, it stores nothing twice and gets the first answer."
    ),
)

milvus_insert_responses = {
    200: answer(
        serializers.InsertResponseSerializer,
        {
            "success": True,
            "message": "1 embedding inserted successfully",
            "inserted_count": 1,
            "collection": COLLECTION,
            "model": "mobilenetv3_large",
            "person_id": "123.456.789-09",
            "results": [_INSERTED, _REFUSED],
        },
    ),
    202: answer(
        serializers.InsertAcceptedSerializer,
        {
            "success": True,
            "message": "1 picture is stored; a search finds it soon. Ask the status_url whether it does.",
            "status_url": "/api/persons/123.456.789-09/images",
            "inserted_count": 0,
            "collection": COLLECTION,
            "model": "mobilenetv3_large",
            "person_id": "123.456.789-09",
            "results": [_STORED],
        },
        _(
            "With `async=true`: the pictures are stored, and are searchable when the work in the background "
            "is done."
        ),
    ),
    **errors(*UPLOAD_ERRORS),
    409: OpenApiResponse(
        ErrorSerializer,
        description=_(
            "The request with this `Idempotency-Key` is not finished; see `Retry-After`."
        ),
        examples=[
            OpenApiExample(
                "request_in_progress",
                {
                    "success": False,
                    "error": "request_in_progress",
                    "message": "The request with this Idempotency-Key is still being carried out. "
                    "Wait, then send it again to get its answer.",
                },
            )
        ],
    ),
    422: answer(
        serializers.InsertFailureSerializer,
        {
            "success": False,
            "error": "all_images_failed",
            "message": "The picture could not be used: The file is empty. "
            "Send the bytes of a picture.",
            "inserted_count": 0,
            "collection": COLLECTION,
            "model": "mobilenetv3_large",
            "person_id": "123.456.789-09",
            "results": [_REFUSED],
        },
        _(
            "Every picture was refused; nothing was stored. Or `idempotency_key_reused`: the key was "
            "sent before with another request (only `error` and `message`)."
        ),
    ),
    503: answer(
        serializers.InsertFailureSerializer,
        {
            "success": False,
            "error": "not_searchable_yet",
            "message": "1 stored picture cannot be found by a search yet. Do not send it again: "
            "the server tries again by itself, and 'manage.py reindex' does so at once.",
            "inserted_count": 0,
            "collection": COLLECTION,
            "model": "mobilenetv3_large",
            "person_id": "123.456.789-09",
            "results": [_INSERTED | {"success": False, "searchable": False}],
        },
        _(
            "The model has no weights or the vector store does not answer: nothing was stored "
            "(only `error` and `message`). Or it failed on the way: then `results` says which "
            "pictures are stored and not to be sent again."
        ),
    ),
}

milvus_insert = extend_schema(
    operation_id="milvus_insert",
    description=_(
        "Adds pictures to a person, who is made when new. A search finds them once this has answered."
    ),
    tags=["gallery"],
    request={"multipart/form-data": serializers.InsertFormSerializer},
    parameters=[IDEMPOTENCY_KEY],
    responses=milvus_insert_responses,
    examples=[
        request_example(
            {
                "images": ["ana-1.jpg", "empty.jpg"],
                "person_id": "123.456.789-09",
                "image_paths": '["/photos/ana-1.jpg", "/photos/empty.jpg"]',
                "model": "mobilenetv3_large",
            }
        )
    ],
)

milvus_stats = extend_schema(
    operation_id="milvus_stats",
    description=_("How much the vector collection holds."),
    tags=["gallery"],
    responses={
        200: answer(
            serializers.StatsResponseSerializer,
            {"success": True, "collection": COLLECTION, "row_count": 404},
        ),
        **errors(401, 503),
    },
)
