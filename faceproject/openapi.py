"""Settings of the OpenAPI document and its page."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from faceproject import __version__

SPECTACULAR_SETTINGS: Final[dict[str, Any]] = {
    "TITLE": _("Face recognition API"),
    "DESCRIPTION": _(
        "Faces in, embeddings and people out. Open a call's address, such as /api/milvus/search, in the "
        "browser, and it can be tried by hand there, too.\n\n"
        "From another machine send the header `Authorization: Token …`; tokens are made in "
        "the admin. What fails is answered with `error`, a code that stays the same, and `message`, a "
        "sentence in the language of `Accept-Language`. Every answer has an `X-Request-ID`, as the "
        "server's log does."
    ),
    "VERSION": __version__,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    # JavaScript, to load the plugin of api-docs.js. Without deep linking: links inside the buttons that
    # open an operation could not be reached by keyboard.
    "SWAGGER_UI_SETTINGS": (
        "{deepLinking: false, displayRequestDuration: true,"
        " presets: [SwaggerUIBundle.presets.apis, optionsStartEmpty]}"
    ),
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,  # what a PATCH needs is needed
    "ENUM_NAME_OVERRIDES": {
        "InboxActionEnum": "enrollment.api.inbox_serializers.ACTIONS",
        "InboxKindEnum": "enrollment.api.inbox_serializers.KINDS",
    },
    "SCHEMA_PATH_PREFIX": "/api",
    "PREPROCESSING_HOOKS": ["recognition.api.schema.without_trailing_slash"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "recognition.api.schema.with_summaries",
        "recognition.api.schema.with_common_errors",
        "recognition.api.schema.with_warnings",
    ],
}
