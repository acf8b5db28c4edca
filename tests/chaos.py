"""SIGKILL of the server at random points while clients insert, rename and delete: what is lost?

`script/chaos 50` prints the figures, and ends with 1 when an accepted picture was lost, when somebody
deleted was found, or when `reindex` left a difference.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import requests

from tests.gallery_folder import ROOT, mend, new_gallery
from tests.pictures import draw_picture

CLIENTS = 4
PICTURES = 2  # of an insert
SHORTEST, LONGEST = 0.2, 3.0  # seconds of work before the kill
START_SECONDS = 120


@dataclass
class Promises:
    """What the server has said; `paths` are those of accepted pictures, by person."""

    paths: dict[str, list[str]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, call: str, response: requests.Response) -> bool:
        """Whether the call was carried out."""
        with self.lock:
            self.answers[call] += 1
            if response.ok:
                return True
            self.refusals[f"{call} {response.status_code} {response.json()['error']}"] += 1
            return False


class Server:
    """`manage.py serve` on a free port."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env=environment | {"PORT": "0", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lines = iter(self.process.stdout.readline, "")
        self.url = next(line.split()[-1] for line in lines if line.startswith("API:"))
        self.url = self.url.removesuffix("/api/docs")
        self._load_network()

    def _load_network(self) -> None:
        """So that the kill does not come before the first answer."""
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
    """Inserts, renames and deletes until the server is gone."""

    def __init__(self, url: str, name: str, promises: Promises) -> None:
        super().__init__(name=name, daemon=True)
        self.url, self.promises = url, promises

    def run(self) -> None:
        try:
            for number in count():
                person = f"{self.name}-{number}"
                self.insert(person)
                if number % 3 == 1:
                    self.rename(person, f"{person} renamed")
                if number % 3 == 2:
                    self.delete(person)
        except requests.RequestException:
            with self.promises.lock:
                self.promises.unanswered += 1

    def insert(self, person: str) -> None:
        paths = [f"{person}/{number}.jpg" for number in range(PICTURES)]
        files = [("images", (path, draw_picture((112, 112), seed=path))) for path in paths]
        fields = {"person_id": person, "image_paths": json.dumps(paths)}
        fields["use_face_detection"] = "false"
        response = self.call("post", "/api/milvus/insert", data=fields, files=files)
        if self.promises.note("insert", response):
            self.promises.paths[person] = paths

    def rename(self, person: str, new: str) -> None:
        response = self.call("patch", f"/api/persons/{quote(person)}", json={"person_id": new})
        self.promises.note("rename", response)

    def delete(self, person: str) -> None:
        # From the request on they may be gone, from the answer on they must be.
        self.promises.paths.pop(person, None)
        if self.promises.note("delete", self.call("delete", f"/api/persons/{quote(person)}")):
            self.promises.deleted.add(person)

    def call(self, method: str, path: str, **options: object) -> requests.Response:
        return requests.request(method, self.url + path, timeout=START_SECONDS, **options)


@dataclass
class Figures:
    """What the rounds came to."""

    kills: int = 0
    rounds_with_drift: int = 0
    drift: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    ghosts: set[str] = field(default_factory=set)
    unmended: int = 0
    unnamed: int = 0

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.ghosts or self.unmended or self.unnamed)


def kill_once(environment: dict[str, str], name: str, promises: Promises) -> None:
    """One server, clients that write, and SIGKILL after a random time."""
    server = Server(environment)
    clients = [Client(server.url, f"{name}-{number}", promises) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(random.uniform(SHORTEST, LONGEST))
    server.kill()
    for client in clients:
        client.join()


def examine(environment: dict[str, str], promises: Promises, figures: Figures) -> None:
    """Checks and mends; counts what differed, what is lost and who came back."""
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
    figures.ghosts |= promises.deleted & set(state["persons"])


def run_chaos(kills: int, data: Path) -> tuple[Figures, Promises]:
    """Kills the server so many times on one gallery in `data`, and examines it after each."""
    environment = new_gallery(data)
    figures, promises = Figures(), Promises()
    for number in range(kills):
        kill_once(environment, f"round{number}", promises)
        figures.kills += 1
        examine(environment, promises, figures)
    return figures, promises


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=None, help="for the moments of the kills")
    parser.add_argument(
        "--faults",
        nargs="*",
        metavar="NAME",
        help="these faults, or all of tests/faults.py, instead",
    )
    options = parser.parse_args()
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
        "kills (SIGKILL of the server)": figures.kills,
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
