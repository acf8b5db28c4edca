"""The journal: who did or saw what. One call, `record`, writes it, inside what it tells of."""

from enrollment.journal.appending import Role, changes, head, pictures, record, record_shown
from enrollment.journal.authors import (
    Author,
    acting,
    author_of,
    command_author,
    current_author,
    name_command,
)
from enrollment.journal.forgetting import forget, with_merged
from enrollment.journal.noting import note, note_look, note_refusal, short_wait
from enrollment.journal.signing_in import register_account_handlers
from enrollment.models import Action

__all__ = [
    "Action",
    "Author",
    "Role",
    "acting",
    "author_of",
    "changes",
    "command_author",
    "current_author",
    "forget",
    "head",
    "name_command",
    "note",
    "note_look",
    "note_refusal",
    "pictures",
    "record",
    "record_shown",
    "register_account_handlers",
    "short_wait",
    "with_merged",
]
