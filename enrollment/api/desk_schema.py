"""OpenAPI descriptions of the desk for data subjects."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from enrollment.api import desk_serializers as serializers
from enrollment.api.person_schema import MERGED, NOT_FOUND, PERSON_ID
from enrollment.api.schema import EXAMPLES
from recognition.api.schema import answer, errors, request_example

_NUMBER: Final = OpenApiParameter(
    "number", OpenApiTypes.INT, OpenApiParameter.PATH, description=_("The consent's id.")
)

persons_export = extend_schema(
    operation_id="persons_export",
    tags=["persons"],
    description=_(
        "Everything that is kept of the person, as a ZIP: pictures, details, origins, searches, history, "
        "documents; pages in Portuguese and English, and JSON."
    ),
    parameters=[PERSON_ID],
    responses={
        (200, "application/zip"): OpenApiTypes.BINARY,
        308: MERGED,
        **errors(401, 403, 429, 503),
        404: NOT_FOUND,
    },
)

consents_list = extend_schema(
    operation_id="consents_list",
    tags=["persons"],
    description=_("The consents of the person that are on record, newest first."),
    parameters=[PERSON_ID],
    responses={
        200: answer(serializers.ConsentsSerializer, EXAMPLES["consents_list"]),
        308: MERGED,
        **errors(401, 403, 429),
        404: NOT_FOUND,
    },
)

consents_add = extend_schema(
    operation_id="consents_add",
    tags=["persons"],
    description=_("Records a consent with its document, day, end and purposes."),
    parameters=[PERSON_ID],
    request={"multipart/form-data": serializers.ConsentFormSerializer},
    responses={
        201: answer(serializers.ConsentResponseSerializer, EXAMPLES["consents_add"]),
        **errors(400, 401, 403, 429, 503),
        404: NOT_FOUND,
    },
    examples=[
        request_example({"document": "consent.pdf", "day": "2026-11-27", "purposes": ["door"]})
    ],
)

consents_document = extend_schema(
    operation_id="consents_document",
    tags=["persons"],
    description=_("The document of a consent, as it was uploaded."),
    parameters=[PERSON_ID, _NUMBER],
    responses={
        (200, "application/octet-stream"): OpenApiTypes.BINARY,
        308: MERGED,
        **errors(401, 403, 429, 503),
        404: NOT_FOUND,
    },
)

consents_remove = extend_schema(
    operation_id="consents_remove",
    tags=["persons"],
    description=_(
        "Removes a consent that was recorded by mistake. A withdrawal erases the person."
    ),
    parameters=[PERSON_ID, _NUMBER],
    responses={
        200: answer(serializers.RemovedSerializer, EXAMPLES["consents_remove"]),
        **errors(401, 403, 429),
        404: NOT_FOUND,
    },
)
