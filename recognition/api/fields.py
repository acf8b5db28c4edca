"""Form fields that several endpoints use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NoReturn

from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty

from recognition.api.exceptions import TOO_MANY_IMAGES, too_many_images
from recognition.conf import get_settings
from recognition.exceptions import UnknownModel
from recognition.networks import NETWORKS, get_network

GIVEN_SHOWN: Final = 50  # characters of a wrong value that an error shows


def default_model() -> str:
    return get_settings().default_model


@extend_schema_field({"type": "string", "enum": [*NETWORKS], "default": "mobilenetv3_large"})
class ModelField(serializers.ChoiceField):
    """The name of a model. The error for an unknown name lists the known ones."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            choices=list(NETWORKS),
            default=default_model,
            initial=default_model,
            help_text=_("Which model computes the embedding."),
            **kwargs,
        )

    def to_internal_value(self, data: Any) -> str:
        try:
            return get_network(str(data)).name
        except UnknownModel as error:
            raise serializers.ValidationError(str(error), code=error.code) from error


class TextField(serializers.CharField):
    """Text of a limited length."""

    default_error_messages = {
        "invalid": _("This is no text. Send it as a string."),
        "null": _("null was given; text is expected, an empty one for none."),
        "max_length": _("The text is too long; at most {max_length} characters are expected."),
    }


class DayField(serializers.DateField):
    """A date."""

    default_error_messages = {
        "required": _("The day is missing. Write it as 2027-12-31."),
        **dict.fromkeys(("invalid", "datetime"), _("This is no day. Write it as 2027-12-31.")),
    }


class OneOfField(serializers.ChoiceField):
    """One of a few words."""

    default_error_messages = {
        "required": _("The field is missing; one of these is expected: {known}."),
        "null": _("null was given; one of these is expected: {known}."),
        "invalid_choice": _("'{input}' was given; one of these is expected: {known}."),
    }

    def fail(self, key: str, **values: Any) -> NoReturn:
        given = {"input": shortened(values.get("input")), "known": ", ".join(self.choices)}
        super().fail(key, **values | given)


class FlagField(serializers.BooleanField):
    """`true` or `false` in a form. A missing field has its default, which need not be `false`."""

    default_empty_html = empty
    default_error_messages = {
        "neither": _("'{given}' was given; true or false is expected."),
        "null": _("null was given; true or false is expected."),
    }

    def __init__(self, **kwargs: Any) -> None:
        # The browsable API preselects the default, or nothing if there is none.
        kwargs.setdefault("initial", kwargs.get("default"))
        super().__init__(style={"template": "api/flag.html"}, **kwargs)

    def to_internal_value(self, data: Any) -> bool | None:
        try:
            return super().to_internal_value(data)
        except serializers.ValidationError:
            self.fail("neither", given=shortened(data))


class NumberField(serializers.FloatField):
    """A finite number within its limits."""

    default_error_messages = {
        "between": _("'{given}' was given; a number from {least:g} to {most:g} is expected."),
        "at_least": _("'{given}' was given; a number of {least:g} or more is expected."),
    }

    def run_validation(self, data: Any = empty) -> float | None:
        return _within_limits(self, super().run_validation, data)

    def to_internal_value(self, data: Any) -> float:
        number = super().to_internal_value(data)
        if not math.isfinite(number):
            self.fail("invalid")
        return number


class WholeNumberField(serializers.IntegerField):
    """An integer within its limits."""

    default_error_messages = {
        "between": _("'{given}' was given; a whole number from {least} to {most} is expected."),
        "at_least": _("'{given}' was given; a whole number of {least} or more is expected."),
    }

    def run_validation(self, data: Any = empty) -> int | None:
        return _within_limits(self, super().run_validation, data)


def _within_limits(field: Any, validate: Callable[[Any], Any], data: Any) -> Any:
    """Return what `validate` returns; its errors become one message that names the limits."""
    try:
        return validate(data)
    except serializers.ValidationError:
        if data is empty or data is None:
            raise
        limits = {"given": shortened(data), "least": field.min_value, "most": field.max_value}
        field.fail("at_least" if field.max_value is None else "between", **limits)


def shortened(data: Any) -> str:
    """Return a client's value, shortened for an error message."""
    text = str(data)
    return text if len(text) <= GIVEN_SHOWN else f"{text[:GIVEN_SHOWN]}…"


class ImageField(serializers.FileField):
    """An uploaded file. Decoding finds out later whether it is a picture."""

    default_error_messages = {
        "required": _("The picture is missing. Send it as a file of a multipart/form-data form."),
        "invalid": _("This is text, not a file. Send the picture as a file of the form."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_empty_file=True, **kwargs)


class RepeatedField(serializers.ListField):
    """A list: in a form by repeating the field, in JSON as an array.

    The framework reads `name[0]` in forms as well, of which it drops all but the last, and fails at
    large numbers. Here it is a field that nobody knows.
    """

    def get_value(self, dictionary: Any) -> Any:
        if self.field_name not in dictionary:
            return empty
        is_form = isinstance(dictionary, MultiValueDict)
        return dictionary.getlist(self.field_name) if is_form else dictionary[self.field_name]


class ImagesField(RepeatedField):
    """Uploaded pictures, sent by repeating the field for each file."""

    child = ImageField()
    default_error_messages = {
        "required": _(
            "The pictures are missing. Send them as files of a multipart/form-data form, "
            "the field repeated for each."
        ),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(style={"template": "api/files.html"}, **kwargs)

    def run_validation(self, data: Any = empty) -> Any:
        limit = get_settings().max_batch_size
        if isinstance(data, list) and len(data) > limit:
            raise serializers.ValidationError(too_many_images(len(data)), code=TOO_MANY_IMAGES)
        return super().run_validation(data)
