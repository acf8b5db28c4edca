"""Where a page that the admin and the pages share is shown: its URLs and its templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from enrollment.models import FaceImage


def _nothing(_request: HttpRequest) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Place:
    """The URL names, template folder and common context of one entry point."""

    upload: str
    run: str
    audit: str
    persons: str
    person: str
    picture: str
    faces: str
    undo: str
    source: FaceImage.Source
    templates: str
    context: Callable[[HttpRequest], dict[str, Any]] = field(default=_nothing)

    def render(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        shown = {**self.context(request), **context, "place": self}
        return render(request, f"{self.templates}/{name}.html", shown)
