"""The pages of the browsable API (templates/rest_framework/api.html)."""

from __future__ import annotations

import json
from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer


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
