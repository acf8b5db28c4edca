"""The person's form: who they are, and pictures to add."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _

from enrollment.corrections import CHANGEABLE
from enrollment.models import Person


class PicturesInput(forms.FileInput):
    allow_multiple_selected = True

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[UploadedFile]:
        return files.getlist(name)


class PicturesField(forms.FileField):
    """Any number of files. Which of them are pictures is found out, and said, one by one."""

    widget = PicturesInput(attrs={"accept": ".png,.jpg,.jpeg,.bmp,.tif,.tiff"})

    def clean(self, data: list[UploadedFile], initial: Any = None) -> list[UploadedFile]:
        return [super(PicturesField, self).clean(file) for file in data]

    def has_changed(self, initial: Any, data: list[UploadedFile]) -> bool:
        return not self.disabled and bool(data)


class PersonForm(forms.ModelForm):
    pictures = PicturesField(
        label=_("Pictures"),
        required=False,
        allow_empty_file=True,
        help_text=_(
            "JPEG, PNG, BMP or TIFF, several at once, each with this person's face as the largest. "
            "A picture that is refused does not stop the others."
        ),
    )
    use_face_detection = forms.BooleanField(
        label=_("Find the face in the pictures"),
        required=False,
        initial=True,
        help_text=_("Off: each picture is taken as an aligned crop of a face."),
    )

    class Meta:
        model = Person
        fields = CHANGEABLE
        widgets = {
            "notes": forms.Textarea(attrs={"rows": 3}),
            "legal_basis": AdminTextInputWidget(attrs={"class": "vLargeTextField"}),
        }
