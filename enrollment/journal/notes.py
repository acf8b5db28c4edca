"""Lines that must neither delay nor fail what they tell of: looks at persons, refusals, logins."""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from typing import Any, Final

from django.core.cache import cache
from django.db import DatabaseError, transaction

from enrollment.journal.authors import current_author
from enrollment.journal.chain import record
from enrollment.journal.turns import short_wait
from enrollment.models import Action, Person

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = timedelta(hours=1)
REFUSAL_EVERY: Final = timedelta(minutes=10)
# Of one action in `REFUSAL_EVERY`, from all addresses: nobody may fill the journal from outside.
MOST_REFUSALS: Final = 100


def note(action: Action, **told: Any) -> None:
    """Like `record`, but a database that does not answer costs the line: the log says so, once."""
    try:
        with short_wait(), transaction.atomic():
            record(action, **told)
    except DatabaseError as error:
        logger.warning("Not in the journal, %s: %s", action, error)


def note_look(person: Person, **facts: Any) -> None:
    """Note that the person's page, answer or picture was looked at, once an hour for each viewer."""
    author = current_author()
    viewer = f"{author.kind} {author.who} {author.via} {author.address}"
    if _is_new(f"look {person.pk} {viewer}", LOOK_EVERY):
        note(Action.VIEWED, person=person, facts=facts)


def note_refusal(action: Action, about: str = "", **facts: Any) -> None:
    """Note a refused login or token, at most every ten minutes for an address and what it is about."""
    address = current_author().address
    if not _is_new(f"{action} {address} {about} {sorted(facts.items())}", REFUSAL_EVERY):
        return
    counter = f"journal-{action}"
    cache.add(counter, 0, REFUSAL_EVERY.total_seconds())
    if cache.incr(counter) <= MOST_REFUSALS:
        note(action, facts=facts)


def _is_new(key: str, every: timedelta) -> bool:
    """Return whether nobody has asked the same for so long."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return cache.add(f"journal-{digest}", True, every.total_seconds())
