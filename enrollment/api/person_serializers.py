"""Serializers of the endpoints for persons."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from enrollment.api.pagination import PageSerializer
from enrollment.api.paths import PersonUrlField, PictureUrlField, person_url
from enrollment.api.serializers import InsertFormSerializer, PersonIdField, WarningSerializer
from enrollment.corrections import CHANGEABLE
from enrollment.models import FaceEmbedding, FaceImage, Person, TrashItem
from recognition.api.answers import AnswerSerializer, InstantField
from recognition.api.fields import DayField, FlagField, TextField, WholeNumberField
from recognition.api.serializers import QualitySerializer


class PersonFormSerializer(serializers.ModelSerializer):
    serializer_field_mapping = serializers.ModelSerializer.serializer_field_mapping | {
        models.CharField: TextField,
        models.TextField: TextField,
        models.DateField: DayField,
    }

    person_id = PersonIdField(help_text=_("What you call this person: a CPF, a name, any text."))

    class Meta:
        model = Person
        fields = CHANGEABLE
        extra_kwargs = {
            "keep_until": {
                "help_text": _(
                    "The last day, as 2027-12-31: when it is over, the person is deleted with all "
                    "pictures. Null: kept until somebody deletes them."
                )
            }
        }


class PersonChangeSerializer(PersonFormSerializer):
    person_id = PersonIdField(required=False, help_text=_("The new id."))
    cover = WholeNumberField(
        required=False,
        allow_null=True,
        min_value=1,
        help_text=_("The id of the picture that lists show; null: the first."),
    )

    class Meta(PersonFormSerializer.Meta):
        fields = (*CHANGEABLE, "cover")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            message = gettext("There is nothing to change. Send at least one of: %(known)s.")
            known = ", ".join(self.fields)
            raise serializers.ValidationError(message % {"known": known})
        return attrs


class MergeFormSerializer(serializers.Serializer):
    person_id = PersonIdField(
        help_text=_("Whose pictures the person of the address gets; this one is then deleted.")
    )


# The fields of an insert without the person id, which is in the URL.
class PicturesFormSerializer(InsertFormSerializer):
    person_id = None


class PictureMoveSerializer(serializers.Serializer):
    person_id = PersonIdField(help_text=_("Whom the picture shows."))
    create_person = FlagField(
        default=False, help_text=_("True: this person is new; made together with the move.")
    )


class EraseQuerySerializer(serializers.Serializer):
    erase = FlagField(
        default=False,
        help_text=_("True: erased at once and for good, instead of put into the trash."),
    )


class RestoreFormSerializer(serializers.Serializer):
    person_id = PersonIdField(
        required=False,
        help_text=_("Another id for the person, if somebody else has theirs by now."),
    )


# Answers


class UndoSerializer(AnswerSerializer):
    undo = serializers.IntegerField(
        source="undo.pk",
        allow_null=True,
        help_text=_("The item of the trash that undoes this; null: nothing does."),
    )
    undo_until = InstantField(
        source="undo.erase_at", allow_null=True, help_text=_("Until when it can be undone.")
    )


class TrashItemSerializer(AnswerSerializer, serializers.ModelSerializer):
    """An act that can be undone."""

    label = serializers.CharField(source="about", help_text=_("Whom it is about."))
    person_ids = serializers.ListField(
        child=serializers.CharField(), help_text=_("The ids of the people that it holds.")
    )
    pictures = serializers.IntegerField(help_text=_("How many pictures come back or move back."))
    created_at = InstantField()
    undo_until = InstantField(source="erase_at")

    class Meta:
        model = TrashItem
        fields = ("id", "kind", "label", "person_ids", "pictures", "created_at", "undo_until")
        read_only_fields = ("id", "kind")


class TrashPageSerializer(PageSerializer):
    results = TrashItemSerializer(many=True)


class RestoredSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    person_ids = serializers.ListField(
        child=serializers.CharField(),
        help_text=_("Who is there again, or has pictures back."),
    )
    pictures = serializers.IntegerField(help_text=_("How many pictures came back or went back."))


class ErasedSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    receipts = serializers.ListField(
        child=serializers.JSONField(),
        help_text=_("One for each person who was erased, signed. Keep them."),
    )


# Renders a person annotated by `with_pictures`.
class PersonSerializer(AnswerSerializer, serializers.ModelSerializer):
    picture_count = serializers.IntegerField()
    cover = serializers.IntegerField(
        source="cover_id", allow_null=True, help_text=_("The picture chosen for lists.")
    )
    cover_url = PictureUrlField(
        source="shown_picture",
        allow_null=True,
        help_text=_("Where the cover is, or else the first picture."),
    )
    created_at = InstantField()
    updated_at = InstantField()
    url = PersonUrlField(source="person_id")

    class Meta:
        model = Person
        fields = (
            *CHANGEABLE,
            "picture_count",
            "cover",
            "cover_url",
            "created_at",
            "updated_at",
            "url",
        )
        read_only_fields = CHANGEABLE


class PersonPageSerializer(PageSerializer):
    results = PersonSerializer(many=True)


class PersonResponseSerializer(PersonSerializer):
    success = serializers.BooleanField(read_only=True, default=True)

    class Meta(PersonSerializer.Meta):
        fields = (*PersonSerializer.Meta.fields, "success")


class MergeResponseSerializer(UndoSerializer, PersonResponseSerializer):
    moved_pictures = serializers.IntegerField()

    class Meta(PersonResponseSerializer.Meta):
        fields = (*PersonResponseSerializer.Meta.fields, "moved_pictures", "undo", "undo_until")


class DeletedSerializer(UndoSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    person_id = serializers.CharField()
    deleted_pictures = serializers.IntegerField()
    receipt = serializers.JSONField(
        required=False,
        help_text=_("Of an erasure, signed: `receipt`, `public_key`, `signature`. Keep it."),
    )


class PictureStateSerializer(AnswerSerializer, serializers.ModelSerializer):
    """The embedding of a picture by one model, and its state."""

    id = serializers.IntegerField(help_text=_("Of the embedding; what a search answers."))
    error = serializers.CharField(allow_blank=True, help_text=_("Why it failed, as a code."))
    message = serializers.CharField(
        source="error_message",
        allow_blank=True,
        help_text=_("The same as a sentence, and what to do."),
    )

    class Meta:
        model = FaceEmbedding
        fields = ("id", "model", "status", "face_detected", "error", "message")
        read_only_fields = ("model", "status", "face_detected")


# Renders a picture from `pictures_of`.
class PictureSerializer(AnswerSerializer, serializers.ModelSerializer):
    person_id = serializers.CharField(source="person.person_id")
    url = serializers.SerializerMethodField(
        help_text=_("The picture itself; `?size=thumb` makes it small.")
    )
    is_cover = serializers.SerializerMethodField()
    created_at = InstantField()
    quality = QualitySerializer(allow_null=True, help_text=_("Null without a face."))
    embeddings = PictureStateSerializer(many=True)
    warnings = WarningSerializer(
        source="doubts", many=True, help_text=_("What speaks against the picture.")
    )

    class Meta:
        model = FaceImage
        fields = (
            "id",
            "person_id",
            "url",
            "original_path",
            "source",
            "width",
            "height",
            "is_cover",
            "created_at",
            "quality",
            "embeddings",
            "warnings",
        )
        read_only_fields = ("id", "original_path", "source", "width", "height")

    def get_url(self, picture: FaceImage) -> str:
        person = person_url(self.context["request"], picture.person.person_id)
        return f"{person}/images/{picture.pk}"

    def get_is_cover(self, picture: FaceImage) -> bool:
        return picture.pk == picture.person.cover_id


class PicturePageSerializer(PageSerializer):
    results = PictureSerializer(many=True)


class PictureResponseSerializer(PictureSerializer):
    success = serializers.BooleanField(read_only=True, default=True)

    class Meta(PictureSerializer.Meta):
        fields = (*PictureSerializer.Meta.fields, "success")


class PictureMovedSerializer(UndoSerializer, PictureResponseSerializer):
    class Meta(PictureResponseSerializer.Meta):
        fields = (*PictureResponseSerializer.Meta.fields, "undo", "undo_until")
