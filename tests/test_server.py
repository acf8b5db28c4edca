"""The production server in its own process, over HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h11
import pytest
import requests
from uvicorn.protocols.http.h11_impl import H11Protocol

from faceproject.management.commands.serve import preload
from faceproject.server import _Connection, _Http
from recognition.networks import loaded_names
from recognition.networks.loader import unload_networks
from tests.gallery_folder import migrated_data
from tests.pictures import draw_picture

ROOT = Path(__file__).resolve().parent.parent
MODEL = "mobilenetv3_large"
START_SECONDS = 120
STOP_SECONDS = 120  # a busy machine is waited for, also while it loads a network by torch


def environment(data: Path, **knobs: str) -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    base = {name: os.environ[name] for name in kept if name in os.environ}
    return base | {
        "DATA_DIR": str(data),
        "ENV_FILE": os.devnull,
        "PORT": "0",
        # The tests' own process has servers in it, so it is nobody who needs no account (test_door.py).
        "API_AUTH_REQUIRED": "0",
        "TORCH_THREADS": "1",
        "WEIGHTS_DIR": os.environ["WEIGHTS_DIR"],  # one model is enough
        "PYTHONUNBUFFERED": "1",
        **knobs,
    }


def manage(data: Path, *words: str, **knobs: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words],
        env=environment(data, **knobs),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


class Served:
    """A running `manage.py serve` on a free port; `url` is set once it listens."""

    def __init__(self, data: Path, **knobs: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "serve"],
            env=environment(data, **knobs),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.url = self._await_url()
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        self._reader.start()

    def _await_url(self) -> str:
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("API:"):
                return line.split()[-1].removesuffix("/api/docs")
        raise AssertionError(f"The server ended before it listened: {self.output}")

    def _read_on(self) -> None:
        self.lines.extend(self.process.stdout)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def post(self, path: str, *, headers: dict[str, str] | None = None, **fields: str):
        files = [("images" if "insert" in path else "image", ("me.png", PICTURE, "image/png"))]
        fields = {"use_face_detection": "false"} | fields
        return requests.post(
            self.url + path, files=files, data=fields, headers=headers, timeout=START_SECONDS
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        return status


PICTURE = draw_picture(format="PNG")


@pytest.fixture(scope="module")
def migrated() -> Path:
    """A data folder after `migrate`, to be copied."""
    return migrated_data()


@pytest.fixture(scope="module")
def data(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of `served`."""
    return Path(shutil.copytree(migrated, tmp_path_factory.mktemp("data") / "data"))


@pytest.fixture(scope="module")
def served(data: Path) -> Iterator[Served]:
    """One server for all tests that change nothing."""
    server = Served(
        data, DJANGO_SUPERUSER_USERNAME="boss", DJANGO_SUPERUSER_PASSWORD="a long pass phrase"
    )
    yield server
    server.process.kill()


