"""Base classes and fields of the serializers that render answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from recognition.networks.registry import EMBEDDING_DIM

_of_this_thread = threading.local()


def serializer_of_thread(cls: type[Any]) -> Any:
    """Return this thread's serializer of the class, made at its first use.

    To make one copies all its fields, which takes longer (0.3 to 0.5 ms) than to use it. It has no
    data: use `to_representation` or `run_validation`.
    """
    made: dict[type[Any], Any] = vars(_of_this_thread)
    if cls not in made:
        made[cls] = cls()
    return made[cls]


# The docstring of a serializer appears in the OpenAPI document, so a comment
# says what it renders.
class AnswerSerializer(serializers.Serializer):
    @classmethod
    def answer(cls, instance: Any, request: Request | None = None) -> dict[str, Any]:
        """Return the rendered `instance`; pass the `request` if the answer has absolute URLs."""
        serializer = serializer_of_thread(cls)
        context: dict[str, Any] = serializer.context
        context["request"] = request
        try:
            answer: dict[str, Any] = serializer.to_representation(instance)
            return answer
        finally:
            context.clear()

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Leave out fields that are None, unless the field allows null."""
        answer = super().to_representation(instance)
        return {
            name: value
            for name, value in answer.items()
            if value is not None or self.fields[name].allow_null
        }


def _numbers(length: int) -> dict[str, Any]:
    """Return the OpenAPI schema of an array of `length` numbers."""
    number = {"type": "number", "format": "double"}
    return {"type": "array", "items": number, "minItems": length, "maxItems": length}


@extend_schema_field(_numbers(EMBEDDING_DIM))
class VectorField(serializers.Field):
    """A vector of 512 float32 of length 1, rendered without validating each number."""

    def to_representation(self, value: np.ndarray) -> list[float]:
        return value.tolist()


class ScoreField(serializers.FloatField):
    """A share between 0 and 1, rounded to four digits."""

    def to_representation(self, value: Any) -> float:
        return round(float(value), 4)


class PixelsField(serializers.Field):
    """Coordinates in a picture, rounded to 0.01 pixels."""

    def to_representation(self, value: Sequence[Any] | np.ndarray) -> list[Any]:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        return [
            self.to_representation(item) if isinstance(item, list) else round(float(item), 2)
            for item in value
        ]


@extend_schema_field(_numbers(4))
class BoxField(PixelsField):
    """x, y, width, height in pixels."""


@extend_schema_field({"type": "array", "items": _numbers(2), "minItems": 5, "maxItems": 5})
class LandmarksField(PixelsField):
    """Five points (x, y) in pixels."""


class InstantField(serializers.DateTimeField):
    """A time in ISO 8601 with microseconds and UTC offset."""

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()
