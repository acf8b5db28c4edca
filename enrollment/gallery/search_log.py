"""The search log: who searched, when, and with what result. It keeps no pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, IntegrityError
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from enrollment import journal
from enrollment.gallery.selectors import SearchHit
from enrollment.models import Action, Person, SearchAnswer, SearchEntry
from recognition.api.request_id import current_request_id
from recognition.decision import Decision
from recognition.instrumentation import DECISIONS

logger = logging.getLogger(__name__)

Search = tuple[list[SearchEntry], list[journal.Line]]
Shown = list[tuple[int, float, str | None]]  # the person's key, the cosine, the decision


def note_search(
    request: HttpRequest,
    channel: str,
    model: str,
    found: Iterable[Sequence[SearchHit]],
    aside: Iterable[Sequence[SearchHit]] = (),
) -> None:
    """Log one entry for each face of a search, and journal everybody whom it showed.

    `found` holds the hits of each face, best first; `aside` those that were named as set aside.
    """
    found = list(found)
    shown = _shown([*found, *aside])
    facts = {"model": model, "faces": len(found), "answers": len(shown)}
    _note(
        request,
        _lines(Action.SEARCHED, shown, facts),
        [
            SearchEntry(
                channel=channel,
                model=model,
                person=hits[0].person if hits else None,
                similarity=hits[0].similarity if hits else None,
                decision=(hits[0].decision or "") if hits else Decision.UNKNOWN,
                answers=len(hits),
            )
            for hits in found
        ],
    )


def note_shown_again(
    request: HttpRequest, answer: SearchAnswer, found: Iterable[Sequence[SearchHit]]
) -> None:
    """Journal whom a kept answer showed to somebody else than who searched."""
    if request.user.get_username() == answer.username:
        return
    found = list(found)
    shown = _shown(found)
    facts = {"model": answer.model, "faces": len(found), "answers": len(shown), "again": True}
    _append([], _lines(Action.SEARCHED, shown, facts))


def _shown(found: Iterable[Sequence[SearchHit]]) -> Shown:
    return [(hit.face_image.person_id, hit.similarity, hit.decision) for h in found for hit in h]


def _lines(action: Action, shown: Shown, facts: dict[str, Any]) -> list[journal.Line]:
    with journal.collected() as lines:
        journal.record_shown(action, shown, facts)
    return lines


def note_verification(
    request: HttpRequest, model: str, person: Person, similarity: float, decision: str | None
) -> None:
    """Log that a picture was compared with an enrolled person."""
    entry = SearchEntry(
        channel=SearchEntry.Channel.VERIFY,
        model=model,
        person=person,
        similarity=similarity,
        decision=decision or "",
        answers=1,
    )
    shown: Shown = [(person.pk, similarity, decision)]
    _note(request, _lines(Action.VERIFIED, shown, {"model": model}), [entry])


def _note(request: HttpRequest, lines: list[journal.Line], entries: list[SearchEntry]) -> None:
    for entry in entries:
        DECISIONS.labels(entry.decision or "none").inc()
        entry.username = request.user.get_username()  # empty without an account
        entry.request_id = current_request_id()
    _append(entries, lines)


def _append(entries: list[SearchEntry], lines: list[journal.Line]) -> None:
    if not settings.SEARCH_LOG_DAYS:
        return
    try:
        try:
            _log.store((entries, lines))
        except IntegrityError:  # somebody was deleted meanwhile, and was shown all the same
            _leave_out_deleted(entries)
            _log.store((entries, lines))
    except DatabaseError as error:
        # The search itself succeeded, so it is answered; the server's log keeps the entries instead.
        for entry in entries:
            logger.warning(
                "Not in the search log (%s): user %r, %s, person %s, similarity %s, %s",
                error,
                entry.username,
                entry.channel,
                entry.person_id,
                entry.similarity,
                entry.decision,
            )


def _leave_out_deleted(entries: Sequence[SearchEntry]) -> None:
    ids = {entry.person_id for entry in entries if entry.person_id}
    there = set(Person.objects.filter(pk__in=ids).values_list("pk", flat=True))
    for entry in entries:
        if entry.person_id not in there:
            entry.person = None


def _write(searches: Sequence[Search]) -> None:
    entries = [entry for entries, _lines in searches for entry in entries]
    for entry in entries:
        entry.pk = None  # not that of a former try
    # PostgreSQL locks the persons in this order, which is that of everybody else.
    entries.sort(key=lambda entry: entry.person_id or 0)
    SearchEntry.objects.bulk_create(entries)
    journal.append([line for _entries, lines in searches for line in lines])


_log: Final = journal.GroupCommit[Search](_write)


def forget_old_searches() -> None:
    """Delete entries older than `SEARCH_LOG_DAYS`; 0 deletes all."""
    limit = timezone.now() - timedelta(days=settings.SEARCH_LOG_DAYS)
    SearchEntry.objects.filter(created_at__lt=limit).delete()


def latest_searches(count: int) -> QuerySet[SearchEntry]:
    """Return the newest entries with their persons."""
    return SearchEntry.objects.select_related("person")[:count]


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """Counts of the faces searched in the last days, by decision."""

    days: int
    total: int = 0
    by_decision: dict[str, int] = field(default_factory=dict)
    users: int = 0


def search_figures(days: int) -> SearchFigures:
    """Count the logged searches of the last `days` days."""
    since = SearchEntry.objects.filter(created_at__gte=timezone.now() - timedelta(days=days))
    rows = since.order_by().values_list("decision").annotate(count=Count("pk"))
    by_decision = dict(rows)
    users = since.order_by().values("username").distinct().count()
    return SearchFigures(days, sum(by_decision.values()), by_decision, users)
