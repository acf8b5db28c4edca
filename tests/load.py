"""Load from many clients: errors, lost rows, deleted persons that are found, memory growth.

`script/chaos --clients 32 --minutes 3` prints the figures. It exits with 1 when an answer was not a
documented one, an accepted picture was lost or stored twice, a deleted person or a former id was
found, or when `reindex` left a difference.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

import requests

from tests.chaos import Client, Figures, Promises, Server, examine
from tests.gallery_folder import ROOT, new_gallery

SHARED, CONTESTED = 4, 4  # persons whom all clients add to; whom all also rename, merge and delete
STOP_SECONDS = 60
SAMPLE_SECONDS = 1.0

# What the API says it answers when somebody else was quicker; nothing of one's own may meet them.
ANNOUNCED: Final = {
    "contested rename 404 person_not_found",
    "contested rename 409 person_exists",
    "contested merge 404 person_not_found",
    "contested delete 404 person_not_found",
    "contested insert 422 all_images_failed",
    "contested rename 404 person_merged",
    "contested merge 404 person_merged",
    "contested delete 404 person_merged",
}


@dataclass
class Load:
    """What a run reports besides the promises."""

    promises: Promises = field(default_factory=Promises)
    unexpected: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)  # seconds, by call
    megabytes: list[float] = field(default_factory=list)  # resident, one a second
    figures: Figures = field(default_factory=Figures)
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return bool(self.unexpected) or self.figures.failed


class Visitor(Client):
    """A client that continues after errors, until `stop`, and does each kind of work at least once."""

    KINDS: Final = 3

    def __init__(self, url: str, name: str, load: Load, stop: threading.Event) -> None:
        super().__init__(url, name, load.promises)
        self.load, self.stop = load, stop
        self.random = random.Random(name)
        self.session = requests.Session()

    def run(self) -> None:
        number = 0
        while number < self.KINDS or not self.stop.is_set():
            try:
                self.work(f"{self.name}-{number}", number)
            except (requests.RequestException, ValueError, KeyError) as error:
                with self.promises.lock:
                    self.load.unexpected[f"{type(error).__name__}: {str(error)[:120]}"] += 1
            number += 1

    def call(self, method: str, path: str, **options: object) -> requests.Response:
        started = time.monotonic()
        response = self.session.request(method, self.url + path, timeout=120, **options)
        name = f"{method.upper()} {path.split('/')[2]}"
        with self.promises.lock:
            self.load.statuses[f"{name} {response.status_code}"] += 1
            taken = max(self.load.slowest.get(name, 0.0), time.monotonic() - started)
            self.load.slowest[name] = taken
        return response

    def work(self, person: str, number: int) -> None:
        paths = self.insert_once(person)
        self.search(paths[0], person)
        match number % self.KINDS:
            case 0:
                self.rename(person, f"{person} renamed")
                self.search(paths[1], f"{person} renamed")
            case 1:
                self.delete(person)
                self.search(paths[0], None)
            case 2:
                self.rename(person, f"{person} renamed")
                self.delete(f"{person} renamed")
                self.search(paths[1], None)
        self.share(number)
        self.contend(number)

    def insert_once(self, person: str) -> list[str]:
        """Insert, and repeat with the same key as after a lost answer."""
        paths = [f"{person}/{number}.jpg" for number in range(2)]
        key = {"Idempotency-Key": person}
        first = self.send(person, paths, headers=key)
        if self.promises.note("insert", first):
            self.promises.paths[person] = paths
            again = self.send(person, paths, headers=key)
            self.promises.note("insert again", again)
            if again.json() != first.json():
                self.load.unexpected["another answer to the same key"] += 1
        return paths

    def share(self, number: int) -> None:
        """Add a picture to a person to whom others add pictures at the same time."""
        person = f"shared-{number % SHARED}"
        paths = [f"{person}/{self.name}-{number}.jpg"]
        if self.promises.note("shared insert", self.send(person, paths)):
            self.promises.paths[paths[0]] = paths

    def contend(self, number: int) -> None:
        """Do anything with a person with whom others do anything at the same time."""
        one, other = self.random.sample([f"contested-{n}" for n in range(CONTESTED)], 2)
        address = f"/api/persons/{quote(one)}"
        calls: dict[str, Callable[[], requests.Response]] = {
            "insert": lambda: self.send(one, [f"{one}/{self.name}-{number}.jpg"]),
            "rename": lambda: self.call("patch", address, json={"person_id": other}),
            "merge": lambda: self.call("post", f"{address}/merge", json={"person_id": other}),
            "delete": lambda: self.call("delete", address),
        }
        kind = self.random.choices(list(calls), weights=[5, 2, 2, 1])[0]
        self.promises.note(f"contested {kind}", calls[kind]())


def load_server(clients: int, seconds: float, data: Path, **knobs: str) -> Load:
    """Run this many clients for this long on a new gallery in `data`, then compare everything."""
    load, stop = Load(), threading.Event()
    environment = new_gallery(data, **knobs)
    server = Server(environment)
    visitors = [Visitor(server.url, f"client{n}", load, stop) for n in range(clients)]
    started = time.monotonic()
    for visitor in visitors:
        visitor.start()
    while time.monotonic() < started + seconds:
        load.megabytes.append(resident(server.process.pid))
        stop.wait(SAMPLE_SECONDS)
    stop.set()
    for visitor in visitors:
        visitor.join()
    load.seconds = time.monotonic() - started
    load.megabytes.append(resident(server.process.pid))
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(STOP_SECONDS)
    examine(environment, load.promises, load.figures)
    for refusal, count in load.promises.refusals.items():
        if refusal not in ANNOUNCED:
            load.unexpected[refusal] += count
    return load


def resident(process: int) -> float:
    """Return the memory of the process in megabytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run_load(clients: int, seconds: float) -> bool:
    """Print the figures with both models; return whether something was wrong."""
    weights = str(ROOT / "weights")
    with tempfile.TemporaryDirectory(prefix="load") as folder:
        load = load_server(clients, seconds, Path(folder) / "data", WEIGHTS_DIR=weights)
    memory, figures, promises = load.megabytes, load.figures, load.promises
    rows = {
        "clients": clients,
        "seconds": round(load.seconds),
        "answers, by status": dict(sorted(load.statuses.items())),
        "answers, by what was asked": dict(promises.answers),
        "announced refusals": {
            name: count for name, count in promises.refusals.items() if name in ANNOUNCED
        },
        "unexpected answers": dict(load.unexpected) or 0,
        "slowest answers, in seconds": {n: round(s, 1) for n, s in load.slowest.items()},
        "accepted pictures at the end": sum(map(len, promises.paths.values())),
        "accepted pictures lost, or not found by a search": len(figures.lost),
        "pictures enrolled twice": figures.doubled,
        "persons deleted": len(promises.deleted),
        "persons renamed": len(promises.former),
        "deleted persons or former ids found": len(figures.ghosts),
        "differences named": dict(figures.drift) or 0,
        "differences that reindex met and --check had not named": figures.unnamed,
        "differences that reindex left": figures.unmended,
        "memory in MB at the start, each sixth, the end": [
            round(memory[(len(memory) - 1) * part // 6]) for part in range(7)
        ],
    }
    for name, value in rows.items():
        print(f"{name:56} {value}")  # noqa: T201 (the figures are what is asked for)
    return load.failed
