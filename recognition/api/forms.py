"""Reading of form fields: repeated fields are rejected, unknown fields give a warning in the
answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.http import QueryDict
from django.utils.translation import gettext
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from recognition.api.answers import serializer_of_thread
from recognition.api.fields import shortened
from recognition.api.parsers import refuse_repeated

MOST_UNKNOWN_FIELDS: Final = 20
NOTICE: Final = "notice"
# Fields that the browsable API adds.
_OF_THE_PAGE: Final = frozenset({"csrfmiddlewaretoken", "_content_type", "_content"})


class FormCall(APIView):
    """A view that reads its fields with `serializer_class`. `warnings` are added to its answer."""

    serializer_class: Any = None

    def read_form(self, request: Request) -> dict[str, Any]:
        """Return the validated fields. Raise `ValidationError`."""
        if not isinstance(request.data, Mapping):
            message = gettext("The request's body is JSON, but no object. Send one: {…}.")
            raise serializers.ValidationError(message)
        form = serializer_of_thread(self.serializer_class)
        self.warn(request, _unknown(request.data, form.fields))
        if isinstance(request.data, QueryDict):
            counts = {
                name: len(request.data.getlist(name))
                for name, field in form.fields.items()
                if not isinstance(field, serializers.ListField)
            }
            _refuse_lists(form.fields, counts)
            refuse_repeated(counts)
        fields: dict[str, Any] = form.run_validation(request.data)
        return fields

    @staticmethod
    def warn(request: Request, sentences: Iterable[str]) -> None:
        """Add warnings to the answer to this request."""
        request.warnings = [*getattr(request, "warnings", []), *sentences]

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        sentences = getattr(request, "warnings", [])
        if sentences and isinstance(getattr(response, "data", None), dict):
            response.data = _with_warnings(response.data, sentences)
        return super().finalize_response(request, response, *args, **kwargs)


def _refuse_lists(fields: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Raise `ValidationError` with what is expected of a JSON array that was sent item by item.

    So do HTTP libraries send a list that stands for one.
    """
    expected = {name: fields[name].error_messages.get("not_json") for name in counts}
    wrong = {name: text for name, text in expected.items() if text and counts[name] > 1}
    if wrong:
        raise serializers.ValidationError(wrong)


def _with_warnings(body: dict[str, Any], sentences: list[str]) -> dict[str, Any]:
    if "warnings" not in body:
        return body | {"warnings": sentences}
    # The answer has warnings about a picture, which have codes: use the same form.
    more = [{"code": NOTICE, "message": sentence} for sentence in sentences]
    return body | {"warnings": [*body["warnings"], *more]}


def _unknown(data: Mapping[str, Any], fields: Mapping[str, Any]) -> list[str]:
    message = gettext("There is no field '%(name)s', so it was passed over. Known ones: %(known)s.")
    names = [name for name in data if name not in fields and name not in _OF_THE_PAGE]
    known = ", ".join(fields)
    return [
        message % {"name": shortened(name), "known": known} for name in names[:MOST_UNKNOWN_FIELDS]
    ]
