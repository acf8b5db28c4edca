"""The history on a person's page: the newest lines of the journal in words, and what can be undone."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest

from enrollment import corrections, journal
from enrollment.models import Person
from enrollment.web import Act, may_undo
from recognition.api.access import may

LINES_SHOWN: Final = 50


def history(request: HttpRequest, person: Person) -> dict[str, Any]:
    """Return the context of `history.html`. Who saw the person is for readers of the journal."""
    with_looks = may(request, Act.READ_JOURNAL)
    lines = list(journal.history_of(person, with_looks=with_looks)[: LINES_SHOWN + 1])
    names = journal.names_of(lines)
    kept = [line.facts["undo"] for line in lines if "undo" in line.facts]
    items = corrections.in_trash().in_bulk(kept) if kept else {}
    shown = [
        {
            "at": line.at,
            "sentence": journal.in_words(line, names),
            "undo": item.pk if item and may_undo(request, item) else None,
        }
        for line in lines[:LINES_SHOWN]
        for item in [items.get(line.facts.get("undo"))]
    ]
    return {"history": shown, "history_goes_on": len(lines) > LINES_SHOWN}
