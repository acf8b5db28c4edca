"""OpenAPI descriptions of search and verification."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from enrollment.api import probe_serializers as serializers
from enrollment.api.schema import EXAMPLES
from recognition.api.schema import UPLOAD_ERRORS, answer, errors, failure, request_example

milvus_search = extend_schema(
    operation_id="milvus_search",
    description=_(
        "The enrolled pictures most similar to the largest face of one picture, or to every face."
    ),
    tags=["gallery"],
    request={"multipart/form-data": serializers.SearchFormSerializer},
    responses={
        200: OpenApiResponse(
            serializers.SearchResponseSerializer,
            description=_(
                "A hit is not yet a match: its `decision` says what its similarity means."
            ),
            examples=[
                OpenApiExample("answer", EXAMPLES["milvus_search"]),
                OpenApiExample("all_faces", EXAMPLES["milvus_search_all_faces"]),
            ],
        ),
        **errors(*UPLOAD_ERRORS, 422, 503),
    },
    examples=[
        request_example({"image": "who.jpg", "model": "mobilenetv3_large", "top_k": 5}),
    ],
)

verify = extend_schema(
    operation_id="verify",
    description=_(
        "Whether two pictures, or a picture and somebody who is enrolled, show the same person."
    ),
    tags=["faces"],
    request={"multipart/form-data": serializers.VerifyFormSerializer},
    responses={
        200: answer(
            serializers.VerifyResponseSerializer,
            EXAMPLES["verify"],
            _(
                "`threshold` and `verified` are null when nobody measured the weights in use and the "
                "request names no threshold: then `message` says so."
            ),
        ),
        404: failure("person_not_found", EXAMPLES, _("Nobody has this id.")),
        **errors(*UPLOAD_ERRORS, 422, 503),
    },
    examples=[
        request_example({"source_image": "a.jpg", "target_image": "b.jpg"}),
    ],
)
