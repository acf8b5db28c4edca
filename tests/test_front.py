"""The server in front of Django: slow, silent and damaged connections, and bodies of all kinds."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

import pytest

from faceproject import front, server
from faceproject.middleware import REFUSAL
from faceproject.server import Server

CASES = Path(os.environ.get("CASES_DIR", Path(__file__).parents[2] / "shared" / "cases"))
MIB = 1024 * 1024
SECONDS = 60  # a busy machine may take; what hangs takes longer
QUICK = SECONDS / 2


class Echo:
    """A WSGI application that reports its request, or waits until it is released."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            self.go_on.wait(SECONDS)
        if environ["PATH_INFO"] == "/readyz" and environ["QUERY_STRING"] == "hangs":
            self.go_on.wait(SECONDS)
        if environ["PATH_INFO"] == "/long":
            start_response("200 OK", [])
            return (b"x" * MIB for _ in range(20))
        if environ["PATH_INFO"] == "/cookie":
            start_response("200 OK", [("Set-Cookie", " a=b")])
            return []
        heard = {key: value for key, value in environ.items() if isinstance(value, str)}
        heard["body"] = len(environ["wsgi.input"].read())
        heard["refusal"] = environ.get(REFUSAL)
        body = json.dumps(heard).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [body]


@pytest.fixture
def echo() -> Iterator[Echo]:
    application = Echo()
    yield application
    application.go_on.set()


@pytest.fixture
def let_in(monkeypatch) -> list[bool]:
    """Whether clients are let in, as the last item of the list says."""
    answers = [True]
    monkeypatch.setattr(front, "_is_let_in", lambda environ: answers[-1])
    return answers


@pytest.fixture
def connect(echo, let_in) -> Iterator[Callable[..., socket.socket]]:
    """Connect to a server with two threads and send the first bytes."""
    running = Server(echo, host="127.0.0.1", port=0, threads=2)
    thread = threading.Thread(target=running._server.run, args=(running._sockets,), daemon=True)
    thread.start()
    opened: list[socket.socket] = []

    def begin(first: bytes = b"", **options) -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", running.port), SECONDS))
        opened[-1].sendall(first)
        return opened[-1]

    yield begin
    for connection in opened:
        connection.close()
    echo.go_on.set()
    running._server.should_exit = True
    thread.join(SECONDS)


def answer(connection: socket.socket) -> tuple[int, str]:
    """Return status and body of the answer, after which the server closes the connection."""
    received = connection.makefile("rb").read().decode()
    head, _empty, body = received.partition("\r\n\r\n")
    return int(head.split()[1]), body


def heard(connection: socket.socket) -> dict:
    status, body = answer(connection)
    assert status == 200
    return json.loads(body)


