"""The journal: who did or saw what. One call, `record`, writes it, inside what it tells of."""

from enrollment.journal.accounts import account_meant, register_account_handlers, rows_restored
from enrollment.journal.authors import (
    Author,
    acting,
    author_of,
    command_author,
    current_author,
    name_command,
)
from enrollment.journal.chain import (
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
from enrollment.journal.erasure import forget, former_ids, with_merged
from enrollment.journal.export import COLUMNS, as_row
from enrollment.journal.group_commit import GroupCommit
from enrollment.journal.notes import note_look, note_refusal
from enrollment.journal.queries import about, find_lines, history_of, names_of
from enrollment.journal.retention import forget_old_lines
from enrollment.journal.turns import short_wait, take_turns
from enrollment.journal.verification import verify
from enrollment.journal.words import in_words, name_of
from enrollment.models import Action

__all__ = [
    "Action",
    "Author",
    "COLUMNS",
    "GroupCommit",
    "Line",
    "Role",
    "about",
    "account_meant",
    "acting",
    "append",
    "as_row",
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
    "note_look",
    "note_refusal",
    "pictures",
    "record",
    "record_shown",
    "register_account_handlers",
    "rows_restored",
    "short_wait",
    "take_turns",
    "verify",
    "with_merged",
]
