"""The pages on which every call can be tried by hand: templates/rest_framework/api.html."""

from __future__ import annotations

import json
from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer


class ApiPageRenderer(BrowsableAPIRenderer):
    """Adds what each method does, as the OpenAPI document says it, and what a PATCH may hold."""

    def get_filter_form(self, data: Any, view: Any, request: Any) -> None:
        """None: the page shows an answer as it is; filters are parameters of the address."""

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
        # A browser's first visit to a call without GET is answered with 405; that is no trouble.
        context["is_only_form"] = (
            context["response"].status_code == 405 and context["request"].method == "GET"
        )
        return context


def _description(view: Any, method: str) -> str:
    """In the language in force."""
    described = getattr(getattr(view, method.lower(), None), "kwargs", {}).get("schema")
    if described is None:
        return ""
    schema = described()
    schema.view, schema.method = view, method
    return schema.get_description()