def request(method: str = "GET", path: str = "/", headers: str = "", body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def sized(path: str, size: int, extra: str = "") -> bytes:
    return request("POST", path, f"Content-Length: {size}\r\n{extra}")


DAMAGED = {
    "Content-Length that is no number": b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n",
    "negative": b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "plus": b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: wrong\r\n\r\n",
    "chunk size": b"POST /api/embedding HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "space in the path": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "folded start": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
    "endless path": b"GET /" + b"x" * 100_000,
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_request_is_400_in_json(connect, damaged):
    status, body = answer(connect(damaged))
    assert status == 400
    assert json.loads(body)["error"] == "bad_request" and json.loads(body)["success"] is False


def test_the_case_that_was_500(connect):
    case = CASES / "content_length_abc.http"
    if not case.exists():
        pytest.skip(f"The collected cases are not at {CASES}: set CASES_DIR.")
    assert answer(connect(case.read_bytes()))[0] == 400


def test_the_path_is_told_as_it_was_sent(connect):
    said = heard(connect(request(path="/api/persons/a%2Fb%C3%A3?x=%20")))
    assert said["REQUEST_URI"] == "/api/persons/a%2Fb%C3%A3"
    assert said["PATH_INFO"] == "/api/persons/a/bã".encode().decode("latin-1")
    assert said["QUERY_STRING"] == "x=%20"
    assert heard(connect(request(path="http://localhost/livezz")))["PATH_INFO"] == "/livezz"
    assert heard(connect(request(path="http://[::1/x")))["PATH_INFO"] == "/x"  # was a traceback


def test_an_address_that_was_put_together_with_two_slashes_is_meant(connect):
    """'http://localhost/' + '/api/health' was a page of HTML; the previous system led to the right address."""
    said = heard(connect(request(path="//api/persons/a%2F%2Fb")))
    assert (said["REQUEST_URI"], said["PATH_INFO"]) == (
        "/api/persons/a%2F%2Fb",
        "/api/persons/a//b",
    )


def test_headers_that_could_pass_for_others_are_dropped(connect):
    headers = "X_Forwarded_For: 1.1.1.1\r\nrecognition.peer: 1\r\nX-Forwarded-For: 2.2.2.2\r\n"
    said = heard(connect(request(headers=headers + "Cookie: a=1\r\nCookie: b=2\r\n")))
    assert said["HTTP_X_FORWARDED_FOR"] == "2.2.2.2"
    assert said["HTTP_COOKIE"] == "a=1; b=2"
    assert "recognition.peer" not in said


def test_http_2_with_prior_knowledge_gets_an_answer(connect):
    assert answer(connect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))[0] in (200, 400)


def test_a_cookie_is_sent_as_django_writes_it(connect):
    """Django writes it with a leading space, which h11 would reject."""
    assert "\r\nset-cookie: a=b\r\n" in connect(request(path="/cookie")).makefile(newline="").read()


def test_a_body_without_a_length_gets_one(connect):
    chunked = request(
        "POST", "/", "Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    said = heard(connect(chunked))
    assert (said["CONTENT_LENGTH"], said["body"]) == ("5", 5)
    assert "HTTP_TRANSFER_ENCODING" not in said


def test_a_large_body_arrives_whole(connect):
    connection = connect(sized("/", 7 * MIB))
    connection.sendall(b"x" * 7 * MIB)
    assert heard(connection)["body"] == 7 * MIB


def test_a_large_answer_waits_for_a_slow_reader_while_others_are_served(connect):
    slow = [connect(request(path="/long")) for _ in range(6)]  # two threads
    assert heard(connect(request()))["body"] == 0
    assert [len(answer(connection)[1]) for connection in slow] == [20 * MIB] * 6


def open_files() -> int:
    """Return the unnamed files that this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it meanwhile
            count += str(link.readlink()).endswith(" (deleted)")
    return count


@pytest.mark.parametrize(("admitted", "kept"), [(True, 1), (False, 0)])
def test_bodies_are_kept_only_of_who_is_let_in(connect, let_in, admitted, kept):
    let_in.append(admitted)
    before = open_files()
    connection = connect(sized("/api/embedding", 4 * MIB))
    connection.sendall(b"x" * 3 * MIB)
    deadline = time.monotonic() + (SECONDS if kept else 2)
    while open_files() - before != 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert open_files() - before == kept
    connection.sendall(b"x" * MIB)
    said = heard(connection)
    assert (said["body"], said["refusal"]) == ((4 * MIB, None) if admitted else (0, 401))


def test_who_was_let_in_is_examined_again_for_other_headers_and_after_a_while(
    connect, let_in, monkeypatch
):
    """Each photo of more than 64 kB took a thread of its own, and with a token SQL twice."""
    monkeypatch.setattr("faceproject.front.LET_IN_SECONDS", 3600.0)

    def sent(headers: str) -> int:
        head = sized("/api/embedding", MIB, headers).replace(b"Connection: close\r\n", b"")
        connection.sendall(head + b"x" * MIB)
        response = HTTPResponse(connection)
        response.begin()
        return json.loads(response.read())["body"]

    connection = connect()
    let_in.append(False)
    assert sent("Authorization: Token a\r\n") == 0  # and the connection ends
    connection = connect()
    let_in.append(True)
    assert sent("Authorization: Token a\r\n") == MIB
    let_in.append(False)
    assert sent("Authorization: Token a\r\n") == MIB
    assert sent("Authorization: Token b\r\n") == 0
    monkeypatch.setattr("faceproject.front.LET_IN_SECONDS", 0.0)
    connection = connect()
    let_in.append(True)
    assert sent("") == MIB
    let_in.append(False)
    assert sent("") == 0


def test_a_stranger_who_asks_first_sends_nothing(connect, let_in):
    let_in.append(False)
    said = heard(connect(sized("/api/embedding", 4 * MIB, "Expect: 100-continue\r\n")))
    assert said["refusal"] == 401


def test_a_stranger_may_send_enough_to_log_in(connect, let_in):
    let_in.append(False)
    said = heard(connect(sized("/login", 5) + b"a=b&c"))
    assert (said["body"], said["refusal"]) == (5, None)


@pytest.mark.parametrize(
    ("path", "megabytes", "refusal"),
    [("/api/embedding", 51, 413), ("/people/import", 51, None), ("/people/import", 201, 413)],
)
def test_the_limit_is_the_calls_own(connect, path, megabytes, refusal):
    connection = connect(sized(path, megabytes * MIB))
    if megabytes < 200:
        for _ in range(megabytes):
            connection.sendall(b"x" * MIB)
    said = heard(connection)
    assert said["refusal"] == refusal
    assert said["body"] == (0 if refusal else megabytes * MIB)


def test_a_body_without_a_length_is_limited_too(connect):
    connection = connect(request("POST", "/api/x", "Transfer-Encoding: chunked\r\n"))
    for _ in range(51):
        connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
    connection.sendall(b"0\r\n\r\n")
    assert heard(connection)["refusal"] == 413


def test_a_body_that_comes_too_slowly_is_refused(connect, monkeypatch):
    monkeypatch.setattr(front, "IDLE_SECONDS", 0.3)
    assert heard(connect(sized("/", 10) + b"x"))["refusal"] == 408


@pytest.mark.parametrize("first", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX"])
def test_a_connection_without_a_request_ends(connect, monkeypatch, first):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    connection = connect(first)
    with suppress(ConnectionError):  # it may have ended already
        for _ in range(2):
            time.sleep(0.2)
            connection.sendall(b"x" if first else b"")
        assert connection.recv(100) == b""


def test_a_request_outlives_the_time_for_headers(connect, echo, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 2.0)  # in which a busy machine sends them
    connection = connect(request(path="/wait"))
    time.sleep(2.5)
    echo.go_on.set()
    assert heard(connection)["PATH_INFO"] == "/wait"


@pytest.mark.parametrize("requests", [1, 2])
def test_who_sends_no_more_is_answered(connect, echo, requests):
    """Like `nc -N`, and some clients of HTTP/1.0."""
    connection = connect(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n" * requests)
    connection.shutdown(socket.SHUT_WR)
    threading.Timer(0.3, echo.go_on.set).start()
    received = connection.makefile("rb").read()
    assert received.count(b"HTTP/1.1 200 OK") == requests


def test_who_ends_within_a_request_is_let_go(connect):
    connection = connect(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab")
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == b""


def test_probes_wait_for_no_thread_that_computes(connect, echo):
    busy = [connect(request(path="/wait")) for _ in range(8)]
    time.sleep(0.1)
    start = time.monotonic()
    assert heard(connect(request(path="/livez")))["PATH_INFO"] == "/livez"
    assert heard(connect(request(path="/metrics")))["PATH_INFO"] == "/metrics"
    assert heard(connect(request(path="/readyz")))["PATH_INFO"] == "/readyz"
    assert time.monotonic() - start < QUICK
    echo.go_on.set()
    assert [heard(connection)["PATH_INFO"] for connection in busy] == ["/wait"] * 8


def test_an_examination_that_hangs_is_told_in_a_second(connect, echo, monkeypatch):
    monkeypatch.setattr(front, "READINESS_KEPT_SECONDS", 3600.0)
    with monkeypatch.context() as patient:
        patient.setattr(front, "READINESS_SECONDS", QUICK)
        assert answer(connect(request(path="/readyz")))[0] == 200
    start = time.monotonic()
    assert heard(connect(request(path="/readyz?hangs")))["QUERY_STRING"] == ""  # the last one
    monkeypatch.setattr(front, "READINESS_KEPT_SECONDS", 0.0)
    status, body = answer(connect(request(path="/readyz?hangs")))
    assert time.monotonic() - start < QUICK
    assert status == 503 and "longer than a second" in json.loads(body)["problems"][0]


def test_250_slow_connections_stop_nobody(connect):
    beginnings = [
        b"",
        b"GET /api",
        request("POST", "/", "Content-Length: 100\r\n", b"x"),
        sized("/api/embedding", 4 * MIB),
        request("POST", "/", "Transfer-Encoding: chunked\r\n", b"5\r\nab"),
    ]
    slow = [connect(beginnings[number % len(beginnings)]) for number in range(250)]
    start = time.monotonic()
    assert heard(connect(request()))["body"] == 0
    assert answer(connect(request(path="/livez")))[0] == 200
    assert time.monotonic() - start < QUICK
    assert len(slow) == 250
