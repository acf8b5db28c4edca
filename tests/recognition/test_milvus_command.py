"""`manage.py milvus`: one embedded database for several processes."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recognition.vector_store import LiteVectorStore, ServerVectorStore
from tests.recognition.milvus_server import free_port, wait_until_ready
from tests.recognition.vector_store.helpers import make_rows, nearest
from tests.test_server import environment, manage

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(data: Path, log: Path, **knobs: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, ROOT / "manage.py", "milvus"],
            env=environment(data, **knobs),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_two_processes_share_the_database_of_the_data_folder(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    address = f"http://127.0.0.1:{free_port()}"
    rows = make_rows(3)
    with served(data, log, MILVUS_URI=address) as process:
        wait_until_ready(process, address, log)
        one, other = ServerVectorStore(address), ServerVectorStore(address)
        one.upsert("a", rows)
        assert nearest(other, "a", rows[1].embedding, 1) == [2]
        one.close()
        other.close()
        refused = manage(data, "milvus")
        assert refused.returncode == 1
        assert "open in another process" in refused.stderr
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert f"MILVUS_URI={address}" in log.read_text()
    folder = data / "milvus_face.db"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    embedded = LiteVectorStore(folder)
    assert nearest(embedded, "a", rows[1].embedding, 1) == [2]
    embedded.close()


def test_server_elsewhere_is_not_ours_to_serve(tmp_path: Path) -> None:
    refused = manage(tmp_path, "milvus", MILVUS_URI="http://milvus.example:19530")
    assert refused.returncode == 1
    assert "needs none of this" in refused.stderr
    assert not (tmp_path / "milvus_face.db").exists()
