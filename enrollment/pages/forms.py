"""Forms of the search page and the compare page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.template.defaultfilters import filesizeformat
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from enrollment.web import PicturesField
from recognition.conf import get_settings
from recognition.imaging import ACCEPT
from recognition.liveness import has_liveness
from recognition.networks import NETWORKS, has_weights, usable_names

if TYPE_CHECKING:
    from django.core.files.uploadedfile import UploadedFile
    from django.utils.functional import Promise

    from recognition.networks.registry import FaceNetwork

DEFAULT_RESULTS: Final = 5
MAX_RESULTS: Final = 50
NO_PICTURE: Final = _("No picture was chosen. Choose one from your device, then search.")


@dataclass(frozen=True, slots=True)
class ModelOption:
    """A model as the page offers it; `obstacle` says why it cannot be chosen, or is empty."""

    name: str
    description: str | Promise
    obstacle: str

    @property
    def label(self) -> str:
        """What the description says after the network's own name: what tells an operator which to take."""
        name, colon, use = str(self.description).partition(": ")
        return capfirst(use if colon else name)


def model_options() -> list[ModelOption]:
    """Return every model, including those without weights."""
    return [
        ModelOption(network.name, network.description, _obstacle(network))
        for network in NETWORKS.values()
    ]


def _obstacle(network: FaceNetwork) -> str:
    if has_weights(network.name):
        return ""
    return gettext("It cannot be chosen: the administrator has not installed it.")


def _best_model() -> str:
    return next(iter(usable_names()), "")


def _model_field() -> forms.ChoiceField:
    return forms.ChoiceField(
        label=_("Model"),
        choices=[(name, name) for name in NETWORKS],
        initial=_best_model,
        error_messages={
            "required": _("No model was chosen. Choose one of those that can be used."),
            "invalid_choice": _("There is no model “%(value)s”. Choose one of those listed."),
        },
    )


class LivenessForm(forms.Form):
    """A form that can ask for the liveness check. Where its networks are not there, it is not offered; who
    asks for it all the same is told so."""

    check_liveness = forms.BooleanField(
        label=_("Look for pictures of pictures"),
        required=False,
        help_text=_(
            "Says of each face whether it may be on paper or on a screen. It errs now and then, and of grey "
            "pictures nearly always."
        ),
    )

    @property
    def offers_liveness(self) -> bool:
        return has_liveness()


class SearchForm(LivenessForm):
    """Pictures to search for, the model, and what to answer."""

    images = PicturesField(label=_("Pictures"), required=False, allow_empty_file=True)
    model = _model_field()
    top_k = forms.IntegerField(
        label=_("Number of results"),
        min_value=1,
        max_value=MAX_RESULTS,
        initial=DEFAULT_RESULTS,
    )
    group_by_person = forms.BooleanField(label=_("Each person once"), required=False, initial=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        message = gettext("The number of results must be a whole number from 1 to %(max)d.")
        for code in ("required", "invalid", "min_value", "max_value"):
            self.fields["top_k"].error_messages[code] = message % {"max": MAX_RESULTS}

    def clean_images(self) -> list[UploadedFile]:
        images: list[UploadedFile] = self.cleaned_data["images"]
        if not images:
            raise forms.ValidationError(NO_PICTURE, "required")
        limit = get_settings().max_batch_size
        if len(images) > limit:
            message = gettext(
                "%(count)d pictures were chosen; at most %(limit)d are searched at once."
            )
            raise forms.ValidationError(
                message % {"count": len(images), "limit": limit}, "too_many"
            )
        check_size(images)
        return images


class CompareForm(LivenessForm):
    """A picture, what to compare it with (another picture or an enrolled person), and the model."""

    source = forms.FileField(
        widget=forms.FileInput(attrs={"accept": ACCEPT}),
        label=_("First picture"),
        allow_empty_file=True,  # decoding gives a clearer error
        error_messages={"required": _("The first picture is missing. Choose it, then compare.")},
    )
    target = forms.FileField(
        widget=forms.FileInput(attrs={"accept": ACCEPT}),
        label=_("Second picture"),
        required=False,
        allow_empty_file=True,
        error_messages={
            "required": _(
                "The second picture is missing. Choose it, or name an enrolled person, then compare."
            )
        },
    )
    person = forms.CharField(label=_("Or an enrolled person"), required=False, max_length=200)
    model = _model_field()

    def clean(self) -> dict[str, Any]:
        super().clean()
        values = self.cleaned_data
        target, person = values.get("target"), values.get("person")
        if target and person:
            message = _("A second picture and a person were given. Leave one of them out.")
            self.add_error("person", forms.ValidationError(message, "both"))
        elif not (target or person or self.errors.keys() & {"target", "person"}):
            message = self.fields["target"].error_messages["required"]
            self.add_error("target", forms.ValidationError(message, "required"))
        check_size([values[name] for name in ("source", "target") if values.get(name)])
        return values


def check_size(images: list[UploadedFile]) -> None:
    """Raise `ValidationError` if the pictures are larger in total than a request may be."""
    size, limit = sum(image.size or 0 for image in images), get_settings().max_request_bytes
    if size <= limit:
        return
    message = ngettext(
        "The picture has %(size)s; at most %(limit)s are accepted. Scale it down and try again.",
        "The pictures have %(size)s together; at most %(limit)s are accepted. Choose fewer of them.",
        len(images),
    )
    sizes = {"size": filesizeformat(size), "limit": filesizeformat(limit)}
    raise forms.ValidationError(message % sizes, "image_too_large")
