"""Errors in the words that a page shows."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from recognition.exceptions import RecognitionError


def error_text(error: RecognitionError | ValidationError) -> str:
    """Return what the error says, in whole sentences of the active language."""
    return error.message if isinstance(error, RecognitionError) else " ".join(error.messages)
