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
        "A face that is blurred, dark, turned away and so on (the [reasons](api.md#quality)): `warn` enrols it and says so, `refuse` stores nothing and answers 422 `low_quality` with the reasons.",
        section="Pictures and faces",
    )
    enroll_identity: Literal["warn", "refuse"] = setting(
        "warn",
        "A picture that matches somebody else who is enrolled, or is enrolled already: `warn` enrols it and says so, `refuse` stores nothing and answers 422 `doubtful_identity`. Refusing embeds each picture once more, and needs Milvus before anything is stored.",
    )
    import_hosts: tuple[str, ...] = setting(
        (),
        "Hosts, with commas, from which pictures are fetched whose address stands in [a table of an import](gallery.md#a-table-of-pictures), such as `pictures.example.org`; none: none are fetched. A bare name means HTTPS at a host in the public internet; a server in a private network, or without HTTPS, is written as it is called: `https://nas.local`, `http://10.0.0.5:8080`.",
        read=hosts,
        takes="names of hosts with commas between them",
    )
    person_keep_days: int = setting(
        0,
        "For how many days from their enrolment people are kept who are given no other day; then they [are deleted](privacy.md#retention). `0` sets no end. It changes nothing for those who are enrolled already.",
        section="Retention",
        least=0,
        most=36_500,
    )
    trash_days: int = setting(
        7,
        "For how many days what is deleted, moved, merged or imported [can be undone](gallery.md#undo-and-trash): a deleted person or picture is out of every search and list at once, and the server erases it when the days are over. `0` erases at once, and nothing can be undone. Fewer days hold for what is in the trash already, too.",
        least=0,
        most=365,
    )
    keep_refused_days: int = setting(
        7,
        "For how many days the pictures that [an import](gallery.md#import-and-export) refused are kept for somebody to decide on them. `0`: they are deleted when the import ends.",
        least=0,
        most=365,
    )
    search_log_days: int = setting(
        90,
        "How long the [search log](privacy.md#the-search-log) keeps who searched when and with what result. `0` records nothing, and what was recorded is deleted.",
        least=0,
        most=36_500,
    )
    keep_probes_days: int = setting(
        0,
        "For how many days a searched face that ended in *review* or *unknown* is [kept for the inbox](gallery.md#the-inbox), encrypted, until somebody says who it is. `0` keeps none. Fewer days hold for what is kept already, too. [What it means](privacy.md#kept-faces) for the people concerned.",
        least=0,
        most=365,
    )
    keep_answers_minutes: int = setting(
        60,
        "For how many minutes the answer of the search page is kept, encrypted, so that it can be shown again, shared by its number and acted on. `0` keeps none: then there is nothing to act on after a reload.",
        least=0,
        most=1440,
    )
    backup_keep_days: int = setting(
        30,
        "For how many days a backup is to be kept that was made without `--keep-days`: [`manage.py backups`](operations.md#backup-and-restore) says which are to be deleted. `0` sets no end.",
        least=0,
        most=36_500,
    )
    journal_days: int = setting(
        1826,
        "How long the [journal](journal.md) keeps who did or saw what; 1826 days are five years. Searches in it are kept for `SEARCH_LOG_DAYS`.",
        least=1,
        most=36_500,
    )
    tasks_backend: Literal["immediate", "database"] = setting(
        "immediate",
        "`immediate`: the server does everything itself, what `async=true` asks for in a thread of its own; `database`: what follows a change in the admin (renames, deletions, new weights), and inserts with `async=true`, is left in SQL for `script/worker`, of which any number may run. A worker needs a Milvus server: embedded Milvus belongs to the server's process.",
        section="Background work",
    )
