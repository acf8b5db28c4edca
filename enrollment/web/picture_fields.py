"""Form fields for pictures, for the admin and the pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from recognition.imaging import ACCEPT


class PicturesInput(forms.FileInput):
    allow_multiple_selected = True

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[UploadedFile[Any]]:
        return list(files.getlist(name))


class PicturesField(forms.FileField):
    """A field for any number of files. Each file is validated as a picture later, one by one."""

    widget = PicturesInput(attrs={"accept": ACCEPT})

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile[Any]]:
        return [super(PicturesField, self).clean(file) for file in data]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return not self.disabled and bool(data)
