"""What the calls about persons read, and what they answer."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from enrollment.api.pagination import PageQuerySerializer, PageSerializer
from enrollment.api.serializers import InsertFormSerializer, PersonIdField, WarningSerializer
from enrollment.models import Person
from recognition.api.fields import FlagField, WholeNumberField, shortened
from recognition.api.serializers import QualitySerializer

ORDERS: Final = ("person_id", "name", "created_at", "updated_at", "picture_count")
ORDERINGS: Final = [f"{sign}{order}" for order in ORDERS for sign in ("", "-")]


class OrderingField(serializers.ChoiceField):
    """What a list of persons is sorted by."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=ORDERINGS, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if data not in ORDERINGS:
            message = gettext(
                "'%(given)s' was given; one of these is expected, with a minus sign before it for the "
                "other way round: %(known)s."
            )
            known = {"given": shortened(data), "known": ", ".join(ORDERS)}
            raise serializers.ValidationError(message % known)
        return data


class PersonsQuerySerializer(PageQuerySerializer):
    q = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=200,
        help_text=_("Only persons whose id or name holds every one of these words."),
    )
    ordering = OrderingField(
        default="person_id",
        help_text=_("What the list is sorted by; with a minus sign the other way round."),
    )


class LegalBasisField(serializers.CharField):
    def __init__(self, **kwargs: Any) -> None:
        column = Person._meta.get_field("legal_basis")
        kwargs |= {"max_length": column.max_length, "help_text": column.help_text}
        super().__init__(allow_blank=True, **kwargs)


class KeepUntilField(serializers.DateField):
    def __init__(self, **kwargs: Any) -> None:
        help_text = _(
            "The last day, as 2027-12-31: when it is over, the person is deleted with all pictures. "
            "Null: kept until somebody deletes them."
        )
        super().__init__(required=False, allow_null=True, help_text=help_text, **kwargs)


class PersonFormSerializer(serializers.Serializer):
    person_id = PersonIdField(help_text=_("What you call this person: a CPF, a name, any text."))
    name = serializers.CharField(
        default="", allow_blank=True, max_length=Person._meta.get_field("name").max_length
    )
    notes = serializers.CharField(default="", allow_blank=True)
    legal_basis = LegalBasisField(default="")
    keep_until = KeepUntilField()


class PersonChangeSerializer(serializers.Serializer):
    person_id = PersonIdField(required=False, help_text=_("The new id."))
    name = serializers.CharField(
        required=False, allow_blank=True, max_length=Person._meta.get_field("name").max_length
    )
    notes = serializers.CharField(required=False, allow_blank=True)
    legal_basis = LegalBasisField(required=False)
    keep_until = KeepUntilField()
    cover = WholeNumberField(
        required=False,
        allow_null=True,
        min_value=1,
        help_text=_("The id of the picture that lists show; null: the first."),
    )

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


class PersonSerializer(serializers.Serializer):
    person_id = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    notes = serializers.CharField(allow_blank=True)
    legal_basis = serializers.CharField(allow_blank=True)
    keep_until = serializers.DateField(allow_null=True)
    picture_count = serializers.IntegerField()
    cover = serializers.IntegerField(allow_null=True, help_text=_("The picture chosen for lists."))
    cover_url = serializers.CharField(
        allow_null=True, help_text=_("Where the cover is, or else the first picture.")
    )
    created_at = serializers.CharField(help_text="ISO 8601.")
    updated_at = serializers.CharField(help_text="ISO 8601.")
    url = serializers.CharField()


class PersonPageSerializer(PageSerializer):
    results = PersonSerializer(many=True)


class PersonResponseSerializer(PersonSerializer):
    success = serializers.BooleanField()


class MergeResponseSerializer(PersonResponseSerializer):
    moved_pictures = serializers.IntegerField()


class PersonDeletedSerializer(serializers.Serializer):
    success = serializers.BooleanField()
    person_id = serializers.CharField()
    deleted_pictures = serializers.IntegerField()


class PictureStateSerializer(serializers.Serializer):
    """What one model made of a picture."""

    id = serializers.IntegerField(help_text=_("Of the embedding; what a search answers."))
    model = serializers.CharField()
    status = serializers.ChoiceField(choices=["pending", "indexed", "failed"])
    face_detected = serializers.BooleanField(allow_null=True)
    error = serializers.CharField(allow_blank=True, help_text=_("Why it failed, as a code."))
    message = serializers.CharField(
        allow_blank=True, help_text=_("The same as a sentence, and what to do.")
    )


class PictureSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    person_id = serializers.CharField()
    url = serializers.CharField(help_text=_("The picture itself; `?size=thumb` makes it small."))
    original_path = serializers.CharField(allow_blank=True)
    source = serializers.CharField()
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    is_cover = serializers.BooleanField()
    created_at = serializers.CharField(help_text="ISO 8601.")
    quality = QualitySerializer(allow_null=True, help_text=_("Null without a face."))
    embeddings = PictureStateSerializer(many=True)
    warnings = WarningSerializer(many=True, help_text=_("What speaks against the picture."))


class PicturePageSerializer(PageSerializer):
    results = PictureSerializer(many=True)


class PicturesFormSerializer(InsertFormSerializer):
    """As of an insert; whose pictures they are stands in the address."""

    person_id = None


class PictureMoveSerializer(serializers.Serializer):
    person_id = PersonIdField(help_text=_("Whom the picture shows."))
    create_person = FlagField(
        default=False, help_text=_("True: this person is new; made together with the move.")
    )


class PictureResponseSerializer(PictureSerializer):
    success = serializers.BooleanField()


class PictureDeletedSerializer(serializers.Serializer):
    success = serializers.BooleanField()
    person_id = serializers.CharField()
    deleted_pictures = serializers.IntegerField()
