"""What the admin's first page shows of the gallery."""

from __future__ import annotations

from django import template

from enrollment import selectors
from enrollment.selectors import GalleryState

register = template.Library()


@register.simple_tag
def gallery_state() -> GalleryState:
    return selectors.gallery_state()
