"""The production server: one process with threads, which ends only when its requests are answered."""

from __future__ import annotations

import errno
import json
import logging
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from django.utils.translation import gettext
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from recognition.api.errors import status_error

DRAIN_SECONDS = 20.0  # what is not answered by then after SIGTERM is cut off
MAX_CONNECTIONS = 200


class CannotListen(Exception):
    """The address or port is not to be had; the message says why and what to do."""


class _ApiErrorTask(ErrorTask):
    """What is refused before Django sees it (far too large, malformed), as JSON under /api/."""

    def execute(self) -> None:
        request = self.request
        if not getattr(request, "path", "").startswith("/api/"):
            super().execute()
            return
        error = request.error
        asked = SimpleNamespace(path=request.path, method=request.command)
        body = json.dumps(status_error(asked, error.code)).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    error_task_class = _ApiErrorTask


class _Listener(TcpWSGIServer):
    channel_class = _Channel


class Server:
    """Listens at once (`CannotListen` when it cannot); answers while `run` runs."""

    def __init__(
        self, application: Callable[..., Any], *, host: str, port: int, threads: int, max_body: int
    ) -> None:
        # Forwarding headers reach the application, which treats such a request as not local;
        # nothing in them is believed.
        adjustments = _adjustments(
            host=host,
            port=port,
            threads=threads,
            max_request_body_size=max_body,
            connection_limit=MAX_CONNECTIONS,
            clear_untrusted_proxy_headers=False,
            asyncore_use_poll=True,
            ident=None,
        )
        self._sockets: dict[int, Any] = {}
        self._dispatcher = ThreadedTaskDispatcher()
        # A queue is normal here: a request computes longer than a thread takes to be free.
        self._dispatcher.queue_logger.setLevel(logging.ERROR)
        self._listeners = [self._listen(application, adjustments, at) for at in adjustments.listen]
        self._dispatcher.set_thread_count(threads)
        self._stopping = False

    def _listen(self, application: Any, adjustments: Adjustments, address: Any) -> _Listener:
        try:
            return _Listener(
                application,
                self._sockets,
                dispatcher=self._dispatcher,
                adj=adjustments,
                sockinfo=address,
            )
        except OSError as error:
            raise CannotListen(_reason(error, adjustments.host, adjustments.port)) from error

    @property
    def port(self) -> int:
        """The port in use: the one asked for, or the free one found when that was 0."""
        return int(self._listeners[0].effective_port)

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then finishes what was begun; a second signal kills."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            self._turn(timeout=1.0)
        self._drain()

    def _stop(self, number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        self._stopping = True
        self._listeners[0].pull_trigger()

    def _turn(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._sockets, count=1)

    def _drain(self) -> None:
        for listener in self._listeners:
            listener.del_channel()
            listener.socket.close()
        deadline = time.monotonic() + DRAIN_SECONDS
        while any(map(_is_busy, list(self._sockets.values()))) and time.monotonic() < deadline:
            self._turn(timeout=0.1)
        self._dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._sockets, ignore_all=True)


def _is_busy(item: Any) -> bool:
    """Whether a connection has a request that is not answered, or an answer that is not sent."""
    return isinstance(item, HTTPChannel) and bool(item.requests or item.total_outbufs_len)


def _adjustments(**options: Any) -> Adjustments:
    try:
        return Adjustments(**options)
    except ValueError as error:  # waitress resolves the host here
        raise CannotListen(
            gettext(
                "HOST=%(host)s PORT=%(port)s is no address of this machine. "
                "Set HOST to 127.0.0.1, 0.0.0.0 or one of its addresses, and PORT to 1-65535."
            )
            % {"host": options["host"], "port": options["port"]}
        ) from error


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
