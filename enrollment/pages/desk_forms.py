"""Forms of the desk for data subjects."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from enrollment.desk import Ground
from enrollment.models import DOCUMENT_TYPES, Consent
from enrollment.web import DayInput


class ErasureForm(forms.Form):
    ground = forms.ChoiceField(
        label=_("Why"), choices=lambda: [(ground.value, ground.label) for ground in Ground]
    )


class ConsentForm(forms.ModelForm):
    class Meta:
        model = Consent
        fields = ["document", "day", "expires", "purposes"]
        widgets = {
            "document": forms.FileInput(
                attrs={"accept": ",".join(f".{kind}" for kind in DOCUMENT_TYPES)}
            ),
            "day": DayInput(),
            "expires": DayInput(),
            "purposes": forms.CheckboxSelectMultiple,
        }
        help_texts = {"purposes": _("What the person may be searched for.")}
