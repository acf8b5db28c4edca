"""Long lists, a page at a time."""

from __future__ import annotations

from typing import Any, Final

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.utils.urls import replace_query_param

from recognition.api.fields import WholeNumberField

PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 500


class PageQuerySerializer(serializers.Serializer):
    page = WholeNumberField(default=1, min_value=1, help_text=_("Which page; 1 is first."))
    page_size = WholeNumberField(
        default=PAGE_SIZE,
        min_value=1,
        max_value=MAX_PAGE_SIZE,
        help_text=_("How many entries a page has."),
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuses what it does not know: a misspelt filter would be answered with everything."""
        known = [*self.fields, api_settings.URL_FORMAT_OVERRIDE]
        message = gettext("There is no such parameter. Known ones: %(known)s.") % {
            "known": ", ".join(known)
        }
        if unknown := {name: message for name in self.initial_data if name not in known}:
            raise serializers.ValidationError(unknown)
        return attrs


class PageSerializer(serializers.Serializer):
    """A page of a list; `results` holds its entries."""

    success = serializers.BooleanField()
    count = serializers.IntegerField(help_text=_("Entries on all pages."))
    pages = serializers.IntegerField()
    next = serializers.CharField(allow_null=True, help_text=_("Address of the next page."))
    previous = serializers.CharField(allow_null=True, help_text=_("Address of the page before."))


def page_of(
    entries: QuerySet[Any], request: Request, *, page: int, page_size: int
) -> tuple[dict[str, Any], list[Any]]:
    """What an answer says of the page, and its entries; a page beyond the last has none."""
    pages = Paginator(entries, page_size)
    here = request.build_absolute_uri()
    after, before = page < pages.num_pages, 1 < page <= pages.num_pages + 1
    body = {
        "success": True,
        "count": pages.count,
        "pages": pages.num_pages,
        "next": replace_query_param(here, "page", page + 1) if after else None,
        "previous": replace_query_param(here, "page", page - 1) if before else None,
    }
    return body, list(pages.page(page)) if page <= pages.num_pages else []
