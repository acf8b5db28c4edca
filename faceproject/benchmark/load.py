"""Load a server from several clients at once, at little cost for the machine that both share."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from django.utils.translation import gettext

LEAST_ANSWERS = 3
TIMEOUT_SECONDS = 120.0
BOUNDARY = "benchmark-7d1f4c9a0b"


class BenchmarkError(Exception):
    """The server cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """Requests of one kind, with their forms; each brings this many pictures."""

    path: str
    forms: list[bytes]
    pictures: int = 1


@dataclass(slots=True)
class Load:
    """The answers to one load. `seconds` are the times of the accepted requests."""

    pictures: int  # of a request
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    refusal: str = ""  # the last one
    wall: float = 0.0  # seconds from the first request to the last answer

    def add(self, other: Load) -> None:
        """Add the answers to another load of the same requests."""
        self.seconds += other.seconds
        self.refused += other.refused
        self.refusal = other.refusal or self.refusal
        self.wall += other.wall

    def milliseconds(self, share: float) -> float:
        """Return the time within which this share (0 to 1) of the answers came."""
        return float(np.quantile(self.seconds, share) * 1000)

    @property
    def per_second(self) -> float:
        """The pictures that were answered in a second."""
        return len(self.seconds) * self.pictures / self.wall


class _Connection:
    """A connection that stays open, for requests that are written already.

    `http.client` takes eight times as much of the processor that the server shares.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._address, self._context = (host, port), context
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer. Raise `OSError` or `ValueError` without one."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                host = self._address[0]
                self._socket = self._context.wrap_socket(self._socket, server_hostname=host)
            self._answers = self._socket.makefile("rb")
        self._socket.sendall(request)
        version, status = self._line().split()[:2]
        headers = {}
        while line := self._line():
            name, _colon, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        body = b"".join(self._pieces(headers))
        if headers.get(b"connection", b"close" if version == b"HTTP/1.0" else b"") == b"close":
            self.close()
        return int(status), body

    def close(self) -> None:
        if self._socket:
            self._answers.close()
            self._socket.close()
            self._socket = None

    def _pieces(self, headers: Mapping[bytes, bytes]) -> Iterator[bytes]:
        if headers.get(b"transfer-encoding") == b"chunked":
            while size := int(self._line().partition(b";")[0], 16):
                yield self._read(size)
                self._line()
            while self._line():
                pass
        elif b"content-length" in headers:
            yield self._read(int(headers[b"content-length"]))
        else:
            yield self._answers.read()
            self.close()

    def _line(self) -> bytes:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection was closed")
        return line.rstrip(b"\r\n")

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise ConnectionError("the connection was closed")
        return data


class Target:
    """A server that speaks the contract of `docs/api.md`, and the token for it, if it wants one."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            message = gettext("'%(url)s' is no address of a server, such as http://localhost:5000.")
            raise BenchmarkError(message % {"url": url})
        self.url = url
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._context else 80)
        self._prefix = parts.path.rstrip("/")
        self._head = f"HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        if token:
            self._head += f"Authorization: Token {token}\r\n"

    def load(self, call: Call, clients: int, seconds: float) -> Load:
        """Let the clients ask again and again for `seconds`, each on a connection that stays open.

        Each asks once before the time begins. Raise `BenchmarkError` if the server does not answer, or
        refuses every request.
        """
        load, lock = Load(call.pictures), threading.Lock()
        requests = [self._written(call.path, form) for form in call.forms]
        errors: list[BenchmarkError] = []
        begins = threading.Barrier(clients)
        start = [0.0]

        def work(number: int) -> None:
            connection = self._connect()
            try:
                self._ask(connection, call.path, requests[number % len(requests)])
                if begins.wait() == 0:
                    start[0] = time.perf_counter()
                begins.wait()
                while not errors and (
                    time.perf_counter() < start[0] + seconds
                    or len(load.seconds) + load.refused < LEAST_ANSWERS
                ):
                    number += clients
                    request = requests[number % len(requests)]
                    begin = time.perf_counter()
                    refusal = self._ask(connection, call.path, request)
                    end = time.perf_counter()
                    with lock:
                        load.wall = end - start[0]
                        if refusal:
                            load.refused, load.refusal = load.refused + 1, refusal
                        else:
                            load.seconds.append(end - begin)
            except BenchmarkError as error:
                errors.append(error)
                begins.abort()
            except threading.BrokenBarrierError:
                pass  # another client has failed
            finally:
                connection.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        if not load.seconds:
            message = gettext("%(url)s refuses %(path)s: %(reason)s")
            given = {"url": self.url, "path": call.path, "reason": load.refusal}
            raise BenchmarkError(message % given)
        return load

    def is_ready(self) -> bool:
        """Return whether the server answers and can be asked."""
        connection = self._connect()
        try:
            request = f"GET {self._prefix}/readyz {self._head}\r\n"
            return connection.ask(request.encode())[0] == 200
        except (OSError, ValueError):
            return False
        finally:
            connection.close()

    def _connect(self) -> _Connection:
        return _Connection(self._host, self._port, self._context)

    def _written(self, path: str, form: bytes) -> bytes:
        """Return the request with this form, as it is sent."""
        head = (
            f"POST {self._prefix}{path} {self._head}Content-Length: {len(form)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        )
        return head.encode() + form

    def _ask(self, connection: _Connection, path: str, request: bytes) -> str:
        """Return why the request was refused, or nothing. Raise `BenchmarkError` without an answer."""
        try:
            status, body = connection.ask(request)
        except (OSError, ValueError) as error:
            message = gettext("%(url)s does not answer %(path)s: %(reason)s")
            given = {"url": self.url, "path": path, "reason": error or type(error).__name__}
            raise BenchmarkError(message % given) from error
        return "" if status == 200 else f"{status} {_reason(body)}"


def _reason(body: bytes) -> str:
    try:
        answer = json.loads(body)
        return str(answer.get("message") or answer["error"])[:300]
    except (ValueError, KeyError, AttributeError):
        return body[:100].decode(errors="replace")


def form(fields: Mapping[str, str], files: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Return a multipart form; `files` are the names of the fields, and JPEGs."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for number, (name, content) in enumerate(files):
        head = f'Content-Disposition: form-data; name="{name}"; filename="{number}.jpg"'
        head = f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n"
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
