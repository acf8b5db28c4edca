"""The production server: uvicorn in one process, which answers open requests before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import h11
from django.utils.translation import gettext
from uvicorn import Config
from uvicorn import Server as Uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from faceproject.front import Application, Front
from recognition.api.errors import error_body
from recognition.api.peer import PEER, Peer

DRAIN_SECONDS = 20.0  # time after SIGTERM to answer open requests
HEAD_SECONDS = 30.0  # from the connection, or the previous answer, to the end of the headers
KEEP_ALIVE_SECONDS = 75
HEAD_BYTES = 64 * 1024
BACKLOG = 1024
ANY_ADDRESS = "*"


class CannotListen(Exception):
    """The address or port cannot be used; the message says why and what to do."""


class Server:
    """The server. It listens from its creation on, or raises `CannotListen`; `run` answers
    requests."""

    def __init__(self, application: Application, *, host: str, port: int, threads: int) -> None:
        self._sockets = list(_listen(host, port))
        config = Config(
            Front(application, threads=threads),
            interface="asgi3",
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # uvicorn must not trust them
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(DRAIN_SECONDS),
        )
        self._server = _Uvicorn(config)

    @property
    def port(self) -> int:
        """The port in use; if 0 was requested, the free port that was found."""
        return int(self._sockets[0].getsockname()[1])

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish open requests; a second signal kills."""
        _allow_many_connections()
        _return_freed_memory()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._server.run(self._sockets)

    def _stop(self, _number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        self._server.should_exit = True


class _Uvicorn(Uvicorn):
    def capture_signals(self) -> Any:
        return contextlib.nullcontext()  # otherwise uvicorn would raise the signal again at the end


class _Http(h11.Connection):
    """HTTP that sends the head of an answer together with the beginning of its body.

    Two packets would take two system calls, and wake the client twice.
    """

    _unsent = b""

    def send(self, event: h11.Event) -> bytes | None:
        data = super().send(event)
        if isinstance(event, h11.Response):
            self._unsent = data or b""
            return b""
        head, self._unsent = self._unsent, b""
        return head + (data or b"") if head else data


class _Connection(H11Protocol):
    """A connection with its `Peer`, a timeout for headers, and JSON answers to invalid HTTP."""

    _head: asyncio.TimerHandle | None = None
    _has_ended = False  # the client sends no more

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Http(h11.SERVER, HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # asyncio does so only for sockets that name their protocol. Without it the end of an answer
        # waits for the client's delayed acknowledgement of its beginning: 40 ms.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {PEER: Peer(connection)}
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def eof_received(self) -> bool:
        """Keep the connection of a client that sends no more until its requests are answered."""
        self._has_ended = True
        return self._has_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()
        if self._has_ended and not self._has_request():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.cycle and not self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()  # an incomplete request cannot be answered
        else:
            super().shutdown()

    def _has_request(self) -> bool:
        """Return whether a whole request is not yet answered."""
        return bool(self.cycle and not self.cycle.response_complete and not self.cycle.more_body)

    def _await_head(self) -> None:
        """Start or stop the timeout for the headers of the next request."""
        if self.cycle and not self.cycle.response_complete:
            self._forget_head()
        elif self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _forget_head(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None

    def send_400_response(self, msg: str) -> None:
        message = gettext(
            "The request is no HTTP that this server reads: its first line, its headers or its "
            "Content-Length are damaged, or longer than allowed."
        )
        body = json.dumps(error_body("bad_request", message)).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()


def _allow_many_connections() -> None:
    """Raise the limit of open files to its maximum, as each connection needs one."""
    try:
        import resource
    except ImportError:  # not Unix
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _return_freed_memory() -> None:
    """Tell glibc to return freed large pictures to the system at once, and to reuse the memory of
    smaller ones.

    By itself it keeps blocks of up to 32 MiB, and for each thread: 2,500 damaged pictures made the
    server grow by 450 MiB. If it keeps none, a photo of a megapixel costs 2,000 page faults, a fifth
    of its processor time.
    """
    arenas, from_size, spare = -8, -3, -1  # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    mebibyte = 1024 * 1024
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(arenas, 2)
        mallopt(from_size, 8 * mebibyte)
        mallopt(spare, 16 * mebibyte)


def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on every address of the host name, all with the same port. Raise `CannotListen`."""
    try:
        found = socket.getaddrinfo(
            None if host == ANY_ADDRESS else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        raise _no_address(host, port) from error
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
        try:
            listener = socket.create_server(
                (address[0], port, *address[2:]), family=family, backlog=BACKLOG
            )
        except OverflowError as error:
            raise _no_address(host, port) from error
        except OSError as error:
            raise CannotListen(_reason(error, host, port)) from error
        port = listener.getsockname()[1]
        yield listener


def _no_address(host: str, port: int) -> CannotListen:
    return CannotListen(
        gettext(
            "HOST=%(host)s PORT=%(port)s is no address of this machine. "
            "Set HOST to 127.0.0.1, 0.0.0.0 or one of its addresses, and PORT to 1-65535."
        )
        % {"host": host, "port": port}
    )


def _reason(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            cause = gettext(
                "another program is listening there. Stop it, or set PORT to another number"
            )
        case errno.EACCES:
            cause = gettext("ports below 1024 need the right to use them. Set PORT to 1024 or more")
        case errno.EADDRNOTAVAIL:
            cause = gettext(
                "this machine has no such address. Set HOST to 127.0.0.1, 0.0.0.0 or its own"
            )
        case _:
            cause = gettext("%(reason)s. Set HOST and PORT to others") % {"reason": error.strerror}
    return gettext("Cannot listen at %(host)s:%(port)d: %(cause)s.") % {
        "host": host,
        "port": port,
        "cause": cause,
    }
