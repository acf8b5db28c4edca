"""What the pages about persons ask for."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from enrollment.admin.forms import PicturesField
from enrollment.models import Person
from enrollment.selectors import GALLERY_ORDERS


class GalleryForm(forms.Form):
    """Which persons, in which order; what makes no sense is left out."""

    q = forms.CharField(label=_("Search"), required=False, max_length=200)
    order = forms.ChoiceField(
        label=_("Order"),
        required=False,
        choices=[(key, label) for key, (label, _by) in GALLERY_ORDERS.items()],
    )


class DetailsForm(forms.ModelForm):
    class Meta:
        model = Person
        fields = ["person_id", "name", "notes"]
        widgets = {"notes": forms.Textarea(attrs={"rows": 4})}


class AddPicturesForm(forms.Form):
    pictures = PicturesField(label=_("Pictures"), allow_empty_file=True)
    use_face_detection = forms.BooleanField(
        label=_("Find the face in the pictures"), required=False, initial=True
    )


class NewOwnerForm(forms.ModelForm):
    """A person to make for pictures that are nobody's yet."""

    class Meta:
        model = Person
        fields = ["person_id", "name"]
