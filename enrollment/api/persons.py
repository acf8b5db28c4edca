"""Endpoints for persons and their pictures. Each view parses, calls one function and renders."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework.generics import GenericAPIView
from rest_framework.mixins import ListModelMixin
from rest_framework.parsers import FormParser
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment import corrections, enrolling, journal
from enrollment.api import person_schema as schema
from enrollment.api import person_serializers as serializers
from enrollment.api.filters import KnownFilters, PersonFilter, read_query
from enrollment.api.pagination import PageNumbers
from enrollment.api.paths import PERSON_IN_ROUTE, person_url
from enrollment.api.views import insert_pictures, was_answered
from enrollment.desk import erase_by_id
from enrollment.exceptions import PersonMerged, PersonNotFound
from enrollment.gallery import easily_mistaken, find_persons, get_person, picture_of, pictures_of
from enrollment.journal import note_look
from enrollment.models import FaceImage, Person
from enrollment.web import Act, picture_response
from recognition.api.access import require
from recognition.api.forms import FormCall
from recognition.api.parsers import JSONParser, MultiPartParser
from recognition.api.views import UploadView


class LeadsOn(FormCall):
    """A view that answers 308 with the new address when a merged id is read."""

    def handle_exception(self, error: Exception) -> Response:
        response: Response = super().handle_exception(error)
        if isinstance(error, PersonMerged) and self.request.method in SAFE_METHODS:
            query = self.request.META["QUERY_STRING"]
            address = person_url(self.request, error.person_id) + self._rest()
            response["Location"] = f"{address}?{query}" if query else address
            response.status_code = HTTPStatus.PERMANENT_REDIRECT
        return response

    def _rest(self) -> str:
        """Return what follows the person in the address, such as `/images/7`."""
        resolved: Any = self.request.resolver_match
        route = resolved.route.partition(PERSON_IN_ROUTE)[2]
        return re.sub(r"<\w+:(\w+)>", lambda found: str(self.kwargs[found[1]]), route)


class PersonCall(LeadsOn):
    """A view that reads JSON or a form through its `serializer_class`."""

    parser_classes = [JSONParser, FormParser, MultiPartParser]
    throttle_scope = "persons"


class FileCall(PersonCall):
    """A call that answers a file, whatever the client accepts, which DRF does not render; errors are
    JSON."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        return super().perform_content_negotiation(request, force=True)


class PageCall(ListModelMixin, GenericAPIView):
    """A view that returns a filtered and paginated list."""

    filter_backends = [KnownFilters]
    pagination_class = PageNumbers
    page_serializer_class: Any = None

    def read_page(self) -> Response:
        self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return Response(self.page_serializer_class.answer(self.paginator, self.request))


class PersonsView(PersonCall, PageCall):
    """List the enrolled persons, or enrol a person without pictures."""

    serializer_class = serializers.PersonFormSerializer
    page_serializer_class = serializers.PersonPageSerializer
    filterset_class = PersonFilter
    permissions = {"GET": Act.BROWSE, "POST": Act.ADD_PERSON}

    def get_queryset(self) -> QuerySet[Person]:
        return find_persons()

    @schema.persons_list
    def get(self, request: Request) -> Response:
        return self.read_page()

    @schema.persons_create
    def post(self, request: Request) -> Response:
        person = corrections.create_person(**self.read_form(request))
        self.warn(request, easily_mistaken(person))
        answer = person_answer(person.person_id, request, HTTPStatus.CREATED)
        answer["Location"] = person_url(request, person.person_id)
        return answer


class PersonView(PersonCall):
    """Read, change or delete a person."""

    serializer_class = serializers.PersonChangeSerializer
    permissions = {"GET": Act.BROWSE, "PATCH": Act.CHANGE_PERSON, "DELETE": Act.DELETE_PERSON}

    @schema.persons_read
    def get(self, request: Request, person_id: str) -> Response:
        note_look(get_person(person_id))
        return person_answer(person_id, request)

    @schema.persons_change
    def patch(self, request: Request, person_id: str) -> Response:
        changes = self.read_form(request)
        person = get_person(person_id)
        with journal.changes():
            if "cover" in changes:
                corrections.set_cover(person, changes.pop("cover"))
            person = corrections.change_person(person, **changes)
        return person_answer(person.person_id, request)

    @schema.persons_delete
    def delete(self, request: Request, person_id: str) -> Response:
        if not is_to_erase(request):
            person = get_person(person_id)
            return _deleted_answer(person.person_id, corrections.delete_person(person))
        return _erased_answer(person_id)


