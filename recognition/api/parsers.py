"""Parsers of request bodies, for failures that DRF does not handle."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Mapping
from json import JSONDecodeError, dumps
from typing import Any, Final

from django.conf import settings
from django.utils.translation import gettext
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import JSONParser as FrameworkJSONParser
from rest_framework.parsers import MultiPartParser as FrameworkMultiPartParser
from rest_framework.utils import json

from recognition.api.text import not_utf8

BOM: Final = "\ufeff"  # at the beginning of a file, as Windows programs write it
SHOWN_BEFORE: Final = 20  # characters before one that UTF-8 cannot hold


class JSONParser(FrameworkJSONParser):
    """Parse JSON in UTF-8. Keys that are repeated within an object raise `ValidationError`.

    JSON that is nested too deeply for the interpreter raises `ParseError`, and half of a pair of
    surrogates (`"\\ud800"`), which no UTF-8 can hold, `NotUtf8`.
    """

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        encoding = (parser_context or {}).get("encoding", settings.DEFAULT_CHARSET)
        try:
            text = codecs.getreader(encoding)(stream).read().removeprefix(BOM)
            found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
            # Only an escape, or an odd charset, gives what UTF-8 cannot hold.
            (dumps(found, ensure_ascii=False) if "\\u" in text else text).encode()
            return found
        except RecursionError as error:
            raise ParseError(gettext("the JSON is nested too deeply")) from error
        except UnicodeEncodeError as error:
            half = error.object[max(0, error.start - SHOWN_BEFORE) : error.start + 1]
            raise not_utf8(half.encode(errors="backslashreplace")) from error
        except UnicodeError as error:
            if isinstance(error, UnicodeDecodeError) and codecs.lookup(encoding).name == "utf-8":
                raise not_utf8(error.object) from error
            raise ParseError(gettext("it is not in the charset that its header names")) from error
        except JSONDecodeError as error:
            message = gettext("it is not JSON from line %(line)d, column %(column)d on")
            raise ParseError(message % {"line": error.lineno, "column": error.colno}) from error
        except ValueError as error:
            raise ParseError(gettext("the JSON holds a number of too many digits")) from error


class MultiPartParser(FrameworkMultiPartParser):
    """Parse multipart/form-data. What is damaged raises `ParseError`, in our own words."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except ParseError as error:
            raise ParseError(
                gettext("it is not the whole multipart/form-data that its header announces")
            ) from error


def _no_constant(name: str) -> None:
    raise ParseError(gettext("%(name)s is no number in JSON") % {"name": name})


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        "".join(found).encode()
        refuse_repeated(Counter(name for name, _value in pairs))
    return found


def refuse_repeated(counts: Mapping[str, int]) -> None:
    """Raise `ValidationError` with the names of all fields that were sent more than once."""
    message = gettext("The field was sent %(count)d times; it is expected once.")
    repeated = {name: message % {"count": count} for name, count in counts.items() if count > 1}
    if repeated:
        raise ValidationError(repeated)