@pytest.fixture
def start(migrated: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers on one data folder of the test's own; all are stopped after the test."""
    folder = Path(shutil.copytree(migrated, tmp_path / "data"))
    started: list[Served] = []

    def begin(**knobs: str) -> Served:
        started.append(Served(folder, **knobs))
        return started[-1]

    yield begin
    for server in started:
        server.process.kill()


def test_says_where_it_listens_and_makes_the_named_account(served: Served) -> None:
    assert "Made the admin account 'boss'." in served.output
    assert f"Search page:  {served.url}/" in served.output
    assert "a long pass phrase" not in served.output


def test_health_names_what_works(served: Served) -> None:
    answer = requests.get(f"{served.url}/api/health", timeout=START_SECONDS).json()
    assert answer["milvus_connected"] is True


def test_embeds_an_upload(served: Served) -> None:
    answer = served.post("/api/embedding").json()
    assert answer["success"] is True
    assert len(answer["embedding"]) == 512


def test_serves_style_sheets_and_the_login_page(served: Served) -> None:
    login = requests.get(f"{served.url}/admin/", timeout=START_SECONDS)
    style = requests.get(f"{served.url}/static/admin/css/base.css", timeout=START_SECONDS)
    assert 'name="password"' in login.text
    assert (style.status_code, style.headers["Content-Type"]) == (200, 'text/css; charset="utf-8"')


def test_logs_in_with_the_account_from_the_environment(served: Served) -> None:
    session = requests.Session()
    url = f"{served.url}/admin/login/"
    session.get(url, timeout=START_SECONDS)
    form = {
        "username": "boss",
        "password": "a long pass phrase",
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
        "next": "/admin/",
    }
    page = session.post(url, data=form, timeout=START_SECONDS)
    assert page.url == f"{served.url}/admin/"


def test_foreign_host_is_refused_in_json(served: Served) -> None:
    answer = requests.get(
        f"{served.url}/api/models", headers={"Host": "evil.example"}, timeout=START_SECONDS
    )
    assert (answer.status_code, answer.json()["success"]) == (400, False)


def raw_request(served: Served, request: str | bytes) -> str:
    host, _colon, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), START_SECONDS) as connection:
        connection.sendall(request.encode() if isinstance(request, str) else request)
        return connection.makefile(encoding="utf-8").read()


@pytest.mark.parametrize("name", ["person_id", "file_name"])
def test_request_in_latin1_is_refused_in_json(served: Served, name: str) -> None:
    case = Path(__file__).parent / "cases" / f"insert_latin1_{name}.http"
    answer = raw_request(served, case.read_bytes())
    assert answer.startswith("HTTP/1.1 400 ") and '"error":"not_utf8"' in answer
    assert "\ufffd" not in answer


def test_too_large_request_is_told_the_limit_in_json(served: Served) -> None:
    body = {"image": ("big.png", PICTURE + b"\0" * 51 * 1024 * 1024, "image/png")}
    answer = requests.post(f"{served.url}/api/embedding", files=body, timeout=START_SECONDS)
    assert answer.status_code == 413
    assert answer.json()["error"] == "request_too_large"
    assert "50 MB" in answer.json()["message"]


def test_absurdly_large_request_is_refused_unread_in_json(served: Served) -> None:
    head = "POST /api/embedding HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    answer = raw_request(served, head)
    assert answer.startswith("HTTP/1.1 413")
    assert '"error": "request_too_large"' in answer


def test_second_server_on_the_same_data_is_told_why(served: Served, data: Path) -> None:
    second = manage(data, "serve")
    assert second.returncode == 1
    assert "open in another process" in second.stderr
    assert "Traceback" not in second.stderr


