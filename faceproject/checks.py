"""System check of the settings of the service itself."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from faceproject.conf import ProjectSettings
from faceproject.tracing import is_installed
from recognition.checks import check_values


@register("faceproject")
def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    values = check_values(
        # Some are only part of other Django settings; their limits were checked when they were read.
        ProjectSettings,
        lambda item: getattr(settings, item.name, item.default),
        "faceproject.E001",
    )
    return list(values)


@register("faceproject")
def check_tracing(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT or is_installed():
        return []
    return [
        Error(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages that make traces are not installed.",
            hint="pip install -r requirements-tracing.txt, or leave the setting out.",
            id="faceproject.E002",
        )
    ]
