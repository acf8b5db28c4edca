"""System check of the settings of the service itself."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, register

from faceproject.conf import ProjectSettings
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