def test_taken_port_is_told_in_a_sentence(served: Served, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    second = manage(tmp_path, "serve", PORT=port)
    assert second.returncode == 1
    assert (
        f"Cannot listen at 127.0.0.1:{port}: another program is listening there." in second.stderr
    )


def test_command_on_a_new_database_says_what_to_do(tmp_path: Path) -> None:
    done = manage(tmp_path / "data", "reindex", "--check")
    assert done.returncode == 1
    assert "script/manage migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_gallery_outlives_a_restart(start: Callable[..., Served]) -> None:
    first = start()
    assert "script/manage createsuperuser" in first.output
    inserted = first.post("/api/milvus/insert", person_id="Ana d'Ávila 100%")
    assert inserted.json()["inserted_count"] == 1
    assert first.stop() == 0

    second = start()
    found = second.post("/api/milvus/search").json()["results"]
    assert second.stop(signal.SIGINT) == 0
    assert [hit["person_id"] for hit in found] == ["Ana d'Ávila 100%"]
    assert found[0]["distance"] == pytest.approx(1, abs=1e-3)


def test_start_finishes_what_a_crash_left(start: Callable[..., Served], tmp_path: Path) -> None:
    first = start()
    first.post("/api/milvus/insert", person_id="ana")
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    database = sqlite3.connect(tmp_path / "data/db.sqlite3")
    database.execute("UPDATE enrollment_faceembedding SET status = 'pending', vector = NULL")
    database.commit()

    start()
    deadline = time.monotonic() + START_SECONDS
    query = "SELECT status FROM enrollment_faceembedding"
    while database.execute(query).fetchall() != [("indexed",)]:
        assert time.monotonic() < deadline, "The server did not finish what was left."
        time.sleep(0.2)
    database.close()


def test_insert_without_waiting_becomes_searchable(served: Served) -> None:
    answer = served.post("/api/milvus/insert", person_id="later", **{"async": "true"})
    assert answer.status_code == 202
    deadline = time.monotonic() + START_SECONDS
    while not _is_indexed(served.url + answer.json()["status_url"]):
        assert time.monotonic() < deadline, "The picture did not become searchable."
        time.sleep(0.1)
    found = served.post("/api/milvus/search").json()["results"]
    assert "later" in [hit["person_id"] for hit in found]


def _is_indexed(url: str) -> bool:
    (picture,) = requests.get(url, timeout=START_SECONDS).json()["results"]
    return all(row["status"] == "indexed" for row in picture["embeddings"])


def test_request_in_progress_is_answered_before_the_end(
    start: Callable[..., Served], tmp_path: Path
) -> None:
    server = start()
    server.post("/api/milvus/insert", person_id="first")  # by which all is loaded
    answers: list[requests.Response] = []
    request = partial(server.post, "/api/milvus/insert", person_id="ana")
    client = threading.Thread(target=lambda: answers.append(request()))
    with closing(sqlite3.connect(tmp_path / "data/db.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # what the request waits for
        client.start()
        await_true(lambda: "faces_http_requests_in_progress 2.0" in metrics(server))  # and this one
        server.process.send_signal(signal.SIGTERM)
        await_true(lambda: not listens(server))
        other.execute("ROLLBACK")
    assert server.process.wait(STOP_SECONDS) == 0
    client.join(STOP_SECONDS)
    assert [answer.status_code for answer in answers] == [200]


def await_true(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def metrics(server: Served) -> str:
    return requests.get(f"{server.url}/metrics", timeout=START_SECONDS).text


def listens(server: Served) -> bool:
    host, _colon, port = server.url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), START_SECONDS).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("method", "body"), [("GET", b"ok"), ("HEAD", b"")])
def test_head_of_an_answer_is_sent_with_its_body(method, body):
    connection = _Http(h11.SERVER)
    for _time in range(2):
        connection.receive_data(f"{method} / HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        assert connection.next_event().method == method.encode()
        assert isinstance(connection.next_event(), h11.EndOfMessage)
        answer = h11.Response(status_code=200, headers=[("Content-Length", "2")])
        assert connection.send(answer) == b""
        sent = connection.send(h11.Data(data=body))
        assert sent == b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n" + body
        assert connection.send(h11.EndOfMessage()) == b""
        connection.start_next_cycle()


def test_the_end_of_an_answer_does_not_wait_for_an_acknowledgement(monkeypatch) -> None:
    """Nagle's algorithm is off; with it the second part of every answer came 40 ms late."""
    monkeypatch.setattr(H11Protocol, "connection_made", lambda protocol, transport: None)
    monkeypatch.setattr(_Connection, "_await_head", lambda protocol: None)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _address = listener.accept()
        with accepted:
            transport = SimpleNamespace(get_extra_info=lambda name: accepted)
            object.__new__(_Connection).connection_made(transport)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("named", "loaded"),
    [((), [MODEL]), (("cosface_resnet50",), []), ((MODEL,), [MODEL])],
    ids=["default", "no weights", "named"],
)
def test_server_loads_models_beforehand(settings, named, loaded) -> None:
    settings.RECOGNITION = settings.RECOGNITION | {"PRELOAD_MODELS": named}
    unload_networks()
    preload()
    assert loaded_names() == loaded
