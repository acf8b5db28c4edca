"""Serializers of the desk for data subjects."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from enrollment.models import Consent
from recognition.api.answers import AnswerSerializer, InstantField
from recognition.api.fields import DayField, RepeatedField, TextField


class ConsentFormSerializer(serializers.Serializer):
    document = serializers.FileField(
        required=False, help_text=_("What was signed: PDF, picture or text.")
    )
    day = DayField(help_text=_("When it was given, as 2026-11-27."))
    expires = DayField(
        required=False, allow_null=True, help_text=_("The last day; none: it has no end.")
    )
    purposes = RepeatedField(
        child=TextField(max_length=100),
        default=list,
        help_text=_("Names of purposes, which the admin holds; the field repeated for each."),
    )


# Answers


# Renders a `Consent`.
class ConsentSerializer(AnswerSerializer, serializers.ModelSerializer):
    purposes: Any = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
    document = serializers.CharField(
        source="file_name", allow_blank=True, help_text=_("The document's name; empty without one.")
    )
    is_in_force = serializers.SerializerMethodField()
    created_at = InstantField()

    class Meta:
        model = Consent
        fields = ("id", "day", "expires", "purposes", "document", "is_in_force", "created_at")
        read_only_fields = ("id", "day", "expires")

    def get_is_in_force(self, consent: Consent) -> bool:
        return consent.is_in_force


class ConsentsSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    results = ConsentSerializer(many=True)


class ConsentResponseSerializer(ConsentSerializer):
    success = serializers.BooleanField(read_only=True, default=True)

    class Meta(ConsentSerializer.Meta):
        fields = (*ConsentSerializer.Meta.fields, "success")


class RemovedSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    id = serializers.IntegerField()
