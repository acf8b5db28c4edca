"""The field for a day in the forms of pages."""

from __future__ import annotations

from django import forms


class DayInput(forms.DateInput):
    """The browser's own field for a day, which is sent as 2027-12-31."""

    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")
