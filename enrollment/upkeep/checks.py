"""System checks of the data folder, the picture storage and the access rules. None opens a
connection."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from enrollment.conf import EnrollmentSettings
from recognition.api.access import is_loopback_name
from recognition.checks import check_values, is_writable

S3_BACKEND: Final = "storages.backends.s3.S3Storage"
SECRET_KEY_LENGTH: Final = 32  # characters; a guessed key forges sessions


def register_checks() -> None:
    register(check_settings, "enrollment")
    register(check_storage, Tags.files)
    register(check_access, Tags.security)
    register(check_deployment, Tags.security, deploy=True)


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    values = check_values(
        EnrollmentSettings, lambda item: getattr(settings, item.name), "enrollment.E006"
    )
    return list(values)


def check_storage(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        *check_data_folder(settings.DATA_DIR),
        *check_picture_storage(),
        *check_worker(settings.TASKS_BACKEND, str(settings.RECOGNITION.get("MILVUS_URI", ""))),
    ]


def check_access(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    messages = [*check_hsts(), *check_secret_key(settings.SECRET_KEY)]
    if not is_loopback_name(settings.HOST):
        messages += check_open_host()
    return messages


def check_deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    if not settings.HTTPS and not is_loopback_name(settings.HOST):
        messages.append(
            Warning(
                f"HOST={settings.HOST} serves other machines without HTTPS: pictures, passwords and "
                "tokens cross the network readable.",
                hint="Put a proxy with TLS in front that sets X-Forwarded-Proto, and set HTTPS=1.",
                id="enrollment.W005",
            )
        )
    return [*messages, *check_import_hosts(settings.IMPORT_HOSTS)]


def check_import_hosts(hosts: Sequence[str]) -> Iterator[CheckMessage]:
    for host in hosts:
        if host.startswith("http:") and not is_loopback_name(urlsplit(host).hostname or ""):
            yield Warning(
                f"IMPORT_HOSTS names {host}: pictures of people cross the network readable, and anybody "
                "on the way can exchange them.",
                hint="Write it with https:// where the host has TLS.",
                id="enrollment.W009",
            )


def check_worker(backend: str, milvus_uri: str) -> Iterator[CheckMessage]:
    if backend == "database" and "://" not in milvus_uri:
        yield Warning(
            "TASKS_BACKEND=database leaves work to script/worker, which cannot use embedded Milvus "
            "while the server runs: it belongs to one process.",
            hint="Set MILVUS_URI to a Milvus server (script/milvus starts one), or leave "
            "TASKS_BACKEND out.",
            id="enrollment.W008",
        )


def check_data_folder(folder: Path) -> Iterator[CheckMessage]:
    if not is_writable(folder):
        yield Error(
            f"DATA_DIR is {folder}, which cannot be written to.",
            hint="Give the user who runs the server the right to write there, or set DATA_DIR.",
            id="enrollment.E001",
        )
    elif folder.exists() and folder.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH):
        yield Warning(
            f"DATA_DIR is {folder}, which every user of this machine can read: it holds faces.",
            hint=f"chmod o-rwx {folder}",
            id="enrollment.W001",
        )


def check_picture_storage() -> Iterator[CheckMessage]:
    storage = settings.STORAGES["default"]
    options = storage.get("OPTIONS", {})
    if storage["BACKEND"] == S3_BACKEND:
        yield from check_s3(options)
        return
    if any(settings.S3.values()):
        yield Warning(
            "S3 settings are given, but no S3_BUCKET: pictures are stored on disk.",
            hint="Set S3_BUCKET, or leave the other S3 settings out.",
            id="enrollment.W002",
        )
    location = Path(options.get("location", settings.MEDIA_ROOT))
    if not is_writable(location):
        yield Error(
            f"Pictures are stored in {location}, which cannot be written to.",
            hint="Give the user who runs the server the right to write there.",
            id="enrollment.E002",
        )


def check_s3(options: dict[str, Any]) -> Iterator[CheckMessage]:
    if bool(options.get("access_key")) != bool(options.get("secret_key")):
        yield Error(
            "Only one of S3_ACCESS_KEY and S3_SECRET_KEY is set.",
            hint="Set both, or neither to use the usual AWS sources of credentials.",
            id="enrollment.E003",
        )
    endpoint = options.get("endpoint_url")
    if endpoint and not (
        urlsplit(endpoint).scheme in ("http", "https") and urlsplit(endpoint).netloc
    ):
        yield Error(
            "S3_ENDPOINT_URL is not a web address.",
            hint="Write it as https://host or http://host:9000; leave it out for Amazon's own.",
            id="enrollment.E004",
        )
    if not find_spec("storages") or not find_spec("boto3"):
        yield Error(
            "S3_BUCKET is set, but django-storages or boto3 is not installed.",
            hint="pip install -r requirements.txt",
            id="enrollment.E005",
        )


def check_hsts() -> Iterator[CheckMessage]:
    if settings.SECURE_HSTS_SECONDS and not settings.HTTPS:
        yield Warning(
            "SECURE_HSTS_SECONDS is set, but HTTPS is not: browsers are never told.",
            hint="Set HTTPS=1 behind a proxy with TLS, or leave SECURE_HSTS_SECONDS out.",
            id="enrollment.W006",
        )


def check_secret_key(key: str) -> Iterator[CheckMessage]:
    if len(key) < SECRET_KEY_LENGTH:
        yield Warning(
            f"SECRET_KEY has {len(key)} characters; at least {SECRET_KEY_LENGTH} were expected.",
            hint="Leave it out to have one made and kept in DATA_DIR, or set a long random one.",
            id="enrollment.W007",
        )


def check_open_host() -> Iterator[CheckMessage]:
    if settings.DEBUG:
        yield Error(
            f"DEBUG is on while HOST={settings.HOST} serves other machines: error pages show settings "
            "and pictures' data to them.",
            hint="Set DEBUG=0, or HOST=127.0.0.1.",
            id="enrollment.E007",
        )
    if settings.API_AUTH_REQUIRED is False:
        yield Warning(
            f"API_AUTH_REQUIRED=0 while HOST={settings.HOST} serves other machines: whoever reaches "
            "the server can search and change the gallery.",
            hint="Leave API_AUTH_REQUIRED out and give each client a token, or set HOST=127.0.0.1.",
            id="enrollment.W003",
        )
    if all(is_loopback_name(name) for name in settings.ALLOWED_HOSTS):
        yield Warning(
            f"HOST={settings.HOST} serves other machines, but ALLOWED_HOSTS names none: they are "
            "answered 400.",
            hint="Set ALLOWED_HOSTS to the names and addresses by which clients call this machine.",
            id="enrollment.W004",
        )
