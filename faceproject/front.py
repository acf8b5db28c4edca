"""An ASGI application in front of Django that waits for the network, so that no worker thread has
to.

It receives the whole body of a request before a thread works on it, and sends the answer after that
thread is free again. Half-open, slow and stalled connections cost a little memory each and block
nobody. Large bodies are accepted from authenticated clients only. The probes never wait for a
worker thread.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from queue import SimpleQueue
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.db import connections
from django.utils.translation import get_language_from_request, gettext, override
from prometheus_client import Gauge

from faceproject.middleware import REFUSAL, is_api_path
from recognition.api.access import is_let_in
from recognition.api.peer import PEER
from recognition.api.text import Request
from recognition.instrumentation import STAGES

Environ = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

KIB, MIB = 1024, 1024 * 1024
SMALL_BODY = 64 * KIB  # accepted without authentication: enough for a login
IN_MEMORY = MIB
PIECE = 64 * KIB  # bytes of an answer that are handed to the connection at once
READ_TO_REFUSE = 4  # bodies up to this many times the limit are read, to answer with a message
IDLE_SECONDS = 60.0  # longest pause between two pieces of a body
TRANSFER_SECONDS = 600.0  # for a whole body, and for a whole answer
LET_IN_SECONDS = 60.0  # how long a connection may send large bodies with the same headers
WAITING = Gauge("faces_http_requests_waiting", "Requests that wait for a free thread (THREADS).")
READINESS_SECONDS = 0.8
READINESS_KEPT_SECONDS = 15.0  # how long an old result is returned while a new check runs


class Gone(Exception):
    """The client disconnected before its request was complete."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: Any  # a binary file at its start


class Workers:
    """Threads that work on requests. They are daemon threads, so they end with the process."""

    def __init__(self, count: int) -> None:
        self._waiting: SimpleQueue[tuple[Future[Answer], Callable[[], Answer], float]]
        self._waiting = SimpleQueue()
        WAITING.set_function(self._waiting.qsize)
        for number in range(count):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()

    def submit(self, work: Callable[[], Answer]) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._waiting.put((future, work, time.perf_counter()))
        return future

    def _work(self) -> None:
        while True:
            future, work, since = self._waiting.get()
            STAGES.labels("thread").observe(time.perf_counter() - since)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 (raised where it is awaited)
                future.set_exception(error)
            del future, work


