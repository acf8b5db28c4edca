"""Filters and orderings of the list of persons."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import CharFilter, DjangoFilterBackend, Filter, FilterSet
from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.serializers import Serializer
from rest_framework.settings import api_settings

from enrollment.api.pagination import ListQuerySerializer
from enrollment.gallery import holds_words
from enrollment.models import Person
from recognition.api.fields import shortened
from recognition.api.parsers import refuse_repeated

ORDERS: Final = ("person_id", "name", "created_at", "updated_at", "picture_count")
ORDERINGS: Final = [f"{sign}{order}" for order in ORDERS for sign in ("", "-")]


def check_parameters(request: Request, known: Collection[str]) -> None:
    """Reject parameters that are not known, or repeated. Raise `ValidationError`."""
    given = request.query_params
    message = gettext("There is no such parameter. Known ones: %(known)s.") % {
        "known": ", ".join(known)
    }
    if unknown := {name: message for name in given if name not in known}:
        raise ValidationError(unknown)
    refuse_repeated({name: len(given.getlist(name)) for name in given})


def read_query(request: Request, serializer: type[Serializer]) -> dict[str, Any]:
    """Return what the address gives for the fields of the serializer. Raise `ValidationError`."""
    query = serializer(data=request.query_params)
    check_parameters(request, [*query.fields, api_settings.URL_FORMAT_OVERRIDE])
    query.is_valid(raise_exception=True)
    return dict(query.validated_data)


class KnownFilters(DjangoFilterBackend):
    """A filter backend that rejects unknown parameters: a misspelt filter would return everything.

    It rejects repeated ones as well, of which only the last would count.
    """

    def filter_queryset(
        self, request: Request, queryset: QuerySet[Any], view: Any
    ) -> QuerySet[Any]:
        filters = self.get_filterset_class(view)
        known = [
            *ListQuerySerializer().fields,
            *(filters.base_filters if filters else ()),
            api_settings.URL_FORMAT_OVERRIDE,
        ]
        check_parameters(request, known)
        return super().filter_queryset(request, queryset, view)


class OrderingField(forms.CharField):
    def validate(self, value: str) -> None:
        if value and value not in ORDERINGS:
            message = gettext(
                "'%(given)s' was given; one of these is expected, with a minus sign before it for the "
                "other way round: %(known)s."
            )
            known = {"given": shortened(value), "known": ", ".join(ORDERS)}
            # Not filled in yet: what is would be filled in once more.
            raise forms.ValidationError(message, params=known)


@extend_schema_field({"type": "string", "enum": ORDERINGS, "default": ORDERS[0]})
class OrderingFilter(Filter):
    """Sort the list; the primary key comes last, so that equal names keep their order across pages."""

    field_class = OrderingField

    def filter(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.order_by(value, "pk") if value else queryset


class PersonFilter(FilterSet):
    q = CharFilter(
        method="having_words",
        max_length=200,
        help_text=_("Only people whose id or name holds every one of these words."),
    )
    ordering = OrderingFilter(
        help_text=_("What the list is sorted by; with a minus sign the other way round."),
    )

    class Meta:
        model = Person
        fields: Final = ()

    def having_words(self, persons: QuerySet[Person], name: str, value: str) -> QuerySet[Person]:
        return persons.filter(holds_words(value))
