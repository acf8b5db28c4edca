"""Serializers of the inbox and of feedback."""

from __future__ import annotations

from typing import Any, Final

from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from enrollment.api.pagination import PageQuerySerializer, PageSerializer
from enrollment.api.paths import PictureUrlField
from enrollment.api.person_serializers import PersonFormSerializer, UndoSerializer
from enrollment.api.probe_serializers import DecisionField
from enrollment.api.serializers import PersonIdField
from enrollment.corrections import CHANGEABLE
from enrollment.inbox import Action, Card, Kind
from enrollment.probes import WITHDRAWN, Verdict
from recognition.api.answers import AnswerSerializer, InstantField
from recognition.api.fields import (
    DayField,
    FlagField,
    ImageField,
    OneOfField,
    TextField,
    WholeNumberField,
)
from recognition.api.serializers import ProbeOptionsSerializer

KINDS: Final = [str(kind) for kind in Kind]
ACTIONS: Final = [str(action) for action in Action]
VERDICTS: Final = [*Verdict.values, WITHDRAWN]


class InboxQuerySerializer(PageQuerySerializer):
    kind = OneOfField(
        KINDS,
        required=False,
        help_text=_(
            "Only searched faces (`probe`), doubted pictures, pairs of people, or refused files."
        ),
    )
    person_id = PersonIdField(
        required=False, help_text=_("Only cards about this person, as the nearest or doubted one.")
    )
    day = DayField(required=False, help_text=_("Only of this day, as 2027-12-31."))
    who = TextField(required=False, max_length=150, help_text=_("Only what this account searched."))


class SettleFormSerializer(PersonFormSerializer):
    action = OneOfField(ACTIONS, help_text=_("One of the `actions` of the card."))
    person_id = PersonIdField(
        required=False,
        help_text=_("Whom the face shows, or who of the pair is kept; of somebody new: the id."),
    )
    whole_group = FlagField(
        default=True, help_text=_("True: all faces that look like the same stranger.")
    )

    class Meta(PersonFormSerializer.Meta):
        fields = ("action", "whole_group", *CHANGEABLE)


class FeedbackFormSerializer(ProbeOptionsSerializer):
    answer_number = TextField(
        required=False, max_length=20, help_text=_("The number of an answer that is kept.")
    )
    face = WholeNumberField(
        default=1, min_value=1, help_text=_("Which face of the answer; 1 is first.")
    )
    image = ImageField(
        required=False, help_text=_("Instead of a number: the picture again; its largest face.")
    )
    person_id = PersonIdField(help_text=_("Whom the answer named."))
    verdict = OneOfField(
        VERDICTS,
        help_text=_("Whether the face is that person's; `withdrawn` forgets what was said of it."),
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("image" in attrs) == ("answer_number" in attrs):
            message = gettext("Send either the number of an answer, or a picture.")
            raise serializers.ValidationError({"answer_number": message})
        return attrs


# Answers


class CandidateSerializer(AnswerSerializer):
    """Who it may be, with their most similar picture."""

    person_id = serializers.CharField(source="person.person_id")
    person_name = serializers.CharField(source="person.name", allow_blank=True)
    image_url = PictureUrlField(source="picture", allow_null=True)
    similarity = serializers.FloatField(help_text=_("The cosine, -1 to 1."))
    decision = DecisionField()


# Renders a `Card`.
class CardSerializer(AnswerSerializer):
    """One thing that needs a person."""

    key = serializers.CharField(help_text=_("What the card is settled by."))
    kind = serializers.ChoiceField(KINDS)
    why = serializers.CharField(help_text=_("Why it is here, in the client's language."))
    at = InstantField(help_text=_("Of the search, or of the enrolment."))
    who = serializers.CharField(allow_blank=True, help_text=_("Who searched."))
    actions = serializers.ListField(
        child=serializers.ChoiceField(ACTIONS), help_text=_("What settles it.")
    )
    likeliest = serializers.ChoiceField(
        ACTIONS,
        allow_null=True,
        help_text=_("The likeliest of them; `assign` and `merge` for the first candidate."),
    )
    size = serializers.IntegerField(
        help_text=_("How many faces look like the same stranger; one act settles all.")
    )
    person_id = serializers.CharField(
        source="person.person_id", required=False, help_text=_("Whose the doubted picture is.")
    )
    image_url = serializers.SerializerMethodField(
        help_text=_("The face or the doubted picture; null for a pair.")
    )
    candidates = CandidateSerializer(many=True, help_text=_("At most three, best first."))
    problem = serializers.CharField(
        allow_blank=True, help_text=_("Why the face could not be compared: nobody is named then.")
    )

    def get_image_url(self, card: Card) -> str | None:
        request = self.context["request"]
        if card.probe:
            return request.build_absolute_uri(reverse("api-inbox-face", args=[card.key]))
        if card.picture:
            return request.build_absolute_uri(card.picture.get_absolute_url())
        return None


class InboxPageSerializer(PageSerializer):
    results = CardSerializer(many=True)


class CardResponseSerializer(CardSerializer):
    success = serializers.BooleanField(read_only=True, default=True)


class SettledSerializer(UndoSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    settled = serializers.IntegerField(help_text=_("Faces, pictures or pairs."))
    pictures = serializers.IntegerField(help_text=_("How many pictures were enrolled or moved."))
    person_id = serializers.CharField(
        allow_null=True, help_text=_("Whose they are since; null if nobody's.")
    )


class FeedbackResponseSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    person_id = serializers.CharField()
    verdict = serializers.ChoiceField(VERDICTS)
    similarity = serializers.FloatField(
        help_text=_("The cosine to the person's most similar picture.")
    )
    decision = DecisionField(help_text=_("What was shown for it."))
