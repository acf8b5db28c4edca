"""The filter of the inbox."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from enrollment.gallery import find_persons
from enrollment.inbox import Filters
from enrollment.pages.inbox_cards import KINDS
from enrollment.web import DayInput


class SiftForm(forms.Form):
    """What the cards must have; invalid values are ignored."""

    kind = forms.ChoiceField(
        label=_("What"),
        required=False,
        choices=[("", _("everything")), *((kind.value, label) for kind, label in KINDS.items())],
    )
    person = forms.CharField(label=_("Person"), required=False, max_length=200)
    day = forms.DateField(
        label=_("Day"),
        required=False,
        widget=DayInput(),
    )
    who = forms.CharField(label=_("Who searched"), required=False, max_length=150)

    def filters(self) -> Filters:
        """Return what is wanted; the person's text is an id, or else words of ids and names."""
        self.is_valid()
        wanted = self.cleaned_data
        text = wanted.get("person", "").strip()
        key = None
        if text:
            found = find_persons(text)
            person = found.filter(person_id=text).first() or found.first()
            key = person.pk if person else -1  # nobody
        return Filters(
            kind=wanted.get("kind", ""),
            person=key,
            day=wanted.get("day"),
            who=wanted.get("who", ""),
        )
