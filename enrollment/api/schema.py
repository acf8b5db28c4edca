"""OpenAPI descriptions of the insert and statistics endpoints, and parts that others share."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from enrollment.api import serializers
from recognition.api.schema import (
    UPLOAD_ERRORS,
    answer,
    errors,
    failure,
    read_examples,
    request_example,
)

EXAMPLES: Final = read_examples(__file__)

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
        EXAMPLES["milvus_insert"],
    ),
    202: answer(
        serializers.InsertAcceptedSerializer,
        EXAMPLES["milvus_insert_202"],
        _(
            "With `async=true`: the pictures are stored, and are searchable when the work in the background "
            "is done."
        ),
    ),
    **errors(*UPLOAD_ERRORS),
    409: failure(
        "request_in_progress",
        EXAMPLES,
        _("The request with this `Idempotency-Key` is not finished; see `Retry-After`."),
    ),
    410: failure(
        "person_deleted",
        EXAMPLES,
        _("The person of this request was deleted since. Send a new key to enrol them."),
    ),
    422: answer(
        serializers.InsertFailureSerializer,
        EXAMPLES["milvus_insert_422"],
        _(
            "Every picture was refused; nothing was stored. Or `idempotency_key_reused`: the key was "
            "sent before with another request (only `error` and `message`)."
        ),
    ),
    503: answer(
        serializers.InsertFailureSerializer,
        EXAMPLES["milvus_insert_503"],
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
            EXAMPLES["milvus_stats"],
        ),
        **errors(401, 503),
    },
)