class Front:
    """The ASGI application that the server runs."""

    def __init__(self, application: Application, *, threads: int) -> None:
        self._application = application
        self._workers = Workers(threads)
        self._scrape = asyncio.Lock()  # one at a time
        self._examination: asyncio.Task[Answer] | None = None
        self._readiness: tuple[float, Answer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        environ = make_environ(scope)
        try:
            environ["wsgi.input"] = await self._body(environ, receive)
        except Gone:
            return
        with environ["wsgi.input"]:
            answer = await self._ask(environ)
        with answer.body:
            await _send(answer, send)

    async def _ask(self, environ: Environ) -> Answer:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            match environ["PATH_INFO"]:
                case "/livez":  # never waits
                    return call(self._application, environ)
                case "/readyz":
                    return await self._probe(environ)
                case "/metrics":  # told also when all threads are busy
                    async with self._scrape:
                        return await asyncio.to_thread(call, self._application, environ)
        future = self._workers.submit(lambda: call(self._application, environ))
        return await asyncio.wrap_future(future)

    async def _probe(self, environ: Environ) -> Answer:
        """Answer all probes with one running health check; if it takes too long, with the last
        result."""
        if self._examination is None or self._examination.done():
            own = environ | {"wsgi.input": BytesIO()}  # it may outlive this request
            work = asyncio.to_thread(call, self._application, own)
            self._examination = asyncio.create_task(work)
        examination = self._examination
        if (await asyncio.wait({examination}, timeout=READINESS_SECONDS))[0]:
            self._readiness = time.monotonic(), examination.result()
        if self._readiness and time.monotonic() - self._readiness[0] < READINESS_KEPT_SECONDS:
            known = self._readiness[1]
            known.body.seek(0)
            return Answer(known.status, known.headers, BytesIO(known.body.read()))
        return _no_answer_in_time(environ)

    async def _body(self, environ: Environ, receive: Receive) -> BinaryIO:
        """Return the request's body at its start; empty, with `REFUSAL` set, if it is refused."""
        declared = environ.get("CONTENT_LENGTH")
        if declared is None and "HTTP_TRANSFER_ENCODING" not in environ:
            return BytesIO()
        limit, most = _limit(environ), READ_TO_REFUSE * settings.MAX_REQUEST_BYTES
        refusal = None
        if declared is None or int(declared) > SMALL_BODY:
            if not await _may_send(environ):
                refusal = HTTPStatus.UNAUTHORIZED
            elif declared and int(declared) > limit:
                refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        unread = int(declared or 0) > most or (refusal and "HTTP_EXPECT" in environ)
        body, size = _Body(), 0
        if not unread:
            try:
                async for piece in _pieces(receive):
                    size += len(piece)
                    if size > limit:
                        refusal = refusal or HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                    if refusal:  # keep reading: most clients read the answer only after sending
                        body.clear()
                        if size > most:
                            break
                    else:
                        await body.add(piece)
            except TimeoutError:
                refusal = HTTPStatus.REQUEST_TIMEOUT
            except Gone:
                body.clear()
                raise
        elif refusal is None:
            refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        if refusal:
            environ[REFUSAL] = refusal
            body.clear()
            size = 0
        environ["CONTENT_LENGTH"] = str(size)
        return await body.whole()


class _Body:
    """A received body: in memory while it is short, then in a temporary file without a name."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    async def add(self, piece: bytes) -> None:
        self._memory += piece
        if len(self._memory) > IN_MEMORY:
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 (closed by the reader)
        self._file.write(self._memory)
        self._memory = bytearray()

    async def whole(self) -> BinaryIO:
        if self._file is None:
            return BytesIO(self._memory)
        await asyncio.to_thread(self._write)
        self._file.seek(0)
        return self._file

    def clear(self) -> None:
        self._memory = bytearray()
        if self._file:
            self._file.close()
            self._file = None


async def _pieces(receive: Receive) -> Any:
    """Yield the pieces of a body as they arrive. Raise `TimeoutError` if they are too slow."""
    clock = asyncio.get_running_loop().time
    end = clock() + TRANSFER_SECONDS
    more = True
    while more:
        async with asyncio.timeout_at(min(end, clock() + IDLE_SECONDS)):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _request(environ: Environ) -> Request:
    """Return a Django request for a copy of `environ`, because Django changes the path in it."""
    return Request(dict(environ))


def _limit(environ: Environ) -> int:
    """Return the largest allowed body. Pages accept larger ones than the API, for ZIP imports."""
    times = 1 if is_api_path(environ["PATH_INFO"]) else READ_TO_REFUSE
    return times * settings.MAX_REQUEST_BYTES


async def _may_send(environ: Environ) -> bool:
    """Return whether a large body is accepted. Whoever was let in is not examined for each, which takes
    another thread and SQL; the answer is given to who has an account at that moment."""
    peer, now = environ[PEER], time.monotonic()
    headers = hash(frozenset(item for item in environ.items() if item[0].startswith("HTTP_")))
    if peer and peer.let_in[0] == headers and now < peer.let_in[1]:
        return True
    let_in = await asyncio.to_thread(_is_let_in, environ)
    if peer and let_in:
        peer.let_in = headers, now + LET_IN_SECONDS
    return let_in


def _is_let_in(environ: Environ) -> bool:
    try:
        return is_let_in(_request(environ))
    finally:
        connections.close_all()


def _no_answer_in_time(environ: Environ) -> Answer:
    with override(get_language_from_request(_request(environ))):
        problem = gettext(
            "The examination of the databases takes longer than a second: one of them does not answer, "
            "or the server is overloaded."
        )
    body = json.dumps({"status": "not ready", "problems": [problem]}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"5"),
    ]
    return Answer(503, headers, BytesIO(body))


def make_environ(scope: Scope) -> Environ:
    """Return the WSGI environment of an ASGI request, without its body."""
    target = scope["raw_path"]
    if b"://" in target and not target.startswith(b"/"):  # GET http://localhost/path
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    if target.startswith(b"//"):  # who puts /api/health behind http://localhost/
        target = b"/" + target.lstrip(b"/")
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(target).decode("latin-1"),
        "REQUEST_URI": target.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": scope["server"][0],
        "SERVER_PORT": str(scope["server"][1]),
        "REMOTE_ADDR": scope["client"][0],
        "REMOTE_PORT": str(scope["client"][1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        PEER: scope.get("state", {}).get(PEER),
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "_" in name:
            continue  # after conversion it could look like another header
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        separator = "; " if key == "HTTP_COOKIE" else ", "
        environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    return environ


def call(application: Application, environ: Environ) -> Answer:
    """Return the application's whole answer; a long one is in a file, for slow readers."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Any:
        started[:] = [status, headers]
        return body.write

    body = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 (closed when it is sent)
    result = application(environ, start_response)
    try:
        for piece in result:
            body.write(piece)
    finally:
        if hasattr(result, "close"):
            result.close()
    status, headers = started
    # Stripped, because Django writes cookies with a leading space.
    raw = [
        (name.lower().encode("latin-1"), value.strip().encode("latin-1")) for name, value in headers
    ]
    if body.tell() and not any(name == b"content-length" for name, _value in raw):
        raw.append((b"content-length", str(body.tell()).encode()))
    body.seek(0)
    if environ.get(REFUSAL):
        raw.append((b"connection", b"close"))  # more of its body may still arrive
    return Answer(int(status.split()[0]), raw, body)


async def _send(answer: Answer, send: Send) -> None:
    start = {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
    async with asyncio.timeout(TRANSFER_SECONDS):
        await send(start)
        more = True
        while more:
            piece = answer.body.read(PIECE)
            more = len(piece) == PIECE
            await send({"type": "http.response.body", "body": piece, "more_body": more})
