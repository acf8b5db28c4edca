"""Columns of sentences that are said in the language of whoever reads them; see `recognition.sentences`.

For migrations they are the columns that they derive from. A row of before keeps its text.
"""

from __future__ import annotations

from typing import Any

from django.db import models

from recognition.sentences import said, stored


class SentenceField(models.TextField[Any, Any]):
    """A sentence."""

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs

    def from_db_value(self, value: str | None, *_args: Any) -> str | None:
        return value and said(value)

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(stored(value) if isinstance(value, str) else value)

    def value_to_string(self, obj: models.Model) -> str:
        return stored(self.value_from_object(obj))


class SentencesField(models.JSONField):
    """A list of sentences."""

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        texts = super().from_db_value(value, expression, connection)
        return [said(text) for text in texts] if isinstance(texts, list) else texts

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(
            [stored(text) for text in value] if isinstance(value, list) else value
        )

    def value_to_string(self, obj: models.Model) -> Any:
        return self.get_prep_value(self.value_from_object(obj))
