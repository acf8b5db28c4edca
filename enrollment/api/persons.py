"""Calls about persons and their pictures: they parse, call one function, and present."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from django.db import transaction
from django.http import HttpResponse
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from enrollment import enrolling
from enrollment.api import person_schema as schema
from enrollment.api import person_serializers as serializers
from enrollment.api.pagination import PageQuerySerializer, page_of
from enrollment.api.paths import person_url
from enrollment.api.views import describe_doubt, insert_pictures
from enrollment.gallery import find_persons, get_person, picture_of, pictures_of
from enrollment.models import FaceImage, Person
from enrollment.web import picture_response
from recognition.api.parsers import JSONParser
from recognition.api.views import UploadView

VIEW: Final = "enrollment.view_person"
ADD: Final = "enrollment.add_person"
CHANGE: Final = "enrollment.change_person"
DELETE: Final = "enrollment.delete_person"


class PersonCall(APIView):
    """A call with a JSON body or a form, which `serializer_class` reads."""

    parser_classes = [JSONParser, FormParser, MultiPartParser]
    serializer_class: Any = None
    throttle_scope = "persons"

    def read(self, request: Request) -> dict[str, Any]:
        return _checked(self.serializer_class, request.data)


def _checked(serializer_class: Any, data: Any) -> dict[str, Any]:
    form = serializer_class(data=data)
    form.is_valid(raise_exception=True)
    return form.validated_data


class PersonsView(PersonCall):
    """Who is enrolled, and one more of them."""

    serializer_class = serializers.PersonFormSerializer
    permissions = {"GET": VIEW, "POST": ADD}

    @schema.persons_list
    def get(self, request: Request) -> Response:
        query = _checked(serializers.PersonsQuerySerializer, request.query_params)
        # The key last, so that equal names keep their order from page to page.
        persons = find_persons(query.pop("q")).order_by(query.pop("ordering"), "pk")
        body, entries = page_of(persons, request, **query)
        return Response(body | {"results": [describe_person(each, request) for each in entries]})

    @schema.persons_create
    def post(self, request: Request) -> Response:
        person = enrolling.create_person(**self.read(request))
        answer = _person_answer(person.person_id, request, HTTPStatus.CREATED)
        answer["Location"] = person_url(request, person.person_id)
        return answer


class PersonView(PersonCall):
    """One person."""

    serializer_class = serializers.PersonChangeSerializer
    permissions = {"GET": VIEW, "PATCH": CHANGE, "DELETE": DELETE}

    @schema.persons_read
    def get(self, request: Request, person_id: str) -> Response:
        return _person_answer(person_id, request)

    @schema.persons_change
    def patch(self, request: Request, person_id: str) -> Response:
        changes = self.read(request)
        person = get_person(person_id)
        with transaction.atomic():
            if "cover" in changes:
                enrolling.set_cover(person, changes.pop("cover"))
            person = enrolling.change_person(person, **changes)
        return _person_answer(person.person_id, request)

    @schema.persons_delete
    def delete(self, request: Request, person_id: str) -> Response:
        person = get_person(person_id)
        count = enrolling.delete_person(person)
        return Response({"success": True, "person_id": person.person_id, "deleted_pictures": count})


class PersonMergeView(PersonCall):
    """Makes one person of two."""

    serializer_class = serializers.MergeFormSerializer
    permissions = {"POST": DELETE}

    @schema.persons_merge
    def post(self, request: Request, person_id: str) -> Response:
        kept, merged = get_person(person_id), get_person(self.read(request)["person_id"])
        moved = enrolling.merge_persons(kept, merged)
        return _person_answer(kept.person_id, request, moved_pictures=moved)


class PersonImagesView(UploadView):
    """The pictures of a person."""

    serializer_class = serializers.PicturesFormSerializer
    permissions = {"GET": VIEW, "POST": "enrollment.add_faceimage"}
    throttle_scope = {"GET": "persons", "POST": "enroll"}

    @schema.persons_images_list
    def get(self, request: Request, person_id: str) -> Response:
        person = get_person(person_id)
        query = _checked(PageQuerySerializer, request.query_params)
        body, pictures = page_of(pictures_of(person), request, **query)
        return Response(
            body | {"results": [describe_picture(each, person, request) for each in pictures]}
        )

    @schema.persons_images_add
    def post(self, request: Request, person_id: str) -> Response:
        form = self.read_form(request)
        return insert_pictures(request, form | {"person_id": get_person(person_id).person_id})


class PersonImageView(PersonCall):
    """One picture: what it shows, whom it shows."""

    serializer_class = serializers.PictureMoveSerializer
    permissions = {
        "GET": VIEW,
        "PATCH": "enrollment.change_faceimage",
        "DELETE": "enrollment.delete_faceimage",
    }

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        # Who asks for image/jpeg gets it; the framework only knows what it renders itself.
        return super().perform_content_negotiation(request, force=True)

    @schema.persons_images_read
    def get(self, request: Request, person_id: str, image_id: int) -> HttpResponse:
        person = get_person(person_id)
        picture = picture_of(person, image_id)
        if request.query_params.get("format") == "api":  # the page to change it by hand
            return Response({"success": True} | describe_picture(picture, person, request))
        return picture_response(request, picture)

    @schema.persons_images_move
    def patch(self, request: Request, person_id: str, image_id: int) -> Response:
        form = self.read(request)
        picture_of(get_person(person_id), image_id)
        if form["create_person"]:
            person = enrolling.move_to_new_person([image_id], form["person_id"])
        else:
            person = get_person(form["person_id"])
            enrolling.move_pictures([image_id], person)
        picture = picture_of(person, image_id)
        return Response({"success": True} | describe_picture(picture, person, request))

    @schema.persons_images_delete
    def delete(self, request: Request, person_id: str, image_id: int) -> Response:
        person = get_person(person_id)
        enrolling.delete_pictures(person, [picture_of(person, image_id).pk])
        return Response({"success": True, "person_id": person.person_id, "deleted_pictures": 1})


def _person_answer(
    person_id: str, request: Request, status: int = HTTPStatus.OK, **more: Any
) -> Response:
    body = {"success": True} | describe_person(get_person(person_id), request) | more
    return Response(body, status=int(status))


def describe_person(person: Person, request: Request) -> dict[str, Any]:
    """A person of `with_pictures`, as the API tells of them."""
    shown = FaceImage(pk=person.shown_picture).get_absolute_url() if person.shown_picture else None
    return {
        "person_id": person.person_id,
        "name": person.name,
        "notes": person.notes,
        "legal_basis": person.legal_basis,
        "keep_until": person.keep_until and person.keep_until.isoformat(),
        "picture_count": person.picture_count,
        "cover": person.cover_id,
        "cover_url": shown and request.build_absolute_uri(shown),
        "created_at": person.created_at.isoformat(),
        "updated_at": person.updated_at.isoformat(),
        "url": person_url(request, person.person_id),
    }


def describe_picture(picture: FaceImage, person: Person, request: Request) -> dict[str, Any]:
    """A picture of `pictures_of`, as the API tells of it."""
    return {
        "id": picture.pk,
        "person_id": person.person_id,
        "url": f"{person_url(request, person.person_id)}/images/{picture.pk}",
        "original_path": picture.original_path,
        "source": picture.source,
        "width": picture.width,
        "height": picture.height,
        "is_cover": picture.pk == person.cover_id,
        "created_at": picture.created_at.isoformat(),
        "quality": picture.quality and picture.quality.as_dict(),
        "embeddings": [
            {
                "id": row.pk,
                "model": row.model,
                "status": row.status,
                "face_detected": row.face_detected,
                "error": row.error,
                "message": row.error_message,
            }
            for row in picture.embeddings.all()
        ],
        "warnings": [describe_doubt(doubt) for doubt in picture.doubts.all()],
    }
