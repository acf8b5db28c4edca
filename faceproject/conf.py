"""The settings of the service itself: storage, access, language and logging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import available_timezones

import environ

from recognition.setting import setting

RATE: Final = "a number and a time such as 60/minute or 10/second"


def rate(text: str) -> str:
    """Parse a request rate such as `60/minute`. Raise `ValueError`."""
    number, _slash, period = text.partition("/")
    if int(number) < 1 or period.strip() not in ("second", "minute", "hour", "day"):
        raise ValueError(text)
    return f"{int(number)}/{period.strip()}"


def time_zone(text: str) -> str:
    """Return the name if this machine knows the time zone. Raise `ValueError`."""
    if text not in available_timezones():
        raise ValueError(text)
    return text


def database(text: str) -> dict[str, Any]:
    """Return Django's database settings for a URL of PostgreSQL or SQLite. Raise `ValueError`."""
    if text.partition(":")[0] not in ("postgres", "postgresql", "sqlite"):
        raise ValueError(text)
    return environ.Env.db_url_config(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """The settings; each field is the environment variable of the same name in upper case.

    Django itself reads the account of `DJANGO_SUPERUSER_…`. `ENV_FILE` is read before all others.
    """

    data_dir: Path = setting(
        Path("data"),
        "The folder of everything that must outlive an update: `db.sqlite3`, `milvus_face.db/`, `media/` (pictures), and the [keys](operations.md#lost-keys). Made at the first start, readable by its owner only. [How to back it up](operations.md#backup-and-restore).",
        section="Where things are kept",
    )
    database_url: dict[str, Any] | None = setting(
        None,
        "PostgreSQL instead of SQLite, as `postgres://user:password@host:5432/name`. Percent-encode special characters of the password.",
        read=database,
        takes="an address like postgres://user:pass@host/db",
        shown="DATA_DIR/db.sqlite3",
        is_secret=True,
    )
    s3_bucket: str = setting(
        "",
        "Bucket that keeps the pictures instead of `DATA_DIR/media`. Keep it private: the service itself hands pictures out, to those who may see them.",
    )
    s3_endpoint_url: str | None = setting(None, "Address of an S3 service other than Amazon's.")
    s3_region: str | None = setting(None, "Region of the bucket.")
    s3_access_key: str | None = setting(
        None,
        "Access key of the bucket. When unset, the AWS environment variables, profile or instance role are used.",
    )
    s3_secret_key: str | None = setting(None, "The secret key that belongs to it.", is_secret=True)
    host: str = setting(
        "127.0.0.1",
        "Address to listen at. `0.0.0.0` listens to every network that the machine is in.",
        section="Who may reach it",
    )
    port: int = setting(
        8000, "Port to listen at; `0` takes a free one and prints it.", least=0, most=65_535
    )
    threads: int = setting(
        16, "Requests that are worked on at the same time. More wait their turn.", least=1, most=256
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Names and addresses, with commas, by which other machines call this one. `localhost`, `127.0.0.1` and `[::1]` are always answered; any other name gets 400.",
    )
    api_auth_required: bool | None = setting(
        None,
        "`1`: everybody needs an account, also on this machine; `0`: nobody does; unset: all but the server's own user, directly on the same machine ([the exact rule](#who-needs-no-account)). Set `0` only where the network itself is closed.",
    )
    csrf_trusted_origins: tuple[str, ...] = setting(
        (),
        "Addresses, with commas, from which browsers may send forms, such as `https://faces.example.org`. Needed behind a proxy that ends TLS.",
    )
    https: bool = setting(
        False,
        "`1`: cookies for HTTPS only, plain HTTP is redirected, and the proxy's header `X-Forwarded-Proto` is believed. Set it only behind a proxy that sets that header itself.",
    )
    proxies: int = setting(
        0,
        "How many reverse proxies, one behind the other, every request passes. By it the client's address is read from the end of `X-Forwarded-For`, to count [wrong passwords](#accounts-and-groups) and [calls](#limits). `0` believes none.",
        least=0,
        most=10,
    )
    secure_hsts_seconds: int = setting(
        0,
        "Seconds for which browsers must insist on HTTPS for this name.",
        least=0,
        most=315_360_000,
    )
    secret_key: str = setting(
        "",
        "Signs sessions. When unset, one is made at the first start and kept in `DATA_DIR/secret_key`.",
        is_secret=True,
    )
    django_superuser_username: str = setting(
        "",
        "Admin account that is made at the start when it is not there, together with the password.",
    )
    django_superuser_password: str = setting(
        "",
        "Its password, of 12 characters or more; changing it here later does not change the account's.",
        is_secret=True,
    )
    django_superuser_email: str = setting("", "Its e-mail address.")
    debug: bool = setting(
        False, "`1`: Django's own error pages, which show settings and code. For development only."
    )
    rate_embed: str | None = setting(
        None,
        "Limits calls that compute from pictures and store nothing: `embedding`, `embeddings/batch`, `detect`.",
        section="Limits",
        read=rate,
        takes=RATE,
    )
    rate_search: str | None = setting(
        None, "Limits `milvus/search`, `verify`.", read=rate, takes=RATE
    )
    rate_enroll: str | None = setting(
        None, "Limits `milvus/insert`, and pictures sent to a person.", read=rate, takes=RATE
    )
    rate_persons: str | None = setting(
        None, "Limits the other calls about people.", read=rate, takes=RATE
    )
    language_code: Literal["en", "pt-br"] = setting(
        "en",
        "Language where the client's `Accept-Language` asks for neither: `en` or `pt-br`.",
        section="Language, time, log",
    )
    time_zone: str = setting(
        "",
        "Time zone of the pages and of the log, such as `America/Sao_Paulo`; unset: the machine's. A person's [last day](privacy.md#retention) ends by it.",
        read=time_zone,
        takes="the name of a time zone such as America/Sao_Paulo",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = setting(
        "INFO", "How much is logged, to standard error."
    )
    log_format: Literal["line", "json"] = setting(
        "line",
        "`json`: each line of the log is a JSON object ([its fields](monitoring.md#the-log)).",
    )
    access_log: bool = setting(
        True,
        "`0`: no line for each answered request ([what it holds](monitoring.md#the-log)).",
    )
    otel_exporter_otlp_endpoint: str = setting(
        "",
        "OpenTelemetry collector that gets [traces](monitoring.md#traces), such as `http://localhost:4318`. Needs `pip install -r requirements-tracing.txt`.",
    )
    env_file: Path = setting(
        Path(".env"),
        "Another file to read the settings from. Set it in the environment only.",
        takes="a file",
    )
