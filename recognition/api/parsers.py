"""Parsers of request bodies, for failures that DRF does not handle."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser as FrameworkJSONParser

from recognition.api.text import not_utf8


class JSONParser(FrameworkJSONParser):
    """Parse JSON in UTF-8. JSON that is nested too deeply for the interpreter raises `ParseError`."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise ParseError(gettext("the JSON is nested too deeply")) from error
        except ParseError as error:
            if isinstance(error.__context__, UnicodeDecodeError):
                raise not_utf8(error.__context__.object) from error
            raise
