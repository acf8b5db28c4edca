"""What answers are made of."""

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


# A docstring of a serializer is what the OpenAPI document says of the answer; whom it is of says a comment.
class AnswerSerializer(serializers.Serializer):
    @classmethod
    def answer(cls, instance: Any, request: Request | None = None) -> dict[str, Any]:
        """The answer about `instance`; of the `request` where addresses are part of it.

        One serializer a thread answers again and again: to make one takes longer (0.3 ms for an
        embedding) than all that it does then.
        """
        made: dict[Any, AnswerSerializer] = vars(_of_this_thread)
        serializer = made[cls] = made.get(cls) or cls(context={"request": None})
        context: dict[str, Any] = serializer.context
        context["request"] = request
        try:
            return serializer.to_representation(instance)
        finally:
            context.clear()

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Without what is None, unless the field is said to be null then."""
        answer = super().to_representation(instance)
        return {
            name: value
            for name, value in answer.items()
            if value is not None or self.fields[name].allow_null
        }


def _numbers(length: int) -> dict[str, Any]:
    """An array of so many numbers, as the OpenAPI document has it."""
    number = {"type": "number", "format": "double"}
    return {"type": "array", "items": number, "minItems": length, "maxItems": length}


@extend_schema_field(_numbers(EMBEDDING_DIM))
class VectorField(serializers.Field):
    """512 float32 of a NumPy array, together of length 1; they are not looked at one by one."""

    def to_representation(self, value: np.ndarray) -> list[float]:
        return value.tolist()


class ScoreField(serializers.FloatField):
    """A share of 1, to four digits."""

    def to_representation(self, value: Any) -> float:
        return round(float(value), 4)


class PixelsField(serializers.Field):
    """Places in a picture, to a hundredth of a pixel."""

    def to_representation(self, value: Sequence[Any] | np.ndarray) -> list[Any]:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        return [
            self.to_representation(item) if isinstance(item, list) else round(float(item), 2)
            for item in value
        ]


@extend_schema_field(_numbers(4))
class BoxField(PixelsField):
    """x, y, width, height."""


@extend_schema_field({"type": "array", "items": _numbers(2), "minItems": 5, "maxItems": 5})
class LandmarksField(PixelsField):
    """Five times x, y."""


class InstantField(serializers.DateTimeField):
    """ISO 8601, with microseconds and the offset."""

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()
