"""A second installation in a temporary folder, with the same settings of recognition."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.conf import settings
from django.utils.translation import gettext

from faceproject.benchmark.load import BenchmarkError, Target
from faceproject.conf import ProjectSettings
from recognition.conf import RecognitionSettings, get_settings
from recognition.setting import settings_of

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
IDLE_CORES: Final = 0.1  # of a server that has done what it does at its start
STORE: Final = "milvus_face.db"  # of an installation, in its DATA_DIR


class Server:
    """A running `manage.py serve`."""

    def __init__(self, process: subprocess.Popen[bytes], target: Target) -> None:
        self.process, self.target = process, target

    def cpu_seconds(self) -> float | None:
        """Return the processor time that it has taken; None where no /proc tells."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_megabytes(self) -> float | None:
        """Return the most memory that it has had; None where no /proc tells."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        peak = next((line for line in lines if line.startswith("VmHWM:")), None)
        return int(peak.split()[1]) * 1024 / 1e6 if peak else None

    def settle(self, seconds: float) -> None:
        """Wait, at most so long, until the server does nothing."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (before := self.cpu_seconds()) is not None:
            time.sleep(0.5)
            if (self.cpu_seconds() or 0.0) - before < 0.5 * IDLE_CORES:
                return


class Installation:
    """An empty installation in `folder`, which nobody else uses."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / STORE
        self._log = folder / "server.log"
        self._environment = _environment(folder)

    def fill(self, model: str, size: int) -> None:
        """Bring the tables up to date, and the gallery of made-up vectors to `size`."""
        result = subprocess.run(  # noqa: S603 (our own program)
            [sys.executable, "-m", "faceproject.benchmark.gallery", model, str(size)],
            cwd=settings.BASE_DIR,
            env=self._environment,
            capture_output=True,
            check=False,
        )
        if result.returncode:
            raise _failed(result.stderr)

    @contextmanager
    def served(self) -> Iterator[Server]:
        """Run the server on a free port until the block ends. Raise `BenchmarkError`."""
        port = _free_port()
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "serve"],
                cwd=settings.BASE_DIR,
                env=self._environment | {"PORT": str(port)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        server = Server(process, Target(f"http://127.0.0.1:{port}"))
        try:
            until = time.monotonic() + START_SECONDS
            while not server.target.is_ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise _failed(self._log.read_bytes())
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment that names nothing of this installation but its weights.

    What recognition is set to, the number of threads, and `API_AUTH_REQUIRED=0` are as here; the
    databases, the storage of pictures, accounts and addresses are those of an installation without
    settings.
    """
    declared = settings_of(RecognitionSettings)
    ours = {item.name for item in (*declared, *settings_of(ProjectSettings))}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    for item in declared:
        environment[item.name] = item.written(getattr(get_settings(), item.field))
    if settings.API_AUTH_REQUIRED is False:
        environment["API_AUTH_REQUIRED"] = "0"
    return environment | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(folder),
        "MILVUS_URI": str(folder / STORE),
        "MILVUS_TOKEN": "",
        "THREADS": str(settings.THREADS),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _failed(output: bytes) -> BenchmarkError:
    lines = output.decode(errors="replace").strip().splitlines() or ["–"]
    message = gettext("The server to be measured did not start: %(reason)s")
    return BenchmarkError(message % {"reason": lines[-1]})
