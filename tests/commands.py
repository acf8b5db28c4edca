"""Management commands, run in the test's own process."""

from __future__ import annotations

import io

from django.core.management import call_command


def run(*words: object) -> str:
    """Run the command and return what it printed, errors too."""
    output = io.StringIO()
    call_command(*map(str, words), stdout=output, stderr=output)
    return output.getvalue()
