"""What operators said of matches: error rates of this gallery, confirmed by people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import TruncMonth
from django.utils import timezone

from enrollment.models import Feedback, SearchEntry
from recognition.decision import Decision
from recognition.evaluation import rate_interval

CONFIRMED: Final = Feedback.Verdict.CONFIRMED
REJECTED: Final = Feedback.Verdict.REJECTED


@dataclass(frozen=True, slots=True)
class Share:
    """A rate with what it stands on: `count` of `of` cases, and its 95 % interval."""

    count: int
    of: int

    @property
    def percent(self) -> float:
        return 100 * self.count / self.of

    @property
    def low(self) -> float:
        return 100 * rate_interval(self.count, self.of)[0]

    @property
    def high(self) -> float:
        return 100 * rate_interval(self.count, self.of)[1]


@dataclass(frozen=True, slots=True)
class MonthOfMatches:
    """What was shown and what was said in one month (by its first day, in `TIME_ZONE`).

    `shown` is None where the search log does not reach back to the month's beginning.
    """

    month: date
    shown: int | None = None  # faces whose best hit was a match
    confirmed: int = 0  # of matches
    rejected: int = 0
    missed: int = 0  # confirmed, though it was no match

    @property
    def wrong(self) -> Share | None:
        """How many of the judged matches were wrong; None when none was judged."""
        judged = self.confirmed + self.rejected
        return Share(self.rejected, judged) if judged else None

    @property
    def not_matched(self) -> Share | None:
        """How many of the faces that were confirmed had been no match; None without any."""
        known = self.confirmed + self.missed
        return Share(self.missed, known) if known else None


def matches_by_month(months: int) -> list[MonthOfMatches]:
    """Return the last months in which a match was shown or something said, newest first."""
    first = timezone.localdate().replace(day=1)
    firsts = [first]
    for _month in range(months - 1):
        first = (first - timedelta(days=1)).replace(day=1)
        firsts.append(first)
    said = Feedback.objects.filter(created_at__gte=_midnight(first))
    match = Q(decision=Decision.MATCH)
    rows = _by_month(
        said,
        confirmed=Count("pk", match & Q(verdict=CONFIRMED)),
        rejected=Count("pk", match & Q(verdict=REJECTED)),
        missed=Count("pk", ~match & Q(verdict=CONFIRMED)),
    )
    shown, end = SearchEntry.objects.filter(match), None
    for month in firsts:  # by the index, as the log may hold millions of rows
        searches = shown.filter(created_at__gte=_midnight(month))
        if end:
            searches = searches.filter(created_at__lt=_midnight(end))
        if count := searches.count():
            rows.setdefault(month, {})["shown"] = count
        end = month
    logged_since = timezone.localdate() - timedelta(days=settings.SEARCH_LOG_DAYS)
    for month, counts in rows.items():
        if month < logged_since:
            counts["shown"] = None
        elif settings.SEARCH_LOG_DAYS:
            counts.setdefault("shown", 0)
    return [MonthOfMatches(month, **rows[month]) for month in sorted(rows, reverse=True)]


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime(day.year, day.month, day.day))


def _by_month(rows: QuerySet[Any], **counts: Count) -> dict[date, dict[str, Any]]:
    grouped = rows.order_by().annotate(month=TruncMonth("created_at")).values("month")
    return {timezone.localdate(row.pop("month")): row for row in grouped.annotate(**counts)}


def confirmed_pairs(model: str, fingerprint: str) -> dict[str, list[float]]:
    """Return the cosines of the pairs that were judged, by verdict, of people who are enrolled.

    Only those of the same weights: those of others are not comparable.
    """
    said = Feedback.objects.filter(
        model=model, fingerprint=fingerprint, person__person_id__isnull=False
    )
    pairs: dict[str, list[float]] = {CONFIRMED: [], REJECTED: []}
    for verdict, similarity in said.order_by("pk").values_list("verdict", "similarity"):
        pairs[verdict].append(similarity)
    return pairs
