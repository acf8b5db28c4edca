"""Who acts: the account or token of a request, the operating system's user of a command, the server."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.http import HttpRequest

from enrollment.models import AuthorKind, Channel


@dataclass(frozen=True, slots=True)
class Author:
    """Who did something, and from where; the fields are those of `JournalEntry`."""

    who: str = ""
    kind: str = AuthorKind.SERVER
    via: str = ""
    address: str = ""
    channel: str = Channel.SERVER


SERVER: Final = Author()
_acting: ContextVar[Callable[[], Author]] = ContextVar("journal_author", default=lambda: SERVER)


@contextmanager
def acting(author: Callable[[], Author]) -> Iterator[None]:
    """Name who acts within this block. `author` is called when a line is written, not before."""
    token = _acting.set(author)
    try:
        yield
    finally:
        _acting.reset(token)


def current_author() -> Author:
    """Return who acts now; outside a request and a command it is the server."""
    return _acting.get()()


def author_of(request: HttpRequest, address: str) -> Author:
    """Return the author of a request: its token, its account, or whoever needs no account."""
    user: Any = getattr(request, "user", None)
    token = getattr(request, "auth", None)
    is_known = bool(user and user.is_authenticated)
    kind = AuthorKind.ACCOUNT if is_known else AuthorKind.OPEN
    if is_known and token is not None:
        kind = AuthorKind.TOKEN
    return Author(
        who=user.get_username() if is_known else "",
        kind=kind,
        via=getattr(token, "name", "") if is_known else "",
        address=address,
        channel=_channel(request.path_info),
    )


def _channel(path: str) -> str:
    if f"{path}/".startswith("/api/"):
        return Channel.API
    return Channel.ADMIN if path.startswith("/admin/") else Channel.PAGE


def name_command(arguments: Sequence[str]) -> None:
    """Make the management command of this process, if it is one, the author of what it does.

    `serve` acts for others; so do threads of any command, which begin without an author.
    """
    match arguments:
        case [program, command, *_] if Path(program).name == "manage.py" and command != "serve":
            _acting.set(lambda: command_author(command))


def command_author(command: str) -> Author:
    """Return the author of what the management command of this name does."""
    try:
        who = getpass.getuser()[:150]  # as long as the name of an account may be
    except (KeyError, OSError):  # a container's user without a name
        who = ""
    return Author(who, AuthorKind.COMMAND, via=command, channel=Channel.COMMAND)
