"""Parsers of request bodies, for failures that DRF does not handle."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils.translation import gettext
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import JSONParser as FrameworkJSONParser
from rest_framework.utils import json

from recognition.api.text import not_utf8


class JSONParser(FrameworkJSONParser):
    """Parse JSON in UTF-8. Keys that are repeated within an object raise `ValidationError`.

    JSON that is nested too deeply for the interpreter raises `ParseError`.
    """

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        encoding = (parser_context or {}).get("encoding", settings.DEFAULT_CHARSET)
        try:
            return json.load(
                codecs.getreader(encoding)(stream),
                parse_constant=json.strict_constant,
                object_pairs_hook=_each_once,
            )
        except RecursionError as error:
            raise ParseError(gettext("the JSON is nested too deeply")) from error
        except UnicodeDecodeError as error:
            raise not_utf8(error.object) from error
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        refuse_repeated(Counter(name for name, _value in pairs))
    return found


def refuse_repeated(counts: Mapping[str, int]) -> None:
    """Raise `ValidationError` with the names of all fields that were sent more than once."""
    message = gettext("The field was sent %(count)d times; it is expected once.")
    repeated = {name: message % {"count": count} for name, count in counts.items() if count > 1}
    if repeated:
        raise ValidationError(repeated)
