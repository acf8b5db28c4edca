"""The form of a person, with an upload field for pictures."""

from __future__ import annotations

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget
from django.utils.translation import gettext_lazy as _

from enrollment.corrections import CHANGEABLE
from enrollment.models import Person
from enrollment.web import PicturesField


class PersonForm(forms.ModelForm):
    pictures = PicturesField(
        label=_("Pictures"),
        required=False,
        allow_empty_file=True,
        help_text=_(
            "JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF, several at once. Of a picture with "
            "several faces you choose the right one next. A picture that is refused does not stop the others."
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
