"""What the OpenAPI document says of the calls that ask who somebody is."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from enrollment.api import probe_serializers as serializers
from recognition.api.schema import FACE, UPLOAD_ERRORS, answer, errors, request_example
from recognition.api.serializers import ErrorSerializer

_DETECTED: Final = {"face_detected": True, "face": FACE}
_HIT: Final = {
    "id": 41,
    "person_id": "123.456.789-09",
    "person_name": "Ana",
    "image_path": "/photos/ana-1.jpg",
    "image_url": "http://127.0.0.1:8000/pictures/17",
    "created_at": "2026-11-23T23:45:00+00:00",
    "distance": 0.8213,
    "similarity": 0.8213,
    "decision": "match",
}
_KNOWN: Final = {"results": [_HIT], "total": 1, "decision": "match", **_DETECTED}
_ANSWER: Final = {
    "success": True,
    "model": "mobilenetv3_large",
    **_KNOWN,
    "thresholds": {"match": 0.7186, "review": 0.5873},
}
_STRANGER: Final = {"results": [], "total": 0, "decision": "unknown", **_DETECTED}

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
                OpenApiExample("answer", _ANSWER),
                OpenApiExample("all_faces", _ANSWER | {"faces": [_KNOWN, _STRANGER]}),
            ],
        ),
        **errors(*UPLOAD_ERRORS, 422, 503),
    },
    examples=[
        request_example({"image": "who.jpg", "model": "mobilenetv3_large", "top_k": 5}),
    ],
)

_VERIFIED: Final = {
    "success": True,
    "verified": True,
    "similarity": 0.8213,
    "threshold": 0.7186,
    "decision": "match",
    "message": "The same person: the similarity is 0.8213, and at least 0.7186 is expected.",
    "model": "mobilenetv3_large",
    "use_face_detection": True,
    "source": _DETECTED,
    "target": _DETECTED,
}

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
            _VERIFIED,
            _(
                "`threshold` and `verified` are null when nobody measured the weights in use and the "
                "request names no threshold: then `message` says so."
            ),
        ),
        404: OpenApiResponse(
            ErrorSerializer,
            description=_("Nobody has this id."),
            examples=[
                OpenApiExample(
                    "error_404",
                    {
                        "success": False,
                        "error": "person_not_found",
                        "message": "Nobody has the id 'ana'. Look for it in the list of persons.",
                    },
                )
            ],
        ),
        **errors(*UPLOAD_ERRORS, 422, 503),
    },
    examples=[
        request_example({"source_image": "a.jpg", "target_image": "b.jpg"}),
    ],
)
