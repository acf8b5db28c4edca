"""Endpoints of the desk for data subjects: access and consent. Erasure is a DELETE of the person."""

from __future__ import annotations

from http import HTTPStatus

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from enrollment import enrolling
from enrollment.api import desk_schema as schema
from enrollment.api import desk_serializers as serializers
from enrollment.api.persons import FileCall, PersonCall
from enrollment.gallery import get_person
from enrollment.web import Act, document_response, export_response


class PersonExportView(FileCall):
    """Return everything that is kept of a person, as a ZIP."""

    permissions = {"GET": Act.EXPORT_PERSON}

    @schema.persons_export
    def get(self, request: Request, person_id: str) -> HttpResponseBase:
        return export_response(get_person(person_id))


class ConsentsView(PersonCall):
    """List the consents of a person, or record one with its document."""

    serializer_class = serializers.ConsentFormSerializer
    permissions = {"GET": Act.BROWSE, "POST": Act.CHANGE_PERSON}

    @schema.consents_list
    def get(self, request: Request, person_id: str) -> Response:
        recorded = get_person(person_id).consents.prefetch_related("purposes")
        return Response(serializers.ConsentsSerializer.answer({"results": recorded}))

    @schema.consents_add
    def post(self, request: Request, person_id: str) -> Response:
        form = self.read_form(request)
        purposes = enrolling.purposes_named(form.pop("purposes"))
        consent = enrolling.add_consent(get_person(person_id), purposes=purposes, **form)
        answer = serializers.ConsentResponseSerializer.answer(consent)
        return Response(answer, status=HTTPStatus.CREATED)


class ConsentView(FileCall):
    """Return the document of a consent, or remove a consent that was recorded by mistake."""

    permissions = {"GET": Act.CHANGE_PERSON, "DELETE": Act.CHANGE_PERSON}

    @schema.consents_document
    def get(self, request: Request, person_id: str, number: int) -> HttpResponseBase:
        return document_response(enrolling.consent_of(get_person(person_id), number))

    @schema.consents_remove
    def delete(self, request: Request, person_id: str, number: int) -> Response:
        enrolling.remove_consent(get_person(person_id), number)
        return Response(serializers.RemovedSerializer.answer({"id": number}))
