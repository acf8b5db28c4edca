"""Pagination of long lists."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from recognition.api.answers import AnswerSerializer
from recognition.api.fields import WholeNumberField


class PageNumbers(PageNumberPagination):
    """Pagination by page number, answered by `PageSerializer`.

    A page beyond the last one is empty; an invalid page number is rejected.
    """

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500

    def paginate_queryset(
        self, queryset: QuerySet[Any], request: Request, view: Any = None
    ) -> list[Any]:
        query = PageQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        self.request, number = request, query.validated_data["page"]
        pages = Paginator(queryset, query.validated_data["page_size"])
        self.page = pages.page(number) if number <= pages.num_pages else Page([], number, pages)
        self.results = list(self.page)
        return self.results

    def get_previous_link(self) -> str | None:
        if self.page is None or self.request is None:  # before `paginate_queryset`
            return None
        number = self.page.number - 1
        if not 1 <= number <= self.page.paginator.num_pages:
            return None
        here = self.request.build_absolute_uri()
        return replace_query_param(here, self.page_query_param, number)


class PageQuerySerializer(serializers.Serializer):
    page = WholeNumberField(default=1, min_value=1, help_text=_("Which page; 1 is first."))
    page_size = WholeNumberField(
        default=PageNumbers.page_size,
        min_value=1,
        max_value=PageNumbers.max_page_size,
        help_text=_("How many entries a page has."),
    )


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