class PersonMergeView(PersonCall):
    """Merge another person into this one."""

    serializer_class = serializers.MergeFormSerializer
    permissions = {"POST": Act.DELETE_PERSON}

    @schema.persons_merge
    def post(self, request: Request, person_id: str) -> Response:
        kept, merged = get_person(person_id), get_person(self.read_form(request)["person_id"])
        done = corrections.merge_persons(kept, merged)
        person = get_person(kept.person_id)
        person.moved_pictures, person.undo = done.pictures, done.undo
        return Response(serializers.MergeResponseSerializer.answer(person, request))


class PersonImagesView(LeadsOn, UploadView, PageCall):
    """List the pictures of a person, or add some."""

    serializer_class = serializers.PicturesFormSerializer
    page_serializer_class = serializers.PicturePageSerializer
    queryset = FaceImage.objects.all()  # of which model, for the OpenAPI document
    permissions = {"GET": Act.BROWSE, "POST": Act.ADD_PICTURES}
    throttle_scope = {"GET": "persons", "POST": "enroll"}

    @schema.persons_images_list
    def get(self, request: Request, person_id: str) -> Response:
        return self.read_page()

    def get_queryset(self) -> QuerySet[FaceImage]:
        person = get_person(self.kwargs["person_id"])
        note_look(person)
        return pictures_of(person)

    @schema.persons_images_add
    def post(self, request: Request, person_id: str) -> Response:
        form = self.read_form(request)
        try:
            person_id = get_person(person_id).person_id
        except PersonMerged:
            # The answer says whose the pictures are.
            person_id = enrolling.clean_person_id(person_id)
        except PersonNotFound:
            if not was_answered(request):
                raise
        return insert_pictures(request, form | {"person_id": person_id}, is_known=True)


class PersonImageView(FileCall):
    """Read, move or delete a picture of a person."""

    serializer_class = serializers.PictureMoveSerializer
    permissions = {
        "GET": Act.BROWSE,
        "PATCH": Act.CHANGE_PICTURES,
        "DELETE": Act.DELETE_PICTURES,
    }

    @schema.persons_images_read
    def get(self, request: Request, person_id: str, image_id: int) -> HttpResponse:
        person = get_person(person_id)
        picture = picture_of(person, image_id)
        if request.query_params.get("format") == "api":  # the page to change it by hand
            return _picture_answer(picture, request)
        return picture_response(request, picture)

    @schema.persons_images_move
    def patch(self, request: Request, person_id: str, image_id: int) -> Response:
        form = self.read_form(request)
        picture_of(get_person(person_id), image_id)
        if form["create_person"]:
            require(request, Act.ADD_PERSON)
            done = corrections.move_to_new_person([image_id], form["person_id"])
            person = done.owner
            self.warn(request, easily_mistaken(person))
        else:
            person = get_person(form["person_id"])
            done = corrections.move_pictures([image_id], person)
        picture = picture_of(person, image_id)
        picture.undo = done.undo
        return _picture_answer(picture, request)

    @schema.persons_images_delete
    def delete(self, request: Request, person_id: str, image_id: int) -> Response:
        person = get_person(person_id)
        ids = [picture_of(person, image_id).pk]
        if is_to_erase(request):
            done = corrections.Done(corrections.erase_pictures(person, ids))
        else:
            done = corrections.delete_pictures(person, ids)
        return _deleted_answer(person.person_id, done)


def is_to_erase(request: Request) -> bool:
    """Return whether the address says `?erase=true`. Raise `ValidationError`, also for what may be
    `erase` misspelt: the person would be kept in the trash."""
    return bool(read_query(request, serializers.EraseQuerySerializer)["erase"])


def _erased_answer(person_id: str) -> Response:
    """Erase the person, also from the trash, and answer how many pictures, with the receipt."""
    signed = erase_by_id(person_id)
    count = signed["receipt"]["removed"]["pictures"]
    return _deleted_answer(person_id, corrections.Done(count), signed)


def person_answer(person_id: str, request: Request, status: int = HTTPStatus.OK) -> Response:
    """Return the answer that describes the person."""
    body = serializers.PersonResponseSerializer.answer(get_person(person_id), request)
    return Response(body, status=int(status))


def _picture_answer(picture: FaceImage, request: Request) -> Response:
    return Response(serializers.PictureMovedSerializer.answer(picture, request))


def _deleted_answer(
    person_id: str, done: corrections.Done, receipt: dict[str, Any] | None = None
) -> Response:
    deleted = {"person_id": person_id, "deleted_pictures": done.pictures, "undo": done.undo}
    deleted["receipt"] = receipt
    return Response(serializers.DeletedSerializer.answer(deleted))
