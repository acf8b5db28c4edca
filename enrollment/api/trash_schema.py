"""OpenAPI descriptions of the endpoints of the trash."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from enrollment.api import person_serializers as serializers
from enrollment.api.pagination import ListQuerySerializer
from enrollment.api.person_schema import PERSON_ID, TAKEN
from enrollment.api.schema import EXAMPLES
from recognition.api.schema import answer, errors, failure

_ITEM_ID: Final = OpenApiParameter(
    "item_id", OpenApiTypes.INT, OpenApiParameter.PATH, description=_("The `undo` of an answer.")
)
_NOT_IN_TRASH: Final = failure(
    "not_in_trash", EXAMPLES, _("The trash does not hold it, or not any more.")
)
_FORM: Final = {"application/json": serializers.RestoreFormSerializer}

trash_list = extend_schema(
    operation_id="trash_list",
    tags=["trash"],
    description=_("What was deleted, moved, merged or imported and can be undone, newest first."),
    parameters=[ListQuerySerializer],
    responses={
        200: answer(serializers.TrashPageSerializer, EXAMPLES["trash_list"]),
        **errors(400, 401, 403, 429),
    },
)

trash_undo = extend_schema(
    operation_id="trash_undo",
    tags=["trash"],
    description=_("Takes the act back: all is as before, and no network runs."),
    parameters=[_ITEM_ID],
    request=_FORM,
    responses={
        200: answer(serializers.RestoredSerializer, EXAMPLES["trash_undo"]),
        **errors(400, 401, 403, 429),
        404: _NOT_IN_TRASH,
        409: TAKEN,
    },
)

trash_erase = extend_schema(
    operation_id="trash_erase",
    tags=["trash"],
    description=_("Erases at once what it holds; after this it cannot be undone."),
    parameters=[_ITEM_ID],
    responses={
        200: answer(serializers.ErasedSerializer, EXAMPLES["trash_erase"]),
        **errors(401, 403, 429),
        404: _NOT_IN_TRASH,
    },
)

persons_restore = extend_schema(
    operation_id="persons_restore",
    tags=["persons"],
    description=_(
        "Restores a deleted person from the trash: id, pictures, vectors, doubts, cover."
    ),
    parameters=[PERSON_ID],
    request=_FORM,
    responses={
        200: answer(serializers.PersonResponseSerializer, EXAMPLES["persons_restore"]),
        **errors(400, 401, 403, 429),
        404: _NOT_IN_TRASH,
        409: TAKEN,
    },
)
