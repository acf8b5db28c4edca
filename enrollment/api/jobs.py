"""Endpoints of imports, which are carried out as jobs after the request."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment import enrolling, imports
from enrollment.api import job_schema as schema
from enrollment.api import job_serializers as serializers
from enrollment.api.filters import read_query
from enrollment.api.pagination import PageNumbers
from enrollment.api.persons import PageCall, PersonCall
from enrollment.models import ImportJob
from enrollment.web import Act, owner_of
from recognition.api.access import require


class JobCall(PersonCall):
    """A view that needs the right to enrol persons beside that to add pictures."""

    permissions = {"GET": Act.ADD_PICTURES, "POST": Act.ADD_PICTURES}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        require(request, Act.ADD_PERSON)


class JobsView(JobCall, PageCall):
    """List the imports, or upload one."""

    serializer_class = serializers.JobFormSerializer
    page_serializer_class = serializers.JobPageSerializer
    queryset = ImportJob.objects.all()  # of which model, for the OpenAPI document
    throttle_scope = {"GET": "persons", "POST": "enroll"}

    @schema.jobs_list
    def get(self, request: Request) -> Response:
        return self.read_page()

    def get_queryset(self) -> QuerySet[ImportJob]:
        return imports.find_imports(owner_of(self.request)).select_related("undo")

    @schema.jobs_create
    def post(self, request: Request) -> Response:
        form = dict(self.read_form(request))
        archive, is_confirmed = form.pop("archive"), form.pop("start")
        options = {name: form.pop(name) for name in ("use_face_detection", "on_several_faces")}
        form["purposes"] = [purpose.pk for purpose in enrolling.purposes_named(form["purposes"])]
        details = {name: value for name, value in form.items() if value}
        imports.check_readiness()
        job = imports.stage_import(
            archive,
            archive.name,
            owner_of(request),
            details=details,
            is_confirmed=is_confirmed,
            **options,
        )
        imports.request_imports()
        return _answer(_job(request, job.pk), HTTPStatus.ACCEPTED)


class JobView(JobCall):
    """Read one import."""

    @schema.jobs_read
    def get(self, request: Request, number: int) -> Response:
        return _answer(_job(request, number))


class JobFilesView(JobCall):
    """List the files of an import."""

    @schema.jobs_files
    def get(self, request: Request, number: int) -> Response:
        query = read_query(request, serializers.FilesQuerySerializer)
        files = _job(request, number).files.order_by("rank", "number")
        if status := query.get("status"):
            files = files.filter(status=status)
        pages = PageNumbers()
        pages.paginate_queryset(files, request)
        return Response(serializers.JobFilesPageSerializer.answer(pages, request))


class JobActView(JobCall):
    """Start, pause, resume or cancel an import."""

    @schema.jobs_act
    def post(self, request: Request, number: int, act: str) -> Response:
        if act not in imports.DECISIONS:
            raise NotFound
        job = _job(request, number)
        imports.decide(job, act)
        return _answer(job)


def _job(request: Request, number: int) -> ImportJob:
    return imports.get_import(number, owner_of(request))


def _answer(job: ImportJob, status: int = HTTPStatus.OK) -> Response:
    return Response(serializers.JobResponseSerializer.answer(job), status=int(status))
