"""What the search page asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from recognition.conf import get_settings
from recognition.networks import NETWORKS, has_weights, usable_names

if TYPE_CHECKING:
    from django.core.files.uploadedfile import UploadedFile
    from django.utils.functional import Promise

    from recognition.networks.registry import FaceNetwork

DEFAULT_RESULTS: Final = 5
MAX_RESULTS: Final = 50


@dataclass(frozen=True, slots=True)
class ModelOption:
    """A model as the page offers it; `obstacle` says why it cannot be chosen, or is empty."""

    name: str
    description: str | Promise
    obstacle: str


def model_options() -> list[ModelOption]:
    """Every model there is, also those that cannot answer for want of weights."""
    return [
        ModelOption(network.name, network.description, _obstacle(network))
        for network in NETWORKS.values()
    ]


def _obstacle(network: FaceNetwork) -> str:
    if has_weights(network.name):
        return ""
    message = gettext("It cannot be chosen: this server has no weights file %(stem)s.ckpt.")
    return message % {"stem": network.weights_stem}


def _best_model() -> str:
    return next(iter(usable_names()), "")


class SearchForm(forms.Form):
    """A picture to compare with the gallery; which model compares, and how many hits to show."""

    image = forms.FileField(
        label=_("Picture"),
        allow_empty_file=True,  # reading the picture says it better
        error_messages={
            "required": _("No picture was chosen. Choose one from your device, then search."),
        },
    )
    model = forms.ChoiceField(
        label=_("Model"),
        choices=[(name, name) for name in NETWORKS],
        initial=_best_model,
        error_messages={
            "required": _("No model was chosen. Choose one of those that can be used."),
            "invalid_choice": _("There is no model “%(value)s”. Choose one of those listed."),
        },
    )
    top_k = forms.IntegerField(
        label=_("Number of results"),
        min_value=1,
        max_value=MAX_RESULTS,
        initial=DEFAULT_RESULTS,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        message = gettext("The number of results must be a whole number from 1 to %(max)d.")
        for code in ("required", "invalid", "min_value", "max_value"):
            self.fields["top_k"].error_messages[code] = message % {"max": MAX_RESULTS}

    def clean_image(self) -> UploadedFile:
        image: UploadedFile = self.cleaned_data["image"]
        limit = get_settings().max_request_bytes
        if image.size > limit:
            sizes = {"size": filesizeformat(image.size), "limit": filesizeformat(limit)}
            raise forms.ValidationError(
                gettext(
                    "The picture has %(size)s; at most %(limit)s are accepted. "
                    "Scale it down and try again."
                )
                % sizes,
                "image_too_large",
            )
        return image
