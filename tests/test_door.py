"""Who needs no account, on a running server, with real proxies and real users of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recognition.api.peer import is_supported, own_user
from tests import nginx_server
from tests.nginx_server import find_program
from tests.recognition.milvus_server import free_port
from tests.test_server import Served, data, migrated  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(not is_supported(), reason="Only Linux tells whose a socket is.")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root can start another user's.")
NOBODY = 65534
SECONDS = 120
JPEG = 3 * 1024 * 1024

# Sends a request of its own and prints the answer: a program that listens to nothing, as a test's
# process may. The length is of a body that follows.
CLIENT = """
import encodings.idna, os, socket, sys
port, user, head, length = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if user:
    os.setgroups([]); os.setgid(user); os.setuid(user)
with socket.create_connection(("127.0.0.1", port), 30) as connection:
    connection.sendall(head.encode() + b"x" * length)
    sys.stdout.buffer.write(connection.makefile("rb").read())
"""

# As a developer's proxy works, or socat with fork: a child for each connection, which does not listen.
FORKING_PROXY = """
import os, signal, socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def copy(source, target):
    while piece := source.recv(65536):
        target.sendall(piece)
    target.shutdown(socket.SHUT_WR)
while True:
    caller, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        server = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        threading.Thread(target=copy, args=(caller, server)).start()
        copy(server, caller)
        os._exit(0)
    caller.close()
"""

SITE = "server {{ listen 127.0.0.1:{port}; location / {{ {version} proxy_pass http://127.0.0.1:{server}; }} }}"
NGINX = nginx_server.NGINX.replace("{site}", SITE)

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen faces
    bind 127.0.0.1:{port}
    server faces 127.0.0.1:{server}
"""


@pytest.fixture(scope="module")
def served(data: Path) -> Iterator[Served]:  # noqa: F811
    """A server with the default access rules."""
    server = Served(data, API_AUTH_REQUIRED="")
    yield server
    server.process.kill()


def port_of(server: Served) -> int:
    return int(server.url.rpartition(":")[2])


def ask(
    port: int, path: str = "/api/models", *, version: str = "1.1", user: int = 0, headers: str = "", body: int = -1
) -> str:  # fmt: skip
    """Return the answer to a program of this user or of another one."""
    method, length = ("GET", "") if body < 0 else ("POST", f"Content-Length: {body}\r\n")
    head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(port), str(user), f"{head}{length}{headers}\r\n", str(max(body, 0))],
        capture_output=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def is_shut_out(port: int, **options) -> bool:
    """Return whether the API requires an account and the pages redirect to the login."""
    call, page = ask(port, **options), ask(port, "/", **options)
    statuses = call.split()[1], page.split()[1]
    assert statuses in {("200", "200"), ("401", "302")}, (call, page)
    return statuses == ("401", "302") and "/login" in page


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start a proxy and return its port once it answers."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(words: list[str], configuration: str = "", **values: object) -> int:
        port = free_port()
        file = tmp_path / "configuration"
        file.write_text(configuration.format(port=port, folder=tmp_path, **values))
        filled = [word.format(port=port, file=file, folder=tmp_path, **values) for word in words]
        started.append(subprocess.Popen(filled, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        deadline = time.monotonic() + SECONDS
        while not listens(port):
            assert started[-1].poll() is None, started[-1].stdout.read().decode()
            assert time.monotonic() < deadline, "The proxy does not listen."
            time.sleep(0.05)
        return port

    yield begin
    for process in started:
        process.terminate()
        process.wait(SECONDS)


def listens(port: int) -> bool:
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def program(name: str) -> str:
    found = find_program(name)
    if not found:
        pytest.skip(f"{name} is not installed: script/test installs it where it may.")
    return found


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_own_programs_need_no_account(served: Served, version: str) -> None:
    assert not is_shut_out(port_of(served), version=version)


def test_it_is_said_aloud_to_whom_the_door_is_open(served: Served) -> None:
    sentence = f"Open without an account only to the user {own_user()} on this machine."
    assert sentence in served.output
    assert sentence in ask(port_of(served), "/")


@needs_root
def test_other_users_of_the_machine_need_an_account(served: Served) -> None:
    assert is_shut_out(port_of(served), user=NOBODY)


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: a",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 a",
    ],
)
def test_what_a_proxy_says_of_itself_is_believed(served: Served, header: str) -> None:
    assert is_shut_out(port_of(served), headers=f"{header}\r\n")


@pytest.mark.parametrize("version", ["", "proxy_http_version 1.1;"], ids=["as it comes", "1.1"])
@pytest.mark.parametrize("user", ["", pytest.param("user root;", marks=needs_root)])
def test_behind_nginx_everybody_needs_an_account(served, run, version: str, user: str) -> None:
    """nginx of another user or of this one, without any header that reveals it."""
    server = port_of(served)
    words = [program("nginx"), "-p", "{folder}", "-c", "{file}"]
    assert is_shut_out(run(words, NGINX, version=version, user=user, server=server))


def test_behind_haproxy_in_tcp_mode_everybody_needs_an_account(served, run) -> None:
    words = [program("haproxy"), "-db", "-f", "{file}"]
    assert is_shut_out(run(words, HAPROXY, server=port_of(served)))


def test_behind_a_forking_proxy_everybody_needs_an_account(served, run) -> None:
    words = [sys.executable, "-c", "{source}", "{port}", "{server}"]
    assert is_shut_out(run(words, source=FORKING_PROXY, server=port_of(served)))


@needs_root
def test_a_strangers_pictures_are_not_taken(served: Served) -> None:
    port = port_of(served)
    form = "Content-Type: multipart/form-data; boundary=x\r\n"
    call = ask(port, "/api/embedding", user=NOBODY, headers=form, body=JPEG)
    assert call.startswith("HTTP/1.1 401") and "not_authenticated" in call
    page = ask(port, "/", user=NOBODY, headers=form, body=JPEG)
    assert page.startswith("HTTP/1.1 302") and "/login" in page


def test_a_path_forges_no_line_of_the_log(served: Served) -> None:
    ask(port_of(served), "/api/nothing%0a2026-01-01 00:00:00 INFO forged".replace(" ", "%20"))
    ask(port_of(served), "/nothing%0d%1b[2Jforged%e2%80%a8forged")
    deadline = time.monotonic() + SECONDS
    while served.output.count("forged") < 3:
        assert time.monotonic() < deadline, served.output
        time.sleep(0.05)
    assert not any("\x1b" in line or "\u2028" in line for line in served.lines)
    assert not any(line.startswith("2026-01-01") for line in served.lines)


def test_server_for_other_machines_says_that_passwords_can_be_read(tmp_path: Path, migrated: Path) -> None:  # noqa: F811  # fmt: skip
    folder = shutil.copytree(migrated, tmp_path / "data")
    knobs = {"HOST": "0.0.0.0", "API_AUTH_REQUIRED": ""}
    server = Served(folder, **knobs)
    try:
        assert is_shut_out(port_of(server))
    finally:
        server.stop()
    assert "Everybody needs an account." in server.output
    assert "plain HTTP: passwords" in server.output
