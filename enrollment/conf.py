"""The settings of the gallery. `faceproject/settings.py` reads them from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from recognition.setting import setting


def hosts(text: str) -> tuple[str, ...]:
    """Return the hosts of a list with commas, such as `a.example` or `http://10.0.0.5:8080`.

    Raise `ValueError` for what is none.
    """
    entries = tuple(part.strip().removesuffix("/") for part in text.split(",") if part.strip())
    for entry in entries:
        url = urlsplit(entry if "://" in entry else f"https://{entry}")
        is_alone = not (url.path or url.query or url.fragment or url.username)
        is_host = re.fullmatch(r"[\w.:-]+", url.hostname or "") and url.port != 0
        if url.scheme not in ("https", "http") or not (is_alone and is_host):
            raise ValueError(entry)
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentSettings:
    """The settings; each field is the environment variable of the same name in upper case."""

    enroll_quality: Literal["warn", "refuse"] = setting(
        "warn",
        "What becomes of a new picture whose face is blurred, dark, turned away and so on ([reasons](api.md#quality)): `warn` or `refuse`. `warn` enrols it and says so; `refuse` stores nothing and answers 422 `low_quality`.",
        section="Pictures and faces",
    )
    enroll_identity: Literal["warn", "refuse"] = setting(
        "warn",
        "What becomes of a new picture that matches somebody else, or is enrolled already: `warn` or `refuse`. `warn` enrols it and says so; `refuse` stores nothing and answers 422 `doubtful_identity`. Refusing embeds each picture once more, and needs Milvus before anything is stored.",
    )
    import_hosts: tuple[str, ...] = setting(
        (),
        "Hosts, with commas, from which [a table of an import](gallery.md#a-table-of-pictures) may have pictures fetched, such as `pictures.example.org`; unset: none. A bare name means HTTPS at a host in the public internet. A server in a private network, or without HTTPS, is written in full: `https://nas.local`, `http://10.0.0.5:8080`.",
        read=hosts,
        takes="names of hosts with commas between them",
    )
    person_keep_days: int = setting(
        0,
        "Days for which people are kept who are enrolled without a last day; then they [are erased](privacy.md#retention). `0`: no end. It changes nothing for people who are enrolled already.",
        section="Retention",
        least=0,
        most=36_500,
    )
    trash_days: int = setting(
        7,
        "Days for which what is deleted, moved, merged or imported [can be undone](gallery.md#undo-and-trash); then the server erases what was deleted. `0` erases at once. Fewer days hold for what is in the trash already, too.",
        least=0,
        most=365,
    )
    keep_refused_days: int = setting(
        7,
        "Days for which the pictures that [an import](gallery.md#import-and-export) refused wait in the inbox. `0`: they are deleted when the import ends.",
        least=0,
        most=365,
    )
    search_log_days: int = setting(
        90,
        "Days for which the [search log](privacy.md#the-search-log) keeps who searched and with what result. `0` records nothing and deletes what was recorded.",
        least=0,
        most=36_500,
    )
    keep_probes_days: int = setting(
        0,
        "Days for which a searched face that ended in *review* or *unknown* is [kept for the inbox](gallery.md#the-inbox), encrypted. `0` keeps none. Fewer days hold for what is kept already, too. [What it means](privacy.md#kept-faces) for the people concerned.",
        least=0,
        most=365,
    )
    keep_answers_minutes: int = setting(
        60,
        "Minutes for which the answer of the search page is kept, encrypted, so that it can be shown again, shared by its number and acted on. `0` keeps none.",
        least=0,
        most=1440,
    )
    backup_keep_days: int = setting(
        30,
        "Days for which a backup is to be kept that was made without `--keep-days`. [`manage.py backups`](operations.md#backup-and-restore) says which are overdue. `0`: no end.",
        least=0,
        most=36_500,
    )
    journal_days: int = setting(
        1826,
        "Days for which the [journal](journal.md) keeps who did or saw what; 1826 days are five years. Searches in it are kept for `SEARCH_LOG_DAYS`.",
        least=1,
        most=36_500,
    )
    tasks_backend: Literal["immediate", "database"] = setting(
        "immediate",
        "Who does the work that may wait: `immediate`, the server, or `database`, the workers. With `database`, inserts with `async=true`, and what follows a change in the admin, are left in SQL for [`script/worker`](operations.md#workers), of which any number may run.",
        section="Background work",
    )
