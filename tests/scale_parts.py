"""What `script/scale` runs: web servers, workers, PostgreSQL, Milvus, a bucket and nginx, each started again when it
ends, as systemd does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import boto3
import psycopg
import requests

from tests.gallery_folder import ROOT, gallery_environment, migrate
from tests.nginx_server import find_program, make_certificate, nginx_command
from tests.postgresql_server import NoPostgresql, postgresql_server
from tests.recognition.milvus_server import free_port, milvus_command, milvus_program, own_ports

BUCKET = "faces"
OURS, LEADER = 0x66616365, 1  # the lock of enrollment/upkeep/leader.py
KEY = {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret", "S3_REGION": "us-east-1"}
START_SECONDS = 120.0
RESTART_SECONDS = 2.0  # from the end of a part to its next start
STOP_SECONDS = 40.0
ACCOUNT = {
    "DJANGO_SUPERUSER_USERNAME": "boss",
    "DJANGO_SUPERUSER_PASSWORD": "a long pass phrase",
}


class Missing(Exception):
    """This machine lacks a part; the message says which."""


class NotReady(Exception):
    """A part does not start; the message says which."""


class Part:
    """A process in a group of its own; `environment` and `root`, the folder that it runs in, may be
    changed for its next start."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        log: Path,
        port: int = 0,
    ) -> None:
        self.name, self.command, self.environment = name, command, dict(environment)
        self.log, self.port, self.root = log, port, ROOT
        self.process: subprocess.Popen[bytes] | None = None
        self.wanted = False
        self.ended_at: float | None = None

    def start(self) -> None:
        self.wanted, self.ended_at = True, None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.root,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL; it is started again."""
        process = self.process  # soon the keeper puts another one in its place
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """End it for good, orderly where it does so in time."""
        self.wanted = False
        if (process := self.process) is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):  # the wrapper of Milvus leaves the server behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


class Keeper(threading.Thread):
    """Starts the parts again that ended, a moment later; counts how often, by name."""

    def __init__(self) -> None:
        super().__init__(name="keeper", daemon=True)
        self.parts: list[Part] = []
        self.restarts: Counter[str] = Counter()
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.1):
            for part in list(self.parts):
                if not part.wanted or part.runs:
                    continue
                part.ended_at = part.ended_at or time.monotonic()
                if time.monotonic() - part.ended_at >= RESTART_SECONDS:
                    self.restarts[part.name] += 1
                    part.start()


class Site:
    """All parts, in `folder`. `url` is the proxy's, which `certificate` belongs to."""

    def __init__(
        self, folder: Path, database: str, keeper: Keeper, workers: int, session_seconds: int
    ) -> None:
        self.folder, self.database, self.keeper = folder, database, keeper
        self.data = folder / "data"
        program = _programs()
        milvus_port, s3_port = free_port(), free_port()
        self.ports = [free_port(), free_port()]
        http, https = free_port(), free_port()
        self.url = f"https://127.0.0.1:{https}"
        self.certificate = folder / "cert.pem"
        make_certificate(folder, program["openssl"])
        # Milvus reads names that are ours, too.
        bare = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self.milvus = Part(
            "Milvus",
            milvus_command(Path(program["milvus"]), folder / "milvus", milvus_port),
            bare | own_ports(folder / "milvus", milvus_port),
            folder / "milvus.log",
            milvus_port,
        )
        s3 = [Path(sys.executable).with_name("localbucket"), folder / "bucket"]
        self.s3 = Part("S3", [*s3, "--port", str(s3_port)], bare, folder / "s3.log", s3_port)
        nginx = nginx_command(program["nginx"], folder, http, https, folder, self.ports)
        self.proxy = Part("nginx", nginx, bare, folder / "nginx.log", https)
        self.settings = {
            "DATABASE_URL": database,
            "MILVUS_URI": f"http://127.0.0.1:{milvus_port}",
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
            **KEY,
            "TASKS_BACKEND": "database",
            "HTTPS": "1",
            "PROXIES": "1",
            "PRELOAD_MODELS": "mobilenetv3_large",
            "ACCESS_LOG": "0",
            **ACCOUNT,
        }
        if session_seconds:
            self.milvus.environment["COMMON_SESSION_TTL"] = str(session_seconds)
        self.environment: dict[str, str] = {}
        self.webs: list[Part] = []
        self.workers: list[Part] = []
        self._count = workers

    @property
    def parts(self) -> list[Part]:
        return [self.milvus, self.s3, self.proxy, *self.webs, *self.workers]

    def start(self, root: Path) -> None:
        """Start everything but the web servers and workers, and make the bucket, and the database by
        the project in `root`, which the servers then run."""
        (self.folder / "bucket").mkdir()
        for part in (self.milvus, self.s3, self.proxy):
            part.start()
        self.keeper.parts = self.parts
        self.environment = gallery_environment(self.data) | self.settings
        migrate(self.environment, root)
        manage = [sys.executable, "manage.py"]
        for number, port in enumerate(self.ports, 1):
            own = self.environment | {"PORT": str(port), "PYTHONUNBUFFERED": "1"}
            log = self.folder / f"web{number}.log"
            self.webs.append(Part(f"web{number}", [*manage, "serve"], own, log, port))
        for number in range(1, self._count + 1):
            log = self.folder / f"worker{number}.log"
            worker = [*manage, "db_worker", "--worker-id", f"worker{number}"]
            self.workers.append(Part(f"worker{number}", worker, self.environment, log))
        for part in (*self.webs, *self.workers):
            part.root = root
        self._await("the bucket", self._make_bucket)
        self.keeper.parts = self.parts

    def run(self, *parts: Part) -> None:
        """Start the parts that do not run, and wait until all are up."""
        for part in parts:
            if not part.runs:
                part.start()
        self._await(", ".join(part.name for part in parts), lambda: all(map(self.is_up, parts)))

    def is_up(self, part: Part) -> bool:
        if part in self.webs:
            return self.ask(part, "GET", "/readyz").status_code == 200
        return part.runs

    def ask(self, web: Part, method: str, path: str, **options: object) -> requests.Response:
        """Call one web server, as the proxy does."""
        headers = {"X-Forwarded-Proto": "https"} | options.pop("headers", {})
        url = f"http://127.0.0.1:{web.port}{path}"
        return requests.request(
            method, url, headers=headers, timeout=20, allow_redirects=False, **options
        )

    def leaders(self) -> int:
        """Return how many processes lead, by the lock that makes one lead."""
        of_leader = f"locktype = 'advisory' AND classid = {OURS} AND objid = {LEADER} AND granted"
        return int(self.sql(f"SELECT count(*) FROM pg_locks WHERE {of_leader}")[0][0])

    def sql(self, question: str) -> list[tuple[object, ...]]:
        limits = {"connect_timeout": 10, "options": "-c statement_timeout=20000"}
        with psycopg.connect(self.database, autocommit=True, **limits) as connection:
            return connection.execute(question).fetchall()

    def cut_connections(self) -> int:
        """End all connections to PostgreSQL; return how many."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    def busy(self) -> dict[str, float]:
        """Return the seconds of processor time that each part has used since it started."""
        times = _processor_times()
        used = {p.name: _of_tree(p.process.pid, times) for p in self.parts if p.runs}
        used["PostgreSQL"] = sum(each.used for each in times if each.name == "postgres")
        used["clients"] = sum(os.times()[:2])
        return used

    def _make_bucket(self) -> bool:
        options = {"endpoint_url": self.settings["S3_ENDPOINT_URL"], "region_name": "us-east-1"}
        client = boto3.client(
            "s3", aws_access_key_id="key", aws_secret_access_key="secret", **options
        )
        client.create_bucket(Bucket=BUCKET)
        return True

    def _await(self, what: str, is_there: object) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(Exception):  # noqa: BLE001 (whatever a part that starts answers)
                if is_there():
                    return
            if time.monotonic() > deadline:
                raise NotReady(f"{what} did not get ready; see {self.folder}")
            time.sleep(0.2)


@contextmanager
def running_site(
    folder: Path, *, workers: int = 2, root: Path = ROOT, session_seconds: int = 0, **knobs: str
) -> Iterator[Site]:
    """Run all parts but the web servers and workers, which are the project in `root`, with these
    further settings. Raise `Missing` or `NotReady`.

    After a kill Milvus waits until its last session ends, 30 seconds unless `session_seconds` says
    otherwise.
    """
    _programs()
    with ExitStack() as parts:
        try:
            database = parts.enter_context(postgresql_server())
        except NoPostgresql as error:
            raise Missing(str(error)) from error
        keeper = Keeper()
        site = Site(folder, database, keeper, workers, session_seconds)
        site.settings |= knobs
        try:
            keeper.start()
            site.start(root)
            yield site
        finally:
            keeper.stopping.set()
            keeper.join()
            for part in reversed(site.parts):
                part.stop()


def _programs() -> dict[str, str]:
    found = {name: find_program(name) for name in ("nginx", "openssl")}
    found["milvus"] = str(milvus_program() or "")
    if missing := [name for name, path in found.items() if not path]:
        raise Missing(f"Not installed: {', '.join(missing)}; script/test installs what it may.")
    return {name: str(path) for name, path in found.items()}


class _Times:
    def __init__(self, stat: str) -> None:
        begin, _bracket, rest = stat.rpartition(")")
        fields = rest.split()
        self.pid, _space, self.name = begin.partition(" (")
        self.pid, self.parent = int(self.pid), int(fields[1])
        self.used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor_times() -> list[_Times]:
    times = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            times.append(_Times(path.read_text()))
    return times


def _of_tree(root: int, times: list[_Times]) -> float:
    below = {root}
    for each in sorted(times, key=lambda item: item.pid):
        if each.parent in below:
            below.add(each.pid)
    return sum(each.used for each in times if each.pid in below)
