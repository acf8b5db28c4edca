"""The journal: who did or saw what. One call, `record`, writes it, inside what it tells of."""

from enrollment.journal.appending import (
    Line,
    Role,
    append,
    changes,
    collected,
    head,
    pictures,
    record,
    record_shown,
)
from enrollment.journal.authors import (
    Author,
    acting,
    author_of,
    command_author,
    current_author,
    name_command,
)
from enrollment.journal.exporting import COLUMNS, as_row
from enrollment.journal.forgetting import forget, former_ids, with_merged
from enrollment.journal.group_commit import GroupCommit
from enrollment.journal.keeping import forget_old_lines
from enrollment.journal.noting import note, note_look, note_refusal
from enrollment.journal.reading import about, find_lines, history_of, names_of
from enrollment.journal.signing_in import account_meant, register_account_handlers, rows_restored
from enrollment.journal.turns import short_wait, take_turns
from enrollment.journal.verifying import Verification, verify
from enrollment.journal.words import author_in_words, in_words, name_of
from enrollment.models import Action

__all__ = [
    "COLUMNS",
    "Action",
    "Author",
    "GroupCommit",
    "Line",
    "Role",
    "Verification",
    "about",
    "account_meant",
    "acting",
    "append",
    "as_row",
    "author_in_words",
    "author_of",
    "changes",
    "collected",
    "command_author",
    "current_author",
    "find_lines",
    "forget",
    "forget_old_lines",
    "former_ids",
    "head",
    "history_of",
    "in_words",
    "name_command",
    "name_of",
    "names_of",
    "note",
    "note_look",
    "note_refusal",
    "pictures",
    "record",
    "record_shown",
    "register_account_handlers",
    "rows_restored",
    "short_wait",
    "take_turns",
    "with_merged",
    "verify",
]
