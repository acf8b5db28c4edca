"""OpenAPI descriptions of the endpoints for persons."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    Direction,
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)

from enrollment.api import person_serializers as serializers
from enrollment.api.pagination import ListQuerySerializer
from enrollment.api.schema import EXAMPLES, IDEMPOTENCY_KEY, milvus_insert_responses
from enrollment.gallery import SIDES
from recognition.api.schema import answer, errors, failure, request_example

PERSON_ID: Final = OpenApiParameter(
    "person_id",
    OpenApiTypes.STR,
    OpenApiParameter.PATH,
    description=_("The person's id, percent-encoded: `a/b` is `a%2Fb`."),
)
_IMAGE_ID: Final = OpenApiParameter(
    "image_id", OpenApiTypes.INT, OpenApiParameter.PATH, description=_("The picture's id.")
)


NOT_FOUND: Final = failure(
    "person_not_found", EXAMPLES, _("There is no such person, or no such picture of them.")
)
TAKEN: Final = failure("person_exists", EXAMPLES, _("The id is somebody else's."))


class ChangeExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Describes that a change of nothing is refused."""

    target_class = serializers.PersonChangeSerializer

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        described: Any = auto_schema
        schema = described._map_serializer(self.target, direction, bypass_extensions=True)
        return {**schema, "minProperties": 1}


def _json_example(value: dict[str, Any]) -> list[OpenApiExample]:
    return [OpenApiExample("request", value, request_only=True, media_type="application/json")]


def _json(serializer: Any) -> dict[str, Any]:
    return {"application/json": serializer}


MERGED: Final = failure(
    "person_merged",
    EXAMPLES,
    _("The id was merged; `Location` is the address of who took it over."),
)

persons_list = extend_schema(
    operation_id="persons_list",
    description=_("Who is enrolled."),
    tags=["persons"],
    parameters=[ListQuerySerializer],
    responses={
        200: answer(serializers.PersonPageSerializer, EXAMPLES["persons_list"]),
        **errors(400, 401, 403, 429),
    },
)

persons_create = extend_schema(
    operation_id="persons_create",
    description=_("Enrols a person, without pictures yet."),
    tags=["persons"],
    request=_json(serializers.PersonFormSerializer),
    responses={
        201: answer(serializers.PersonResponseSerializer, EXAMPLES["persons_create"]),
        **errors(400, 401, 403, 429),
        409: TAKEN,
    },
    examples=_json_example(
        {"person_id": "123.456.789-09", "name": "Ana", "keep_until": "2027-12-31"}
    ),
)

persons_read = extend_schema(
    operation_id="persons_read",
    description=_("One person."),
    tags=["persons"],
    parameters=[PERSON_ID],
    responses={
        200: answer(serializers.PersonResponseSerializer, EXAMPLES["persons_read"]),
        308: MERGED,
        **errors(401, 403, 429),
        404: NOT_FOUND,
    },
)

persons_change = extend_schema(
    operation_id="persons_change",
    tags=["persons"],
    description=_("Changes what is given and nothing else. A new id reaches the vectors, too."),
    parameters=[PERSON_ID],
    request=_json(serializers.PersonChangeSerializer),
    responses={
        200: answer(serializers.PersonResponseSerializer, EXAMPLES["persons_change"]),
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
        409: TAKEN,
    },
    examples=_json_example({"name": "Ana Lima", "cover": 17}),
)

persons_delete = extend_schema(
    operation_id="persons_delete",
    tags=["persons"],
    description=_(
        "Puts the person with all pictures into the trash: out of every search and list at once, and "
        "erased when `TRASH_DAYS` are over. `undo_until` says when."
    ),
    parameters=[PERSON_ID, serializers.EraseQuerySerializer],
    responses={
        200: answer(serializers.DeletedSerializer, EXAMPLES["persons_delete"]),
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
    },
)

persons_merge = extend_schema(
    operation_id="persons_merge",
    tags=["persons"],
    description=_(
        "The person of the address gets the pictures of another one, who is deleted. The name is "
        "taken over where there was none; the notes are joined. The id that disappears stands for the "
        "person since: inserts with it go there, and reading it answers 308."
    ),
    parameters=[PERSON_ID],
    request=_json(serializers.MergeFormSerializer),
    responses={
        200: answer(serializers.MergeResponseSerializer, EXAMPLES["persons_merge"]),
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
    },
    examples=_json_example({"person_id": "ana lima"}),
)

persons_images_list = extend_schema(
    operation_id="persons_images_list",
    tags=["persons"],
    description=_("The person's pictures, newest first."),
    parameters=[PERSON_ID, ListQuerySerializer],
    responses={
        200: answer(serializers.PicturePageSerializer, EXAMPLES["persons_images_list"]),
        308: MERGED,
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
    },
)

persons_images_add = extend_schema(
    operation_id="persons_images_add",
    tags=["persons"],
    description=_("Adds pictures to a person who is enrolled already."),
    parameters=[PERSON_ID, IDEMPOTENCY_KEY],
    request={"multipart/form-data": serializers.PicturesFormSerializer},
    responses={**milvus_insert_responses, 404: NOT_FOUND},
    examples=[request_example({"images": ["ana-3.jpg"], "model": "mobilenetv3_large"})],
)

persons_images_read = extend_schema(
    operation_id="persons_images_read",
    tags=["persons"],
    description=_("The stored picture itself."),
    parameters=[
        PERSON_ID,
        _IMAGE_ID,
        OpenApiParameter(
            "size",
            OpenApiTypes.STR,
            enum=[*SIDES],
            description=_(
                "A small JPEG: `thumb` of the picture and `face` of its face, at most 320 pixels a side, "
                "`icon` of the picture, at most 160."
            ),
        ),
    ],
    responses={
        (200, "image/jpeg"): OpenApiTypes.BINARY,
        (200, "image/png"): OpenApiTypes.BINARY,
        304: OpenApiResponse(description=_("Unchanged since the `ETag` of `If-None-Match`.")),
        308: MERGED,
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
    },
)

persons_images_move = extend_schema(
    operation_id="persons_images_move",
    tags=["persons"],
    description=_("Gives the picture to the person whom it shows."),
    parameters=[PERSON_ID, _IMAGE_ID],
    request=_json(serializers.PictureMoveSerializer),
    responses={
        200: answer(serializers.PictureMovedSerializer, EXAMPLES["persons_images_move"]),
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
        409: TAKEN,
    },
    examples=_json_example({"person_id": "bia", "create_person": True}),
)

persons_images_delete = extend_schema(
    operation_id="persons_images_delete",
    tags=["persons"],
    description=_(
        "Puts the picture into the trash: out of every search at once, and erased when `TRASH_DAYS` are over."
    ),
    parameters=[PERSON_ID, _IMAGE_ID, serializers.EraseQuerySerializer],
    responses={
        200: answer(serializers.DeletedSerializer, EXAMPLES["persons_images_delete"]),
        **errors(400, 401, 403, 429),
        404: NOT_FOUND,
    },
)
