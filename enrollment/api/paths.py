"""Person ids in URLs: an id may contain slashes, quotes and percent signs."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from django.urls import reverse
from rest_framework import serializers
from rest_framework.request import Request

from enrollment.models import FaceImage
from enrollment.web import picture_address

# Replaces an encoded slash in a path before Django decodes it; no id contains this character.
ENCODED_SLASH: Final = "\0"
PERSON_IN_ROUTE: Final = "<person_id:person_id>"


class PersonIdConverter:
    """Matches any text that does not end in a plain slash; an encoded slash is part of the id."""

    regex = "(?s:.*[^/])"

    def to_python(self, value: str) -> str:
        return value.replace(ENCODED_SLASH, "/")

    def to_url(self, value: str) -> str:
        raise NotImplementedError("person_url() knows how to encode an id.")


def person_url(request: Request, person_id: str) -> str:
    """Return the absolute API URL of the person."""
    return request.build_absolute_uri(person_path(person_id))


def person_path(person_id: str) -> str:
    """Return the API URL of the person without scheme and host."""
    return f"{reverse('api-persons')}/{quote(person_id, safe='')}"


class PersonUrlField(serializers.CharField):
    """Renders a person id as the person's absolute API URL."""

    def to_representation(self, person_id: str) -> str:
        return person_url(self.context["request"], person_id)


class PictureUrlField(serializers.CharField):
    """Renders a picture, or its id, as the absolute URL where the client may see it."""

    def to_representation(self, picture: FaceImage | int) -> str:
        if not isinstance(picture, FaceImage):
            picture = FaceImage(pk=picture)
        request = self.context["request"]
        return request.build_absolute_uri(picture_address(request, picture))
