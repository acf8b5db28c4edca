"""The answers of the API as JSON, and its browsable pages (templates/rest_framework/api.html)."""

from __future__ import annotations

import json
from typing import Any

import orjson
from django.utils.translation import gettext
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.renderers import JSONRenderer as FrameworkJSONRenderer
from rest_framework.settings import api_settings


class Negotiation(DefaultContentNegotiation):
    """Answer browsers with a call's page, and programs with JSON, whatever they accept.

    A program may accept `text/html` without wanting it, as Java's do unless told otherwise. A
    `?format=` that a call does not have is 406, not 404.
    """

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        if api_settings.URL_FORMAT_OVERRIDE not in request.query_params and not is_browser(request):
            renderers = [each for each in renderers if not isinstance(each, ApiPageRenderer)]
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable as error:
            if not error.available_renderers:
                raise
            first = error.available_renderers[0]
            return first, first.media_type

    def filter_renderers(self, renderers: Any, format: str) -> Any:
        if found := [renderer for renderer in renderers if renderer.format == format]:
            return found
        message = gettext(
            "The address asks for the format '%(given)s'; this call answers with %(known)s. Ask for one of "
            "them, or leave ?format out."
        )
        known = dict.fromkeys(renderer.format for renderer in renderers)
        raise NotAcceptable(message % {"given": format[:50], "known": ", ".join(known)})


def is_browser(request: Any) -> bool:
    """Return whether a browser opens the address: they alone accept XHTML."""
    return "application/xhtml+xml" in request.headers.get("Accept", "")


class JSONRenderer(FrameworkJSONRenderer):
    """Render JSON with orjson, which writes the 512 numbers of an embedding ten times as fast."""

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> bytes:
        if data is None or self.get_indent(accepted_media_type or "", renderer_context or {}):
            return super().render(data, accepted_media_type, renderer_context)
        return orjson.dumps(
            data,
            default=self.encoder_class().default,  # what else the framework writes, as it does
            option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS,
        )


class ApiPageRenderer(BrowsableAPIRenderer):
    """Add the OpenAPI description of each method and the fields of a PATCH to the page."""

    def get_filter_form(self, data: Any, view: Any, request: Any) -> None:
        """Return None: the page has no filter form, as filters are URL parameters."""

    def get_context(self, data: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context(data, *args, **kwargs)
        view, methods = context["view"], context["allowed_methods"]
        context["does"] = {
            method: _description(view, method) for method in methods if method != "OPTIONS"
        }
        if context["raw_data_patch_form"]:
            fields = view.serializer_class().fields
            known = data if isinstance(data, dict) else {}
            values = {name: known.get(name, field.get_initial()) for name, field in fields.items()}
            context["patch_fields"] = fields.items()
            context["patch_body"] = json.dumps(values, indent=2, ensure_ascii=False)
        # Opening an endpoint without GET in a browser gives 405; show only its form, not an error.
        context["is_only_form"] = (
            context["response"].status_code == 405 and context["request"].method == "GET"
        )
        return context


def _description(view: Any, method: str) -> str:
    """Return the description of the method in the active language."""
    described = getattr(getattr(view, method.lower(), None), "kwargs", {}).get("schema")
    if described is None:
        return ""
    schema = described()
    schema.view, schema.method = view, method
    return schema.get_description()
