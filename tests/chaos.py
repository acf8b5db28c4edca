"""SIGKILL at random moments while clients insert, search, rename and delete, and folders are
imported.

`script/chaos 50` prints the figures. It exits with 1 when an accepted picture was lost, a deleted
person was found, or `reindex` left a difference. `--faults` and `--clients` run other modules.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO
from urllib.parse import quote

import django
import requests

from tests.gallery_folder import ROOT, mend, new_gallery
from tests.pictures import draw_crop, draw_picture
from tests.recognition.milvus_server import free_port, running

CLIENTS = 4
PICTURES = 2  # of an insert
SHORTEST, LONGEST = 0.2, 3.0  # seconds of work before the kill
START_SECONDS = 120
IMPORTED_PERSONS = 50  # of a folder: two batches of files
IMPORT_EVERY = 4  # one of so many rounds kills an import; every other of them beside a server


@dataclass
class Promises:
    """What the server has confirmed; `paths` are those of accepted pictures, by person."""

    paths: dict[str, list[str]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    former: set[str] = field(default_factory=set)  # ids that somebody had before a rename
    ghosts: set[str] = field(
        default_factory=set
    )  # found by a search that began after they had gone
    unfound: set[str] = field(default_factory=set)  # paths of answered inserts
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, call: str, response: requests.Response) -> bool:
        """Record the answer; return whether the request was carried out."""
        with self.lock:
            self.answers[call] += 1
            if response.ok:
                return True
            self.refusals[f"{call} {response.status_code} {response.json()['error']}"] += 1
            return False


class Server:
    """`manage.py serve` on a free port."""

    def __init__(
        self, environment: dict[str, str], log: IO[bytes] | int = subprocess.DEVNULL
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env=environment | {"PORT": "0", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        lines = iter(self.process.stdout.readline, "")
        self.url = next(line.split()[-1] for line in lines if line.startswith("API:"))
        self.url = self.url.removesuffix("/api/docs")
        self._load_network()

    def _load_network(self) -> None:
        """Load the network, so that the kill does not come before the first answer."""
        files = {"image": ("warm.jpg", draw_picture((112, 112)))}
        fields = {"use_face_detection": "false"}
        answer = requests.post(
            f"{self.url}/api/embedding", files=files, data=fields, timeout=START_SECONDS
        )
        answer.raise_for_status()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Client(threading.Thread):
    """A client that inserts, searches, renames and deletes until the server is gone."""

    def __init__(self, url: str, name: str, promises: Promises) -> None:
        super().__init__(name=name, daemon=True)
        self.url, self.promises = url, promises

    def run(self) -> None:
        try:
            for number in count():
                self.work(f"{self.name}-{number}", number)
        except requests.RequestException:
            with self.promises.lock:
                self.promises.unanswered += 1

    def work(self, person: str, number: int) -> None:
        paths = self.insert(person)
        if number % 3 == 1:
            self.rename(person, f"{person} renamed")
            person = f"{person} renamed"
        if number % 3 == 2:
            self.delete(person)
            person = None
        self.search(paths[0], person)

    def insert(self, person: str) -> list[str]:
        """Insert pictures and return their paths."""
        paths = [f"{person}/{number}.jpg" for number in range(PICTURES)]
        if self.promises.note("insert", self.send(person, paths)):
            self.promises.paths[person] = paths
        return paths

    def send(self, person: str, paths: list[str], **options: object) -> requests.Response:
        """Insert the pictures of these paths, as crops of faces."""
        files = [("images", (path, draw_crop(path))) for path in paths]
        fields = {"person_id": person, "image_paths": json.dumps(paths)}
        fields["use_face_detection"] = "false"
        return self.call("post", "/api/milvus/insert", data=fields, files=files, **options)

    def search(self, path: str, expected: str | None) -> None:
        """Search for this picture: persons deleted before must not be found, `expected` must be."""
        with self.promises.lock:
            gone = self.promises.deleted | self.promises.former
        response = self.call(
            "post",
            "/api/milvus/search",
            files={"image": ("probe.jpg", draw_crop(path))},
            data={"use_face_detection": "false"},
        )
        if self.promises.note("search", response):
            found = {hit["person_id"] for hit in response.json()["results"]}
            self.promises.ghosts |= gone & found
            if expected and expected not in found:
                self.promises.unfound.add(path)

    def rename(self, person: str, new: str) -> None:
        response = self.call("patch", f"/api/persons/{quote(person)}", json={"person_id": new})
        if self.promises.note("rename", response):
            with self.promises.lock:
                self.promises.former.add(person)

    def delete(self, person: str) -> None:
        # From the request on they may be gone, from the answer on they must be.
        self.promises.paths.pop(person.removesuffix(" renamed"), None)
        if self.promises.note("delete", self.call("delete", f"/api/persons/{quote(person)}")):
            with self.promises.lock:
                self.promises.deleted.add(person)

    def call(self, method: str, path: str, **options: object) -> requests.Response:
        return requests.request(method, self.url + path, timeout=START_SECONDS, **options)


@dataclass
class Figures:
    """The results of the rounds."""

    kills: Counter[str] = field(default_factory=Counter)
    imported: int = 0  # files that a killed import had reported
    unrepeated: list[str] = field(
        default_factory=list
    )  # imports that did not finish the second time
    doubled: int = 0
    rounds_with_drift: int = 0
    drift: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    ghosts: set[str] = field(default_factory=set)
    unmended: int = 0
    unnamed: int = 0

    @property
    def failed(self) -> bool:
        wrong = (self.lost, self.ghosts, self.unmended, self.unnamed, self.unrepeated, self.doubled)
        return any(map(bool, wrong))


def kill_once(environment: dict[str, str], name: str, promises: Promises) -> None:
    """Run one server with writing clients, and kill it after a random time."""
    server = Server(environment)
    clients = [Client(server.url, f"{name}-{number}", promises) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(random.uniform(SHORTEST, LONGEST))
    server.kill()
    for client in clients:
        client.join()


def kill_import(
    environment: dict[str, str], name: str, promises: Promises, figures: Figures, *, served: bool
) -> None:
    """Kill an import of a folder and run it again; `served`: beside a server with clients."""
    folder = Path(environment["DATA_DIR"]).with_name(name)
    paths = draw_folder(folder, name)
    if served:
        reported = kill_beside_server(environment, folder, promises, figures)
    else:
        importer = start_import(environment, folder)
        await_moment(importer, folder)
        importer.kill()
        importer.wait()
        figures.kills["import"] += 1
        reported = told(folder)
    figures.imported += len(reported)
    again = start_import(environment, folder)
    _none, errors = again.communicate(timeout=START_SECONDS)
    statuses = told(folder)
    if again.returncode or statuses.keys() != paths:
        figures.unrepeated.append(f"{name}: exit code {again.returncode}, {errors[-300:]}")
    figures.lost |= {path for path in reported if statuses.get(path) != "skipped"}
    promises.paths[name] = list(statuses)


def kill_beside_server(
    environment: dict[str, str], folder: Path, promises: Promises, figures: Figures
) -> dict[str, str]:
    """Kill the import, the server or both, and at the end the vector database; return what was
    reported."""
    victims = random.choice([{"import"}, {"server"}, {"import", "server"}])
    with shared_store(environment) as (shared, store):
        server = Server(shared)
        clients = [Client(server.url, f"{folder.name}-{n}", promises) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        importer = start_import(shared, folder)
        await_moment(importer, folder)
        if "server" in victims:
            server.kill()
        if "import" in victims:
            importer.kill()
        _none, errors = importer.communicate(timeout=START_SECONDS)
        if importer.returncode and "import" not in victims:
            figures.unrepeated.append(f"{folder.name}, without its server: {errors[-300:]}")
        os.killpg(store.pid, signal.SIGKILL)
        server.kill()
        for client in clients:
            client.join()
    figures.kills.update(victims | {"vector database", "server"})
    return told(folder)


def draw_folder(folder: Path, name: str) -> set[str]:
    """Write pictures of some persons; return the paths that the import will report."""
    paths = {f"{name}-{n}/{m}.jpg" for n in range(IMPORTED_PERSONS) for m in range(PICTURES)}
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(draw_crop(path))
    return paths


def start_import(environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    words = [
        "enroll",
        folder,
        "--no-face-detection",
        "--no-progress",
        "--report",
        report_of(folder),
    ]
    report_of(folder).unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def report_of(folder: Path) -> Path:
    return folder.with_suffix(".csv")


def await_moment(importer: subprocess.Popen[str], folder: Path) -> None:
    """Wait for a random moment after the import has begun to read, or after its first report."""
    least = random.choice([0, 1])
    while importer.poll() is None and not (
        report_of(folder).exists() and len(told(folder)) >= least
    ):
        time.sleep(0.02)
    time.sleep(random.uniform(0, LONGEST))


def told(folder: Path) -> dict[str, str]:
    """Return what the import has reported of its files, without an incomplete last line."""
    if not report_of(folder).exists():
        return {}
    with report_of(folder).open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = csv.DictReader(lines)
    return {row["file"]: row["status"] for row in rows if row["status"] in ("enrolled", "skipped")}


@contextmanager
def shared_store(
    environment: dict[str, str],
) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """Run `script/milvus` on the gallery; yield the environment of its users, and its process."""
    port = free_port()
    shared = environment | {"MILVUS_URI": f"http://127.0.0.1:{port}"}
    knobs = ("DATA_DIR", "ENV_FILE", "MILVUS_URI", "DJANGO_SETTINGS_MODULE")
    command = ["env", *(f"{knob}={shared[knob]}" for knob in knobs)]
    command += [sys.executable, str(ROOT / "manage.py"), "milvus"]
    with running(command, Path(environment["DATA_DIR"]).with_name("store"), port) as process:
        yield shared, process


def examine(environment: dict[str, str], promises: Promises, figures: Figures) -> None:
    """Check and repair; count differences, lost pictures and deleted persons that are found."""
    state = mend(environment)
    status, named = state["named"]
    if status:
        figures.rounds_with_drift += 1
        for number, kind in re.findall(r"^(\d+) (.+?):", named, re.MULTILINE):
            figures.drift[kind] += int(number)
    mended_something = "Nothing to do" not in state["mended"][1]
    figures.unnamed += mended_something != bool(status)
    figures.unmended += state["checked"][0] != 0 or state["mended"][0] != 0
    promised = {path for paths in promises.paths.values() for path in paths}
    figures.lost |= promised - set(state["searchable"])
    figures.lost |= set(state["pictures"]) - set(state["searchable"])
    figures.doubled = len(state["pictures"]) - len(set(state["pictures"]))
    figures.ghosts |= promises.deleted & set(state["persons"])
    figures.ghosts |= promises.ghosts
    figures.lost |= promises.unfound


def run_chaos(kills: int, data: Path) -> tuple[Figures, Promises]:
    """Kill the server repeatedly on one gallery in `data`, and examine it after each kill."""
    environment = new_gallery(data)
    figures, promises = Figures(), Promises()
    for number in range(kills):
        if number % IMPORT_EVERY == IMPORT_EVERY - 1:
            served = number % (2 * IMPORT_EVERY) != IMPORT_EVERY - 1
            kill_import(environment, f"round{number}", promises, figures, served=served)
        else:
            kill_once(environment, f"round{number}", promises)
            figures.kills["server"] += 1
        examine(environment, promises, figures)
    return figures, promises


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=None, help="for the moments of the kills")
    parser.add_argument(
        "--faults",
        nargs="*",
        metavar="NAME",
        help="these faults, or all of tests/faults.py, instead",
    )
    parser.add_argument("--clients", type=int, help="so many at once, and no kills, instead")
    parser.add_argument("--minutes", type=float, default=3.0, help="with --clients")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()  # for the answers of the vector store, by which a Milvus is told to be ready
    # A vector database that starts refuses at first, which is no news.
    logging.getLogger("recognition.vector_store").setLevel(logging.ERROR)
    if options.clients:
        from tests.load import run_load

        sys.exit(run_load(options.clients, 60 * options.minutes))
    if options.faults is not None:
        from tests.faults import run_faults

        sys.exit(run_faults(options.faults))
    random.seed(options.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        figures, promises = run_chaos(options.kills, Path(folder) / "data")
    print_figures(figures, promises, time.monotonic() - started)
    sys.exit(figures.failed)


def print_figures(figures: Figures, promises: Promises, seconds: float) -> None:
    rows = {
        "kills (SIGKILL)": dict(figures.kills),
        "files reported by imports that were killed": figures.imported,
        "imports that did not finish when run again": figures.unrepeated or 0,
        "pictures enrolled twice": figures.doubled,
        "answered calls": dict(promises.answers),
        "calls cut off by the kill": promises.unanswered,
        "refused calls": dict(promises.refusals) or 0,
        "accepted pictures at the end": sum(map(len, promises.paths.values())),
        "accepted pictures lost": len(figures.lost),
        "persons deleted": len(promises.deleted),
        "deleted persons found again": len(figures.ghosts),
        "kills that left a difference": figures.rounds_with_drift,
        "differences named": dict(figures.drift) or 0,
        "differences that reindex met and --check had not named": figures.unnamed,
        "differences that reindex left": figures.unmended,
        "seconds": round(seconds),
    }
    for name, value in rows.items():
        print(f"{name:56} {value}")  # noqa: T201 (the figures are what is asked for)


if __name__ == "__main__":
    main()
