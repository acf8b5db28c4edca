"""System checks of the settings of the service itself."""

from __future__ import annotations

import os
import re
import stat
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from faceproject.conf import ProjectSettings
from faceproject.configuration import SETTINGS
from faceproject.tracing import is_installed
from recognition.checks import check_values

NEARLY: Final = 0.8  # how alike two names are that are taken for one, of 1


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
def check_file(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    file = Path(os.environ.get("ENV_FILE") or settings.BASE_DIR / ".env")
    if os.environ.get("ENV_FILE") and not file.exists():
        return [
            Error(
                f"ENV_FILE names {file}, which is not there: no setting is read from it.",
                hint="Name the file as it is called, or leave ENV_FILE out.",
                id="faceproject.E003",
            )
        ]
    if not (file.is_file() and file.stat().st_mode & stat.S_IROTH):
        return []
    secrets = "|".join(item.name for item in SETTINGS if item.is_secret)
    if not re.search(
        rf"^\s*(?:export\s+)?(?:{secrets})\s*=\s*\S", file.read_text(errors="replace"), re.MULTILINE
    ):
        return []
    return [
        Warning(
            f"The settings in {file} hold a password or key, and every user of this machine can read them.",
            hint=f"chmod o-rwx {file}",
            id="faceproject.W001",
        )
    ]


@register("faceproject")
def check_names(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn of variables that are no settings, and are nearly called like one."""
    known = {"ENV_FILE", *(item.name for item in SETTINGS)}
    others = [name for name in os.environ if name not in known and not name.startswith("OTEL_")]
    return [
        Warning(
            f"{name} is set, and is no setting: it changes nothing.",
            hint=f"Call it {near[0]}, if that is meant.",
            id="faceproject.W002",
        )
        for name in others
        if (near := get_close_matches(name, known, 1, NEARLY))
    ]


@register("faceproject")
def check_hosts(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Warning(
            f"ALLOWED_HOSTS names {name}, by which nobody calls: a browser that does is answered 400.",
            hint="Write the name or address alone, without https:// and without a port.",
            id="faceproject.W003",
        )
        for name in settings.ALLOWED_HOSTS
        if re.search(r"/|[^:]:[^:]*$", re.sub(r"^\[.*\]$", "", name))
    ]


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
