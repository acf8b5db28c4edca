"""Load a server from several clients at once, at little cost for the machine that both share."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
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


class Target:
    """A server that speaks the contract of `docs/api.md`, and the token for it, if it wants one."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            message = gettext("'%(url)s' is no address of a server, such as http://localhost:5000.")
            raise BenchmarkError(message % {"url": url})
        self.url = url
        self._secure = parts.scheme == "https"
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        if token:
            self._headers["Authorization"] = f"Token {token}"

    def load(self, call: Call, clients: int, seconds: float) -> Load:
        """Let the clients ask again and again for `seconds`, each on a connection that stays open.

        Each asks once before the time begins. Raise `BenchmarkError` if the server does not answer, or
        refuses every request.
        """
        load, lock = Load(call.pictures), threading.Lock()
        errors: list[BenchmarkError] = []
        begins = threading.Barrier(clients)
        start = [0.0]

        def work(number: int) -> None:
            connection = self._connect()
            try:
                self._ask(connection, call, number)
                if begins.wait() == 0:
                    start[0] = time.perf_counter()
                begins.wait()
                while not errors and (
                    time.perf_counter() < start[0] + seconds
                    or len(load.seconds) + load.refused < LEAST_ANSWERS
                ):
                    begin = time.perf_counter()
                    number += clients
                    refusal = self._ask(connection, call, number)
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
            connection.request("GET", f"{self._prefix}/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        kind = HTTPSConnection if self._secure else HTTPConnection
        return kind(self._host, self._port, timeout=TIMEOUT_SECONDS)

    def _ask(self, connection: HTTPConnection, call: Call, number: int) -> str:
        """Return why the request was refused, or nothing. Raise `BenchmarkError` without an answer."""
        form = call.forms[number % len(call.forms)]
        try:
            connection.request("POST", self._prefix + call.path, form, self._headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            message = gettext("%(url)s does not answer %(path)s: %(reason)s")
            given = {"url": self.url, "path": call.path, "reason": error or type(error).__name__}
            raise BenchmarkError(message % given) from error
        return "" if answer.status == 200 else f"{answer.status} {_reason(body)}"


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
