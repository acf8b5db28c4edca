"""OpenAPI descriptions of the endpoints of imports."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from enrollment.api import job_serializers as serializers
from enrollment.api.pagination import ListQuerySerializer
from enrollment.api.schema import EXAMPLES
from enrollment.imports import DECISIONS
from recognition.api.schema import UPLOAD_ERRORS, answer, errors, failure, request_example

_NUMBER: Final = OpenApiParameter(
    "number", OpenApiTypes.INT, OpenApiParameter.PATH, description=_("The `id` of a job.")
)
_ACT: Final = OpenApiParameter(
    "act",
    OpenApiTypes.STR,
    OpenApiParameter.PATH,
    enum=[*DECISIONS],
    description=_("What is to become of it."),
)
_GONE: Final = failure("import_gone", EXAMPLES, _("There is no such import, or not any more."))

jobs_list = extend_schema(
    operation_id="jobs_list",
    tags=["jobs"],
    description=_("The imports, newest first. Those of others once they are confirmed."),
    parameters=[ListQuerySerializer],
    responses={
        200: answer(serializers.JobPageSerializer, EXAMPLES["jobs_list"]),
        **errors(400, 401, 403, 429),
    },
)

jobs_create = extend_schema(
    operation_id="jobs_create",
    tags=["jobs"],
    description=_(
        "Uploads a ZIP of pictures. The server looks at them, or enrols them with `start=true`, after "
        "this has answered."
    ),
    request={"multipart/form-data": serializers.JobFormSerializer},
    responses={
        202: answer(serializers.JobResponseSerializer, EXAMPLES["jobs_create"]),
        **errors(*UPLOAD_ERRORS, 503),
    },
    examples=[
        request_example({"archive": "faces.zip", "legal_basis": "consent of 2026-11-27"}),
    ],
)

jobs_read = extend_schema(
    operation_id="jobs_read",
    tags=["jobs"],
    description=_("One import: how far it is, and what became of its files in numbers."),
    parameters=[_NUMBER],
    responses={
        200: answer(serializers.JobResponseSerializer, EXAMPLES["jobs_read"]),
        **errors(401, 403, 429),
        404: _GONE,
    },
)

jobs_files = extend_schema(
    operation_id="jobs_files",
    tags=["jobs"],
    description=_(
        "The files of an import with what becomes of each, those that need a look first."
    ),
    parameters=[_NUMBER, serializers.FilesQuerySerializer],
    responses={
        200: answer(serializers.JobFilesPageSerializer, EXAMPLES["jobs_files"]),
        **errors(400, 401, 403, 429),
        404: _GONE,
    },
)

jobs_act = extend_schema(
    operation_id="jobs_act",
    tags=["jobs"],
    description=_(
        "Starts, pauses, resumes or cancels an import. What is enrolled stays; `undo` takes it back."
    ),
    parameters=[_NUMBER, _ACT],
    request=None,
    responses={
        200: answer(serializers.JobResponseSerializer, EXAMPLES["jobs_act"]),
        **errors(401, 403, 429, 503),
        404: _GONE,
        409: failure("import_busy", EXAMPLES, _("It is in a state in which this cannot be done.")),
    },
)
