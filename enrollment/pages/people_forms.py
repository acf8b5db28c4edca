"""Forms of the pages about persons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.http import HttpRequest, QueryDict
from django.utils.translation import gettext_lazy as _

from enrollment.corrections import CHANGEABLE
from enrollment.gallery import GALLERY_ORDERS, PERSON_FILTERS
from enrollment.models import Person
from enrollment.pages.forms import check_size
from enrollment.web import DayInput, PicturesField

if TYPE_CHECKING:
    from django.core.files.uploadedfile import UploadedFile


class GalleryForm(forms.Form):
    """Search text, filters and order of the list of persons; invalid values are ignored."""

    q = forms.CharField(label=_("Search"), required=False, max_length=200)
    order = forms.ChoiceField(
        label=_("Order"),
        required=False,
        choices=[(key, label) for key, (label, _by) in GALLERY_ORDERS.items()],
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, label in PERSON_FILTERS.items():
            self.fields[name] = forms.BooleanField(label=label, required=False)

    def choices(self) -> tuple[str, list[str], str]:
        """Return the text, the names of the filters and the name of the order."""
        self.is_valid()
        chosen = self.cleaned_data
        order = chosen.get("order") or next(iter(GALLERY_ORDERS))
        return chosen.get("q", ""), [name for name in PERSON_FILTERS if chosen.get(name)], order

    def filter_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in PERSON_FILTERS]


class DetailsForm(forms.ModelForm):
    """The details of a person, and in hidden fields what the page showed: `changes` keeps what
    somebody else changed since, and the user of the form did not."""

    class Meta:
        model = Person
        fields = CHANGEABLE
        widgets = {
            "notes": forms.Textarea(attrs={"rows": 4}),
            "keep_until": DayInput(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None:  # people are often enrolled one after the other
            self.fields["person_id"].widget.attrs["autofocus"] = True
        for field in self.fields.values():
            field.show_hidden_initial = self.instance.pk is not None

    def changes(self) -> dict[str, Any]:
        """Return the values that differ from those that the page showed."""
        return {name: self.cleaned_data[name] for name in self.changed_data}


class AddPicturesForm(forms.Form):
    pictures = PicturesField(label=_("Pictures"), required=False, allow_empty_file=True)
    use_face_detection = forms.BooleanField(
        label=_("Find the face in the pictures"), required=False, initial=True
    )

    def clean_pictures(self) -> list[UploadedFile]:
        pictures: list[UploadedFile] = self.cleaned_data["pictures"]
        check_size(pictures)
        return pictures


class NewFaceForm(forms.ModelForm):
    """A new person for a searched face."""

    class Meta:
        model = Person
        fields = ["person_id", "name", "legal_basis"]


class NewOwnerForm(forms.ModelForm):
    """A new person for pictures that are moved."""

    class Meta:
        model = Person
        fields = ["person_id", "name"]


def chosen(data: QueryDict) -> list[int]:
    """Return the ids of the ticked pictures."""
    numbers = (number_of(value) for value in data.getlist("picture"))
    return [number for number in numbers if number]


def number_of(value: str | None) -> int | None:
    """Return a primary key that a form gives, or None for anything else."""
    if value and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return None


def from_page(request: HttpRequest) -> str:
    """Return the query that leads back to the page of a person's pictures, which the address names."""
    page = number_of(request.GET.get("page"))
    return f"?page={page}" if page else ""
