"""What stands before Django: all that waits for the network, so that no thread that computes has to.

An ASGI application around a WSGI one. It receives a request's body whole before one of the threads
works on the request, and hands out the answer when that thread has gone on: half-open, trickling and
slow connections cost a little memory each and stop nobody. A large body is taken only from who is let
in. The probes never wait for a thread that computes.
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
from urllib.parse import unquote_to_bytes, urlsplit

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import connections
from django.utils.translation import get_language_from_request, gettext, override
from prometheus_client import Gauge

from faceproject.middleware import REFUSAL, is_api
from recognition.api.access import is_let_in
from recognition.api.peer import PEER
from recognition.observing import STAGES

Environ = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

KIB, MIB = 1024, 1024 * 1024
SMALL_BODY = 64 * KIB  # of strangers, too: enough to log in with
IN_MEMORY = MIB
READ_TO_REFUSE = 4  # times the limit: so much is read in order to be refused in a sentence
IDLE_SECONDS = 60.0  # between two pieces of a body
TRANSFER_SECONDS = 600.0  # for a whole body, and for a whole answer
WAITING = Gauge("faces_http_requests_waiting", "Requests that wait for a free thread (THREADS).")
READINESS_SECONDS = 0.8
READINESS_KEPT_SECONDS = 15.0  # how long an examination speaks for one that does not end


class Gone(Exception):
    """The client went away before its request was complete."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: Any  # a binary file, read from its start


class Workers:
    """Threads that work on requests. They end with the process, whatever they are at."""

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
                case "/livez":  # asks nothing, waits for nothing
                    return call(self._application, environ)
                case "/readyz":
                    return await self._probe(environ)
                case "/metrics":  # told also when all threads are busy
                    async with self._scrape:
                        return await asyncio.to_thread(call, self._application, environ)
        future = self._workers.submit(lambda: call(self._application, environ))
        return await asyncio.wrap_future(future)

    async def _probe(self, environ: Environ) -> Answer:
        """One examination at a time answers all who ask; if it does not end soon, the last one does."""
        if self._examination is None or self._examination.done():
            own = environ | {"wsgi.input": BytesIO()}  # it may outlive who asked
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
        """The request's body, from its start; empty, with `REFUSAL` set, when it is refused."""
        declared = environ.get("CONTENT_LENGTH")
        if declared is None and "HTTP_TRANSFER_ENCODING" not in environ:
            return BytesIO()
        limit, most = _limit(environ), READ_TO_REFUSE * settings.MAX_REQUEST_BYTES
        refusal = None
        if declared is None or int(declared) > SMALL_BODY:
            if not await asyncio.to_thread(_is_let_in, environ):
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
                    if refusal:  # read all the same: who still sends does not hear
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
    """What was received: in memory while it is short, then in a file that has no name."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    async def add(self, piece: bytes) -> None:
        self._memory += piece
        if len(self._memory) > IN_MEMORY:
            await asyncio.to_thread(self._write)

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 (closed by who reads it)
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
    """The pieces of a body as they come; `TimeoutError` when they come too slowly."""
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


def _request(environ: Environ) -> WSGIRequest:
    """The request as Django sees it, of a copy: Django writes the path that it decoded into what it is given."""
    return WSGIRequest(dict(environ))


def _limit(environ: Environ) -> int:
    """How long a body may be. The pages take larger files than the API: galleries as ZIP."""
    times = 1 if is_api(_request(environ)) else READ_TO_REFUSE
    return times * settings.MAX_REQUEST_BYTES


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
    """The WSGI environment of an ASGI request, but for its body."""
    target = scope["raw_path"]
    if not target.startswith(b"/"):  # GET http://localhost/path
        target = urlsplit(target).path or b"/"
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
            continue  # could pass for another header
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        separator = "; " if key == "HTTP_COOKIE" else ", "
        environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    return environ


def call(application: Application, environ: Environ) -> Answer:
    """The application's whole answer; a long one waits in a file for a slow reader."""
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
    # Stripped: Django writes a cookie with a space before it.
    raw = [
        (name.lower().encode("latin-1"), value.strip().encode("latin-1")) for name, value in headers
    ]
    if body.tell() and not any(name == b"content-length" for name, _value in raw):
        raw.append((b"content-length", str(body.tell()).encode()))
    body.seek(0)
    if environ.get(REFUSAL):
        raw.append((b"connection", b"close"))  # of its body, something may still be on its way
    return Answer(int(status.split()[0]), raw, body)


async def _send(answer: Answer, send: Send) -> None:
    start = {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
    async with asyncio.timeout(TRANSFER_SECONDS):
        await send(start)
        while piece := answer.body.read(64 * KIB):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
