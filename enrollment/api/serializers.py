"""Serializers of the insert and statistics endpoints, and fields that others share."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from enrollment.enrolling import clean_person_id
from enrollment.models import PATH_MAX_LENGTH, PERSON_ID_MAX_LENGTH
from recognition.api.answers import AnswerSerializer
from recognition.api.errors import ErrorSerializer
from recognition.api.fields import (
    FlagField,
    ImagesField,
    OneOfField,
    TextField,
    WholeNumberField,
)
from recognition.api.serializers import FileResultSerializer, ImageOptionsSerializer
from recognition.vector_store import COLLECTION


class ImagePathsField(serializers.CharField):
    """A form field with a JSON array of strings."""

    default_error_messages = {
        "not_json": _(
            "This is not JSON. Send a JSON array of strings, one for each picture, such as "
            '["a.jpg", "b.jpg"].'
        ),
        "not_strings": _(
            "This is JSON, but not an array of strings. Send one string for each picture, such as "
            '["a.jpg", "b.jpg"].'
        ),
        "too_long": _("A path has more than %(limit)d characters. Shorten it.")
        % {"limit": PATH_MAX_LENGTH},
    }

    def to_internal_value(self, data: Any) -> list[str]:
        try:
            paths = json.loads(super().to_internal_value(data))
        except (ValueError, RecursionError):
            self.fail("not_json")
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            self.fail("not_strings")
        if any(len(path) > PATH_MAX_LENGTH for path in paths):
            self.fail("too_long")
        for path in paths:
            self.run_validators(path)  # reject null characters and lone surrogates
        return paths


class PersonIdField(TextField):
    """A person id, cleaned as the gallery stores it; surrounding white space is removed."""

    default_error_messages = {
        "required": _("The person's id is missing. Give a CPF, a name, or any text."),
        "blank": _("The person's id is blank. Give a CPF, a name, or any text."),
        "null": _("The person's id is missing. Give a CPF, a name, or any text."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=PERSON_ID_MAX_LENGTH, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        try:
            return clean_person_id(value)
        except ValidationError as error:
            raise serializers.ValidationError(error.messages) from error


class InsertFormSerializer(ImageOptionsSerializer):
    images = ImagesField(
        help_text=_("Pictures of one person: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF.")
    )
    person_id = PersonIdField(help_text=_("What you call this person: a CPF, a name, any text."))
    image_paths = ImagePathsField(
        required=False,
        help_text=_("Where the pictures came from: a JSON array with one string for each picture."),
    )

    face_index = WholeNumberField(
        required=False,
        min_value=0,
        help_text=_(
            "Of several faces, this one: counted from 0, the largest first, as /api/detect answers them. "
            "With one picture."
        ),
    )
    on_several_faces = OneOfField(
        choices=["largest", "refuse"],
        default="largest",
        help_text=_("refuse: a picture with several faces is refused unless face_index is given."),
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        return super().get_fields() | {
            "async": FlagField(
                default=False,
                help_text=_(
                    "True: answer 202 as soon as the pictures are stored; a search finds them later."
                ),
            )
        }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        count = len(attrs["images"])
        if count > 1 and "face_index" in attrs:
            message = gettext(
                "A face was named, and %(count)d pictures were sent. Send the pictures one by one, each with "
                "its face."
            )
            raise serializers.ValidationError({"face_index": message % {"count": count}})
        if "face_index" in attrs and not attrs["use_face_detection"]:
            message = gettext(
                "A face was named, and use_face_detection=false says that the picture is a crop of one. "
                "Leave out either."
            )
            raise serializers.ValidationError({"face_index": message})
        paths = attrs.setdefault("image_paths", [""] * count)
        if len(paths) != count:
            message = gettext(
                "The number of paths is %(paths)d and that of pictures %(images)d. Give one path for "
                "each picture, in the same order, or leave the field out."
            ) % {"paths": len(paths), "images": count}
            raise serializers.ValidationError({"image_paths": message})
        return attrs


# Renders a `Doubt`.
class WarningSerializer(AnswerSerializer):
    """A reason to check a picture again. The picture is enrolled all the same."""

    code = serializers.CharField(
        help_text=_(
            "A reason of the face's quality, or `looks_like_someone_else`, "
            "`unlike_own_pictures`, `same_picture`, `not_judged_yet`."
        )
    )
    message = serializers.CharField(help_text=_("In the client's language."))
    person_id = serializers.CharField(
        source="other.person.person_id",
        required=False,
        help_text=_("Whom it looks like, or who has the same picture."),
    )
    similarity = serializers.FloatField(
        required=False, help_text=_("To that picture, or the best to the person's own; a cosine.")
    )


class InsertResultSerializer(FileResultSerializer):
    id = serializers.IntegerField(
        required=False, help_text=_("Of the embedding; what a search answers.")
    )
    stored = serializers.BooleanField(help_text=_("The picture is kept; do not send it again."))
    searchable = serializers.BooleanField(help_text=_("A search finds the picture."))
    warnings = WarningSerializer(many=True, required=False)


class InsertResponseSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    message = serializers.CharField(help_text=_("In the client's language."))
    inserted_count = serializers.IntegerField(help_text=_("Pictures that a search now finds."))
    collection = serializers.CharField()
    model = serializers.CharField()
    person_id = serializers.CharField()
    merged_into = serializers.CharField(
        required=False,
        help_text=_("The id of who got the pictures, because `person_id` was merged into it."),
    )
    results = InsertResultSerializer(many=True, help_text=_("In the order of the upload."))


class InsertAcceptedSerializer(InsertResponseSerializer):
    """The pictures are stored; searches find them later."""

    status_url = serializers.CharField(
        help_text=_(
            "The person's pictures with the `status` of each: `pending`, `indexed`, `failed`."
        )
    )


class InsertFailureSerializer(ErrorSerializer):
    """No picture was inserted, or some were stored but cannot be found yet; `results` says which."""

    inserted_count = serializers.IntegerField(required=False)
    collection = serializers.CharField(required=False)
    model = serializers.CharField(required=False)
    person_id = serializers.CharField(required=False)
    merged_into = serializers.CharField(required=False)
    results = InsertResultSerializer(many=True, required=False)


class StatsResponseSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    collection = serializers.CharField(read_only=True, default=COLLECTION)
    row_count = serializers.IntegerField(help_text=_("Vectors: one for each picture and model."))
