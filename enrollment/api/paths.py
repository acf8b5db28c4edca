"""A person's id within an address, whatever it holds: slashes, quotes, percent signs."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from django.urls import reverse
from rest_framework import serializers
from rest_framework.request import Request

from enrollment.models import FaceImage
from enrollment.web import picture_address

# What an encoded slash in a path becomes before Django sees it; no id holds it.
ENCODED_SLASH: Final = "\0"


class PersonIdConverter:
    """Any text that does not end in a plain slash; an encoded one is part of the id."""

    regex = "(?s:.*[^/])"

    def to_python(self, value: str) -> str:
        return value.replace(ENCODED_SLASH, "/")

    def to_url(self, value: str) -> str:
        raise NotImplementedError("person_url() knows how to encode an id.")


def person_url(request: Request, person_id: str) -> str:
    """The address of the person in the API."""
    return request.build_absolute_uri(person_path(person_id))


def person_path(person_id: str) -> str:
    """The address of the person in the API, without the host."""
    return f"{reverse('api-persons')}/{quote(person_id, safe='')}"


class PersonUrlField(serializers.CharField):
    """Of a person's id."""

    def to_representation(self, person_id: str) -> str:
        return person_url(self.context["request"], person_id)


class PictureUrlField(serializers.CharField):
    """Of a picture, or of its id: where those allowed to see it find it."""

    def to_representation(self, picture: FaceImage | int) -> str:
        if not isinstance(picture, FaceImage):
            picture = FaceImage(pk=picture)
        request = self.context["request"]
        return request.build_absolute_uri(picture_address(request, picture))
