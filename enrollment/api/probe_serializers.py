"""Serializers of search and verification."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import orjson
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from enrollment.api.paths import PictureUrlField
from enrollment.api.serializers import PersonIdField
from enrollment.gallery import NO_THRESHOLDS
from recognition.api.answers import AnswerSerializer, InstantField
from recognition.api.fields import FlagField, ImageField, NumberField, WholeNumberField
from recognition.api.serializers import FaceDescriptionSerializer, ProbeOptionsSerializer
from recognition.decision import Decision
from recognition.exceptions import NoFaceDetected
from recognition.networks.registry import EMBEDDING_DIM

DEFAULT_TOP_K: Final = 5
MAX_TOP_K: Final = 1000


def _refuse_number(text: str) -> None:
    raise ValueError(text)


def _parsed(text: str) -> Any:
    """Return the JSON, read seven times as fast where its numbers are neither too large nor none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text, parse_constant=_refuse_number)


@extend_schema_field({"type": "string", "example": "[0.0312, -0.0147, 0.0581, …]"})
class EmbeddingField(serializers.CharField):
    """A form field with a JSON array of 512 numbers, read as 512 float32 of length 1."""

    default_error_messages = {
        "not_json": _("This is not JSON. Send a JSON array of 512 numbers, as an embedding has."),
        "not_numbers": _(
            "This is JSON, but not an array of 512 numbers (finite ones, not all zero). Send the "
            "embedding as /api/embedding answers it."
        ),
        "wrong_length": _("The array has %(given)d numbers; an embedding has %(expected)d."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Those of text would print the 512 numbers (20 ms) to look for characters that JSON has not.
        self.validators = []

    def to_internal_value(self, data: Any) -> np.ndarray:
        text = super().to_internal_value(data)
        try:
            numbers = _parsed(text)
        except (ValueError, RecursionError):
            self.fail("not_json")
        if not isinstance(numbers, list) or not {*map(type, numbers)} <= {int, float}:
            self.fail("not_numbers")
        if len(numbers) != EMBEDDING_DIM:
            message = self.error_messages["wrong_length"]
            counts = {"given": len(numbers), "expected": EMBEDDING_DIM}
            raise serializers.ValidationError(message % counts)
        return self._unit_vector(numbers)

    def _unit_vector(self, numbers: list[float]) -> np.ndarray:
        try:
            vector = np.array(numbers, np.float64)
        except OverflowError:
            self.fail("not_numbers")
        largest = np.abs(vector).max()
        if not 0 < largest < np.inf:
            self.fail("not_numbers")
        vector /= largest  # so that the squares neither overflow nor underflow
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class SearchFormSerializer(ProbeOptionsSerializer):
    image = ImageField(
        required=False, help_text=_("One picture: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF.")
    )
    embedding = EmbeddingField(
        required=False,
        help_text=_(
            "Instead of a picture: a JSON array of 512 numbers, an embedding of the same model."
        ),
    )
    top_k = WholeNumberField(
        default=DEFAULT_TOP_K,
        initial=DEFAULT_TOP_K,
        min_value=1,
        max_value=MAX_TOP_K,
        help_text=_("How many of the most similar pictures to answer."),
    )
    threshold = NumberField(
        required=False,
        min_value=-1,
        max_value=1,
        help_text=_("Less similar pictures are left out."),
    )
    group_by_person = FlagField(
        default=False, help_text=_("True: of each person only the most similar picture.")
    )
    all_faces = FlagField(
        default=False, help_text=_("True: search for every face of the picture, under faces.")
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "image" not in attrs and "embedding" not in attrs:
            message = gettext(
                "The picture is missing. Send it as a file of a multipart/form-data form, or send "
                "an embedding."
            )
            raise serializers.ValidationError({"image": message})
        if "image" in attrs and "embedding" in attrs:
            message = gettext("A picture was sent as well. Send one of the two.")
            raise serializers.ValidationError({"embedding": message})
        if "embedding" in attrs and attrs["check_liveness"]:
            message = gettext(
                "An embedding does not tell the liveness of a face. Send the picture."
            )
            raise serializers.ValidationError({"check_liveness": message})
        return super().validate(attrs)


class VerifyFormSerializer(ProbeOptionsSerializer):
    source_image = ImageField(help_text=_("One picture: JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF."))
    target_image = ImageField(required=False, help_text=_("The picture to compare it with."))
    person_id = PersonIdField(
        required=False, help_text=_("Instead of the second picture: somebody who is enrolled.")
    )
    require_face = FlagField(
        required=False,
        initial=True,
        help_text=_(
            "True, as it is where faces are looked for: refuse a picture in which none is found. "
            "False: compare it as a whole."
        ),
    )
    threshold = NumberField(
        required=False,
        min_value=-1,
        max_value=1,
        help_text=_("From which similarity on they are one person; else as it was measured."),
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "target_image" not in attrs and "person_id" not in attrs:
            message = gettext(
                "There is nothing to compare with. Send a second picture, or the id of a person."
            )
            raise serializers.ValidationError({"target_image": message})
        if "target_image" in attrs and "person_id" in attrs:
            message = gettext("A second picture was sent as well. Send one of the two.")
            raise serializers.ValidationError({"person_id": message})
        attrs.setdefault("require_face", attrs["use_face_detection"])
        return super().validate(attrs)


# Answers


class DecisionField(serializers.ChoiceField):
    """`match`, `review` or `unknown`; null when no decision is possible."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=[*map(str, Decision)], allow_null=True, **kwargs)


class DecisionReasonField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            choices=[NoFaceDetected.code, NO_THRESHOLDS],
            required=False,
            help_text=_("Why there is no decision; only then."),
            **kwargs,
        )


# Renders a `SearchHit`.
class SearchHitSerializer(AnswerSerializer):
    id = serializers.IntegerField()
    person_id = serializers.CharField(source="person.person_id")
    person_name = serializers.CharField(source="person.name", allow_blank=True)
    image_path = serializers.CharField(
        source="face_image.original_path",
        allow_blank=True,
        help_text=_("Where the client said it was."),
    )
    image_url = PictureUrlField(source="face_image", help_text=_("Where the stored picture is."))
    created_at = InstantField(source="face_image.created_at")
    distance = serializers.FloatField(
        source="similarity", help_text=_("The cosine similarity: higher is more similar.")
    )
    similarity = serializers.FloatField(help_text=_("The same number under its right name."))
    decision = DecisionField(
        help_text=_("Whether it is the same person; null where nothing can be said.")
    )
    decision_reason = DecisionReasonField()


# Renders a hit that was set aside, and the feedback on it.
class SetAsideSerializer(AnswerSerializer):
    person_id = serializers.CharField(source="hit.person.person_id")
    person_name = serializers.CharField(source="hit.person.name", allow_blank=True)
    similarity = serializers.FloatField(source="hit.similarity")
    at = InstantField(source="said.created_at", help_text=_("When somebody said so."))
    by = serializers.CharField(
        required=False,
        allow_blank=True,
        help_text=_("Who said so; only for those who may browse the gallery."),
    )


class FaceHitsSerializer(FaceDescriptionSerializer):
    """The enrolled pictures most similar to one face."""

    results = SearchHitSerializer(many=True, help_text=_("Best first."))
    total = serializers.SerializerMethodField()
    set_aside = SetAsideSerializer(
        many=True,
        required=False,
        help_text=_(
            "People who are not among the results, because somebody said that this picture does not "
            "show them; absent when there are none."
        ),
    )
    decision = DecisionField(
        help_text=_("That of the best hit; unknown without hits, null where nothing can be said.")
    )
    decision_reason = DecisionReasonField()

    def get_total(self, face: dict[str, Any]) -> int:
        return len(face["results"])


class ThresholdsSerializer(AnswerSerializer):
    match = serializers.FloatField(
        source="match.similarity", help_text=_("From this similarity on it is a match.")
    )
    review = serializers.FloatField(
        source="review.similarity", help_text=_("From this one on somebody should look.")
    )


class AnswerNumberField(serializers.CharField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            source="answer.number",
            required=False,
            help_text=_(
                "Where searched faces are kept: the number of this answer, for the inbox and feedback."
            ),
            **kwargs,
        )


class SearchResponseSerializer(FaceHitsSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    model = serializers.CharField()
    answer_number = AnswerNumberField()
    thresholds = ThresholdsSerializer(
        allow_null=True, help_text=_("What decides; null when nobody measured the weights in use.")
    )
    faces = FaceHitsSerializer(
        many=True, required=False, help_text=_("With all_faces: every face, largest first.")
    )


class EnrolledFaceSerializer(FaceDescriptionSerializer):
    """The face that was compared; for an enrolled person, with the picture that it comes from."""

    id = serializers.IntegerField(
        source="crop.id", required=False, help_text=_("Of the embedding.")
    )
    person_id = serializers.CharField(source="crop.face_image.person.person_id", required=False)
    person_name = serializers.CharField(
        source="crop.face_image.person.name", required=False, allow_blank=True
    )
    image_url = PictureUrlField(source="crop.face_image", required=False)


class VerifyResponseSerializer(AnswerSerializer):
    success = serializers.BooleanField(read_only=True, default=True)
    verified = serializers.BooleanField(
        allow_null=True,
        help_text=_("Whether it is the same person; null without a threshold, or without a face."),
    )
    similarity = serializers.FloatField(
        allow_null=True,
        help_text=_(
            "The cosine, -1 to 1; null for who may not browse, when the picture is not like the person of "
            "the id, or nobody has it."
        ),
    )
    threshold = serializers.FloatField(
        allow_null=True,
        help_text=_("The request's, or else the one measured for the weights in use."),
    )
    decision = DecisionField(
        help_text=_("By the measured thresholds; null without them, or without a face.")
    )
    decision_reason = DecisionReasonField()
    set_aside = SetAsideSerializer(
        many=True,
        required=False,
        help_text=_(
            "The person, if somebody said that this picture does not show them; the verdict is that of the "
            "similarity all the same. Absent otherwise."
        ),
    )
    message = serializers.CharField(help_text=_("The verdict in words, in the client's language."))
    model = serializers.CharField()
    use_face_detection = serializers.BooleanField()
    source = FaceDescriptionSerializer()
    target = EnrolledFaceSerializer()
    answer_number = AnswerNumberField()
