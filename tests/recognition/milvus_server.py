"""Milvus servers for tests: `milvus-lite server`, and a real Milvus from PyPI.

The real one (`milvus==2.3.5`, 90 MB) has its own virtual environment, because its requirements are
old: `MILVUS_SERVER_VENV`, by default `.venv-milvus` beside manage.py. It is created when
`TEST_MILVUS_SERVER=1`, and used whenever it exists.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "milvus==2.3.5"
ROOT = Path(__file__).resolve().parents[2]
VENV = Path(os.environ.get("MILVUS_SERVER_VENV", ROOT / ".venv-milvus"))
READY_SECONDS = 90
STOP_SECONDS = 5  # the data is thrown away


def milvus_program() -> Path | None:
    """Return the real server's program; None if it is neither installed nor requested."""
    program = VENV / "bin" / "milvus-server"
    if not program.exists() and os.environ.get("TEST_MILVUS_SERVER") == "1":
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "-q", PACKAGE], check=True)
    return program if program.exists() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def milvus_server(program: Path, folder: Path) -> Iterator[str]:
    """Run a real Milvus on `folder`; yield its address."""
    port = free_port()
    with running(milvus_command(program, folder, port), folder, port, **own_ports(folder, port)):
        yield f"http://127.0.0.1:{port}"


def own_ports(folder: Path, port: int) -> dict[str, str]:
    """Return the environment of a server that listens at `port` also right after it was killed.

    Its wrapper would take another port then. The etcd inside gets ports of its own, rather than
    2379 and 2380.
    """
    folder.mkdir(parents=True, exist_ok=True)
    client, peer = (f"http://127.0.0.1:{free_port()}" for _each in range(2))
    settings = {
        "name": "default",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }
    file = folder / "etcd.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    return {
        "ETCD_CONFIG_PATH": str(file),
        "ETCD_ENDPOINTS": client.removeprefix("http://"),
        "PROXY_PORT": str(port),
    }


def milvus_command(program: Path, folder: Path, port: int) -> list[str | Path]:
    return [program, "--data", folder / "data", "--proxy-port", str(port)]


@contextmanager
def lite_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run Milvus Lite as a server on `folder`, with one worker, as concurrent writes are unsafe."""
    port = port or free_port()
    program = Path(sys.executable).with_name("milvus-lite")
    command = [program, "server", "--data-dir", folder / "data", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--max-workers", "1"]
    with running(command, folder, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(
    command: list[str | Path], folder: Path, port: int, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process group, as the wrapper of the real server leaves that one
    running; give it these environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    # Milvus reads names that are ours too: LOG_LEVEL=WARNING ends it with a panic.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=environment | variables,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        yield process
    finally:
        _stop_group(process)


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until the store answers; raise with the end of the logs if it does not."""
    from recognition.exceptions import VectorStoreUnavailable
    from recognition.vector_store import ServerVectorStore

    store = ServerVectorStore(address, timeout=5)
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            store.ping()
        except VectorStoreUnavailable:
            time.sleep(0.5)
        else:
            store.close()
            return
    logs = [log, *log.parent.glob("data/logs/*.log")]
    tails = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in logs)
    raise RuntimeError(f"{process.args[0]} did not get ready.\n{tails}")


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if _group_ended(process):
            break
    process.wait(6 * STOP_SECONDS)


def _group_ended(process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
