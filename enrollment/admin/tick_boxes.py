"""Groups and permissions as boxes to tick, permissions under what the admin calls each thing."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.forms.models import ModelChoiceIterator
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

_ACTS: Final = {
    "view": _("View"),
    "add": _("Add"),
    "change": _("Change"),
    "delete": _("Delete"),
    "export": _("Export all data"),
}
_OURS: Final = ("enrollment", "auth")  # of which permissions are not folded
_FIRST: Final = ("person", "faceimage")


class TickBoxes(forms.CheckboxSelectMultiple):
    """Boxes below each other, or in groups, of which some of `PermissionsField` are folded."""

    template_name = "admin/widgets/tick_boxes.html"

    def __init__(self, title: Any = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.title = title

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        context["widget"] |= {
            "title": capfirst(self.title),
            "shown": getattr(self.choices, "shown", sys.maxsize),
        }
        return context


class _Grouped(ModelChoiceIterator):
    """The permissions of each thing that the admin shows; then the others."""

    def __iter__(self) -> Iterator[Any]:
        of: defaultdict[ContentType, list[Permission]] = defaultdict(list)
        for permission in self.queryset.select_related("content_type"):
            of[permission.content_type].append(permission)
        kinds = sorted(of, key=_place)
        self.shown = sum(_is_known(kind) for kind in kinds)
        for kind in kinds:
            found = sorted(of[kind], key=_order)
            yield _name(kind), [(each.pk, _label(each)) for each in found]


class PermissionsField(forms.ModelMultipleChoiceField):
    iterator = _Grouped


def _is_known(kind: ContentType) -> bool:
    model = kind.model_class()
    return kind.app_label in _OURS and model is not None and admin.site.is_registered(model)


def _place(kind: ContentType) -> tuple[Any, ...]:
    is_first = kind.app_label == "enrollment" and kind.model in _FIRST
    first = _FIRST.index(kind.model) if is_first else len(_FIRST)
    return not _is_known(kind), first, kind.app_label != "enrollment", kind.app_label, _name(kind)


def _name(kind: ContentType) -> str:
    model = kind.model_class()
    return str(capfirst(model._meta.verbose_name_plural if model else kind.model))


def _act(permission: Permission) -> str:
    return permission.codename.removesuffix(f"_{permission.content_type.model}")


def _order(permission: Permission) -> tuple[int, str]:
    acts, act = list(_ACTS), _act(permission)
    return (acts.index(act) if act in acts else len(acts)), permission.codename


def _label(permission: Permission) -> str:
    return str(_ACTS.get(_act(permission), permission.name))
