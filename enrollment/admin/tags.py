"""Template tags for the gallery figures on the admin's index page."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from django import template
from django.conf import settings

from enrollment import gallery
from enrollment.admin import states
from enrollment.admin.pictures import QUALITY_LABELS
from enrollment.gallery import GalleryState
from enrollment.judging import MonthOfMatches, matches_by_month
from enrollment.models import Doubt
from recognition.decision import Decision
from recognition.health import Health, examine

register = template.Library()

DAYS: Final = 7
SHOWN_SEARCHES: Final = 8
MONTHS: Final = 6


class DoubtCount(NamedTuple):
    code: str
    label: str
    count: int


@register.simple_tag
def gallery_state() -> GalleryState:
    return gallery.gallery_state()


@register.simple_tag
def searchable_pictures(pictures: int) -> states.InSearches:
    return states.in_searches(pictures)


@register.simple_tag
def gallery_doubts() -> list[DoubtCount]:
    """Return the number of pictures with each doubt, with the label of the list's filter."""
    labels = {**QUALITY_LABELS, **dict(Doubt.Resemblance.choices)}
    return [
        DoubtCount(code, str(labels.get(code, code)), count)
        for code, count in gallery.doubt_counts()
    ]


@register.simple_tag
def service_health() -> Health:
    return examine()


@register.simple_tag
def last_searches() -> dict[str, Any]:
    """Return the newest entries of the search log and the figures of the last week."""
    figures = gallery.search_figures(DAYS)
    return {
        "days_kept": settings.SEARCH_LOG_DAYS,
        "figures": figures,
        "decisions": {
            decision.value: figures.by_decision.get(decision, 0) for decision in Decision
        },
        "entries": gallery.latest_searches(SHOWN_SEARCHES),
    }


@register.simple_tag
def months_of_matches() -> list[MonthOfMatches]:
    """Return what was shown and said of matches in the last months, newest first."""
    return matches_by_month(MONTHS)


register.simple_tag(states.decision_badge)
