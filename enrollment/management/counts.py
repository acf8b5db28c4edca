"""Numbers in the sentences of commands, with the word in the number that goes with them."""

from __future__ import annotations

from django.utils.translation import ngettext


def people(count: int) -> str:
    """Return "1 person", "2 people" in the active language."""
    return ngettext("%(count)d person", "%(count)d people", count) % {"count": count}


def pictures(count: int) -> str:
    """Return "1 picture", "2 pictures" in the active language."""
    return ngettext("%(count)d picture", "%(count)d pictures", count) % {"count": count}
