"""The server store: other clients, outages, and servers that do not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from recognition.exceptions import VectorStoreUnavailable
from recognition.vector_store import ServerVectorStore
from tests.conftest import REAL_MILVUS
from tests.recognition.milvus_server import free_port, lite_server
from tests.recognition.vector_store.helpers import ids_in, make_rows, nearest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "engine", ["lite_address", pytest.param("milvus_address", marks=REAL_MILVUS)]
)
def test_answered_rows_are_found_by_every_client_at_once(
    request: pytest.FixtureRequest, engine: str
) -> None:
    one, other = (ServerVectorStore(request.getfixturevalue(engine)) for _client in range(2))
    one.clear()
    for row in make_rows(30):
        one.upsert("a", [row])
        assert nearest(other, "a", row.embedding, 1) == [row.id]
    one.delete("a", [row.id])
    assert row.id not in nearest(other, "a", row.embedding, 30)
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("asked", "told"), [("0", "1 skipped"), ("1", "1 error")], ids=["there", "asked for"]
)
def test_milvus_that_does_not_start_is_told(tmp_path: Path, asked: str, told: str) -> None:
    program = tmp_path / "bin" / "milvus-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no free memory\nexit 3\n")
    program.chmod(0o700)
    one = f"{Path(__file__).with_name('test_contract.py')}::test_ping_answers_true[milvus server]"
    output = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", one],
        env=os.environ | {"MILVUS_SERVER_VENV": str(tmp_path), "TEST_MILVUS_SERVER": asked},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    assert told in output
    assert "did not get ready" in output
    assert "no free memory" in output


@pytest.mark.parametrize(
    "engine", ["lite_address", pytest.param("milvus_address", marks=REAL_MILVUS)]
)
def test_search_is_one_call_on_a_connection_that_is_there(
    request: pytest.FixtureRequest, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ServerVectorStore(request.getfixturevalue(engine))
    store.clear()
    rows = make_rows(3)
    store.upsert("a", rows)
    assert nearest(store, "a", rows[0].embedding, 1) == [1]
    client = store._client
    calls: list[str] = []
    for name in ("has_partition", "has_collection", "describe_index", "load_collection", "search"):
        whole = getattr(client, name)
        monkeypatch.setattr(
            client, name, lambda *a, _of=whole, _name=name, **k: calls.append(_name) or _of(*a, **k)
        )
    monkeypatch.setattr(socket, "create_connection", lambda *_args: pytest.fail("a new connection"))
    for row in rows:
        assert nearest(store, "a", row.embedding, 1) == [row.id]
    assert calls == ["search"] * 3
    assert store.search("absent", rows[0].embedding[None], 5) == [[]]
    store.close()


def test_nothing_listening_fails_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    store = ServerVectorStore(f"http://127.0.0.1:{free_port()}", timeout=120)
    _assert_unavailable_within(60, store.ping)
    assert "Traceback" not in capfd.readouterr().err


def test_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        _assert_unavailable_within(30, ServerVectorStore(address, timeout=0.5).ping)


def _assert_unavailable_within(seconds: float, call: Callable[[], object]) -> None:
    failure: list[BaseException] = []

    def attempt() -> None:
        with pytest.raises(VectorStoreUnavailable, match="Milvus server") as caught:
            call()
        failure.append(caught.value)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert failure, f"still waiting after {seconds} s"
    assert "127.0.0.1" not in str(failure[0])


def test_store_reconnects_after_an_outage(tmp_path: Path) -> None:
    port = free_port()
    rows = make_rows(2)
    with lite_server(tmp_path, port) as address:
        store = ServerVectorStore(address, timeout=5)
        store.upsert("a", rows[:1])
    with pytest.raises(VectorStoreUnavailable, match="reindex"):
        store.upsert("a", rows[1:])
    with lite_server(tmp_path, port):
        store.upsert("a", rows[1:])
        assert ids_in(store, "a") == [1, 2]
    store.close()


def test_collection_rebuilt_by_another_client_is_noticed(lite_address: str) -> None:
    store, other = ServerVectorStore(lite_address), ServerVectorStore(lite_address)
    store.upsert("a", make_rows(1))
    other.clear()
    other.upsert("b", make_rows(1, first=7))

    assert ids_in(store, "b") == [7]
    other.clear()
    store.upsert("a", make_rows(1))
    assert store.row_count() == 1
    store.close()
    other.close()
