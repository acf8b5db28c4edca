"""The pages on which every call can be tried by hand: templates/rest_framework/api.html."""

from __future__ import annotations

import json
from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer


class ApiPageRenderer(BrowsableAPIRenderer):
    """Adds what a change by PATCH may hold, filled in with what is there."""

    def get_context(self, data: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context(data, *args, **kwargs)
        view = context["view"]
        if context["raw_data_patch_form"]:
            fields = view.serializer_class().fields
            known = data if isinstance(data, dict) else {}
            values = {name: known.get(name, field.get_initial()) for name, field in fields.items()}
            context["patch_fields"] = fields.items()
            context["patch_body"] = json.dumps(values, indent=2, ensure_ascii=False)
        # A browser's first visit to a call without GET is answered with 405; that is no trouble.
        if context["response"].status_code == 405 and context["request"].method == "GET":
            context["other_methods"] = [
                method for method in context["allowed_methods"] if method != "OPTIONS"
            ]
        return context
