"""Pagination of long lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.core.paginator import Page, Paginator
from django.core.signing import BadSignature, Signer
from django.db.models import Model, Q, QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from recognition.api.answers import AnswerSerializer
from recognition.api.fields import WholeNumberField

_PLACES: Final = Signer(salt="enrollment.api.pagination")


class PageNumbers(PageNumberPagination):
    """Pagination by page number, answered by `PageSerializer`; by the row before, with `after`.

    A page beyond the last one is empty; an invalid page number is rejected.
    """

    page_size = 50
    after_query_param = "after"
    place: str | None = None  # of the last row, where another one follows
    is_walk = False
    page_size_query_param = "page_size"
    max_page_size = 500

    def paginate_queryset(
        self, queryset: QuerySet[Any], request: Request, view: Any = None
    ) -> list[Any]:
        serializer = ListQuerySerializer if isinstance(queryset, QuerySet) else PageQuerySerializer
        query = serializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        self.request, number = request, query.validated_data["page"]
        pages = Paginator(queryset, query.validated_data["page_size"])
        after = query.validated_data.get(self.after_query_param)
        if after is not None:
            return self._walk(queryset, after, pages)
        self.page = pages.page(number) if number <= pages.num_pages else Page([], number, pages)
        self.results = list(self.page)
        return self.results

    def _walk(self, queryset: QuerySet[Any], after: str, pages: Paginator[Any]) -> list[Any]:
        """Take the rows that follow that place in the order: none is lost when others go or come."""
        order = [str(column) for column in queryset.query.order_by or queryset.model._meta.ordering]
        rows = queryset.filter(_beyond(order, after)) if after else queryset
        found = list(rows[: pages.per_page + 1])
        self.results, more = found[: pages.per_page], found[pages.per_page :]
        self.place = _place(self.results[-1], order) if more else None
        self.page, self.is_walk = Page(self.results, 1, pages), True
        return self.results

    def get_next_link(self) -> str | None:
        if not self.is_walk or self.request is None:
            return super().get_next_link()
        here = self.request.build_absolute_uri()
        return self.place and replace_query_param(here, self.after_query_param, self.place)

    def get_previous_link(self) -> str | None:
        if self.page is None or self.request is None or self.is_walk:
            return None
        number = self.page.number - 1
        if not 1 <= number <= self.page.paginator.num_pages:
            return None
        here = self.request.build_absolute_uri()
        return replace_query_param(here, self.page_query_param, number)


def _place(row: Model, order: Sequence[str]) -> str:
    values = [getattr(row, column.removeprefix("-")) for column in order]
    plain = [value.isoformat() if hasattr(value, "isoformat") else value for value in values]
    return _PLACES.sign_object([order, plain])


def _beyond(order: Sequence[str], place: str) -> Q:
    """Return what holds for rows behind that place. Raise `ValidationError`."""
    try:
        given, values = _PLACES.unsign_object(place)
    except BadSignature:
        given, values = None, []
    if given != order:
        message = gettext("This is no place in this list. Begin with an empty 'after' again.")
        raise ValidationError({PageNumbers.after_query_param: message})
    beyond, same = Q(), Q()
    for column, value in zip(order, values, strict=True):
        name = column.removeprefix("-")
        beyond |= same & Q((f"{name}__{'gt' if name == column else 'lt'}", value))
        same &= Q((name, value))
    return beyond


class PageQuerySerializer(serializers.Serializer):
    page = WholeNumberField(default=1, min_value=1, help_text=_("Which page; 1 is first."))
    page_size = WholeNumberField(
        default=PageNumbers.page_size,
        min_value=1,
        max_value=PageNumbers.max_page_size,
        help_text=_("How many entries a page has."),
    )


class ListQuerySerializer(PageQuerySerializer):
    """The parameters of a list whose entries keep their order."""

    after = serializers.CharField(
        required=False,
        allow_blank=True,
        help_text=_(
            "To read all of the list while others change it: empty at first, then as in `next`. Not with "
            "`page`."
        ),
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if {"page", "after"} <= {*self.initial_data}:
            raise ValidationError({"after": gettext("Give 'page' or 'after', not both.")})
        return attrs


# Renders a `PageNumbers`; one page, though of a list.
@extend_schema_serializer(many=False)
class PageSerializer(AnswerSerializer):
    """One page of a list; `results` holds its entries."""

    success = serializers.BooleanField(read_only=True, default=True)
    count = serializers.IntegerField(
        source="page.paginator.count", help_text=_("Entries on all pages.")
    )
    pages = serializers.IntegerField(source="page.paginator.num_pages")
    next = serializers.CharField(
        source="get_next_link", allow_null=True, help_text=_("Address of the next page.")
    )
    previous = serializers.CharField(
        source="get_previous_link", allow_null=True, help_text=_("Address of the page before.")
    )
