"""Remove lines that are older than they are kept, so that the rest still verifies."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Min
from django.utils import timezone

from enrollment.journal.chain import CHANGES, SEARCHES, add_line, lock_chain
from enrollment.models import Action, JournalChain, JournalEntry, JournalSubject

AT_LEAST: Final = timedelta(days=1)  # lines wait for company: each cut writes a line


def forget_old_lines() -> None:
    """Remove lines older than `JOURNAL_DAYS`, and searches older than `SEARCH_LOG_DAYS`."""
    for name, days in ((SEARCHES, settings.SEARCH_LOG_DAYS), (CHANGES, settings.JOURNAL_DAYS)):
        oldest = JournalEntry.objects.filter(chain=name).aggregate(at=Min("at"))["at"]
        limit = timezone.now() - timedelta(days=days)
        if oldest and oldest < (limit - AT_LEAST if days else limit):
            _cut(name, limit)


def _cut(name: str, limit: datetime) -> None:
    """Remove the chain's lines up to the first that is not older than `limit`.

    Number and hash of the last one removed stay, in the chain and in a line that tells of the cut.
    """
    with transaction.atomic():
        number, _hash = lock_chain(name)
        lines = JournalEntry.objects.filter(chain=name)
        first = lines.filter(at__gte=limit).aggregate(number=Min("number"))["number"]
        old = lines.filter(number__lt=first or number + 1)
        last = old.order_by("-number").first()
        if last is None:
            return
        facts = {"chain": name, "number": last.number, "hash": last.hash, "count": old.count()}
        JournalSubject.objects.filter(entry__in=old).delete()
        old.delete()
        JournalChain.objects.filter(pk=name).update(
            anchor_number=last.number, anchor_hash=last.hash
        )
        add_line(Action.LINES_REMOVED, [], facts)
