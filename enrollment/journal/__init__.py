"""The journal: who did or saw what. One call, `record`, writes it, inside what it tells of."""

from enrollment.journal.appending import Role, changes, head, pictures, record
from enrollment.journal.authors import (
    Author,
    acting,
    author_of,
    command_author,
    current_author,
    name_command,
)
from enrollment.journal.forgetting import forget
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
    "pictures",
    "record",
]
