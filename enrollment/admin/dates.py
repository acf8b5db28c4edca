"""The years, months and days above long lists, found through the index of their column."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.contrib import admin
from django.db.models import Min, QuerySet
from django.http import HttpRequest
from django.utils import timezone

_LONGEST: Final = {"year": dt.timedelta(366), "month": dt.timedelta(31), "day": dt.timedelta(1)}


class DatedQuerySet(QuerySet[Any]):
    """A queryset whose `datetimes` looks up one row a period, where Django's reads all rows."""

    def datetimes(
        self, field_name: str, kind: str, order: str = "ASC", tzinfo: dt.tzinfo | None = None
    ) -> list[dt.datetime]:
        """Return the beginnings of the years, months or days (`kind`) that have rows, oldest first."""
        found: list[dt.datetime] = []
        rows = self.order_by()
        while first := rows.aggregate(first=Min(field_name))["first"]:
            begin = _beginning(timezone.localtime(first, tzinfo), kind)
            found.append(begin)
            next_one = _beginning(begin + _LONGEST[kind] + dt.timedelta(hours=12), kind)
            rows = self.order_by().filter(**{f"{field_name}__gte": next_one})
        return found if order == "ASC" else found[::-1]


def _beginning(at: dt.datetime, kind: str) -> dt.datetime:
    """Return the midnight in the time zone of `at` with which its year, month or day begins."""
    day = at.date().replace(
        **{"year": {"month": 1, "day": 1}, "month": {"day": 1}, "day": {}}[kind]
    )
    return dt.datetime(day.year, day.month, day.day, tzinfo=at.tzinfo)


class DatedAdmin(admin.ModelAdmin):
    """A list with `date_hierarchy` that stays quick among hundreds of thousands of rows."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        return DatedQuerySet(rows.model, query=rows.query, using=rows.db)
