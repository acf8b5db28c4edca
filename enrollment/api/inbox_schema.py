"""OpenAPI descriptions of the endpoints of the inbox and of feedback."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from enrollment.api import inbox_serializers as serializers
from enrollment.api.schema import EXAMPLES
from recognition.api.schema import UPLOAD_ERRORS, answer, errors, failure

_KEY: Final = OpenApiParameter(
    "key", OpenApiTypes.STR, OpenApiParameter.PATH, description=_("The `key` of a card.")
)
_NO_CARD: Final = failure(
    "card_not_found", EXAMPLES, _("The inbox has no such card, or not any more.")
)
_FACE_GONE: Final = failure("face_gone", EXAMPLES, _("This face is not kept any more."))

inbox_list = extend_schema(
    operation_id="inbox_list",
    tags=["inbox"],
    description=_("What needs a person, what settles most first. At most 1000 are counted."),
    parameters=[serializers.InboxQuerySerializer],
    responses={
        200: answer(serializers.InboxPageSerializer, EXAMPLES["inbox_list"]),
        404: failure("person_not_found", EXAMPLES, _("Nobody has this id.")),
        **errors(400, 401, 403, 429),
    },
)

inbox_read = extend_schema(
    operation_id="inbox_read",
    tags=["inbox"],
    description=_("One card."),
    parameters=[_KEY],
    responses={
        200: answer(serializers.CardResponseSerializer, EXAMPLES["inbox_read"]),
        **errors(401, 403, 429),
        404: _NO_CARD,
    },
)

inbox_settle = extend_schema(
    operation_id="inbox_settle",
    tags=["inbox"],
    description=_("Settles the card. `undo` takes it back."),
    parameters=[_KEY],
    request={"application/json": serializers.SettleFormSerializer},
    responses={
        200: answer(serializers.SettledSerializer, EXAMPLES["inbox_settle"]),
        **errors(400, 401, 403, 422, 429, 503),
        404: failure("person_not_found", EXAMPLES, _("Nobody has this id.")),
        410: _FACE_GONE,
        409: failure("already_settled", EXAMPLES, _("Somebody was faster; nothing was changed.")),
    },
)

inbox_face = extend_schema(
    operation_id="inbox_face",
    tags=["inbox"],
    description=_("The searched or refused face with a margin: a JPEG of at most 320 pixels."),
    parameters=[_KEY],
    responses={
        (200, "image/jpeg"): OpenApiResponse(OpenApiTypes.BINARY),
        **errors(401, 403, 429),
        404: _NO_CARD,
        410: _FACE_GONE,
    },
)

feedback = extend_schema(
    operation_id="feedback",
    tags=["inbox"],
    description=_(
        "Says whether a searched face is somebody's. The latest word for both counts, and teaches "
        "the thresholds of this gallery; `withdrawn` takes it back."
    ),
    request={
        "multipart/form-data": serializers.FeedbackFormSerializer,
        "application/json": serializers.FeedbackFormSerializer,
    },
    responses={
        200: answer(serializers.FeedbackResponseSerializer, EXAMPLES["feedback"]),
        **errors(*UPLOAD_ERRORS, 422, 503),
        404: failure("person_not_found", EXAMPLES, _("Nobody has this id.")),
        410: _FACE_GONE,
    },
)
