"""The form fields that the image calls share."""

from __future__ import annotations

import math
from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty

from recognition.api.exceptions import TOO_MANY_IMAGES, too_many_images
from recognition.conf import get_settings
from recognition.exceptions import UnknownModel
from recognition.networks import NETWORKS, get_network


def default_model() -> str:
    return get_settings().default_model


@extend_schema_field({"type": "string", "enum": [*NETWORKS], "default": "mobilenetv3_large"})
class ModelField(serializers.ChoiceField):
    """The name of a model; an unknown one is answered with the names of the known ones."""

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


class FlagField(serializers.BooleanField):
    """`true` or `false` in a form; a field that is not sent has its default, not `false`."""

    default_empty_html = empty

    def __init__(self, **kwargs: Any) -> None:
        # A page shows the default; where there is none, that nothing is chosen.
        kwargs.setdefault("initial", kwargs.get("default"))
        super().__init__(style={"template": "api/flag.html"}, **kwargs)


class NumberField(serializers.FloatField):
    """A number; not NaN or infinity, which no limit would stop."""

    def to_internal_value(self, data: Any) -> float:
        number = super().to_internal_value(data)
        if not math.isfinite(number):
            self.fail("invalid")
        return number


class ImageField(serializers.FileField):
    """One uploaded picture. Whether it is one is found out when it is decoded."""

    default_error_messages = {
        "required": _("The picture is missing. Send it as a file of a multipart/form-data form."),
        "invalid": _("This is text, not a file. Send the picture as a file of the form."),
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_empty_file=True, **kwargs)


class ImagesField(serializers.ListField):
    """Uploaded pictures: the field is repeated, once for each file."""

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
