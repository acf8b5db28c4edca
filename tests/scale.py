"""Everything beyond one machine on this one: two web servers and two workers on PostgreSQL, Milvus and a bucket,
behind nginx, killed in turn under load.

`script/scale` prints what was refused, lost and found that should not be, and what one and two web servers do. It
exits with 1 when an accepted picture was lost or stored twice, a deleted person or former id was found, an answer is
not a documented one, two servers led, or `reindex` left a difference.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import django
import requests

from tests.chaos import examine
from tests.gallery_folder import ROOT, migrate
from tests.load import ANNOUNCED, Load, Visitor
from tests.scale_parts import BUCKET, Missing, Site, running_site

CLIENTS = 8
HEAL_SECONDS = 90.0
GUEST_SECONDS = 150.0  # for the last answers; each has 120
SESSION_SECONDS = 10  # of Milvus, whose own 30 would make up most of the run
STEADY_SECONDS = 1.0  # of load after a part has healed, before the next is killed
CALM = "no part away"
CORES = os.cpu_count() or 1


class Refused(Exception):
    """The service refused or cut off a call; what the client was doing ends here."""


@dataclass
class Trouble:
    """What the clients met while a part was away or healing, by part."""

    phase: str = CALM
    kills: Counter[str] = field(default_factory=Counter)
    healed: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unhealed: list[str] = field(default_factory=list)
    leaders: Counter[int] = field(default_factory=Counter)

    def note(self, refusal: str) -> None:
        self.refused[self.phase][refusal] += 1


class Guest(Visitor):
    """A client that begins with another person when it is refused or cut off: what it did is then unknown."""

    def __init__(
        self, site: Site, name: str, load: Load, stop: threading.Event, trouble: Trouble
    ) -> None:
        super().__init__(site.url, name, load, stop)
        self.session.verify = str(site.certificate)
        self.session.trust_env = False  # a REQUESTS_CA_BUNDLE would count for more
        self.trouble = trouble

    def work(self, person: str, number: int) -> None:
        try:
            super().work(person, number)
        except Refused:
            self.stop.wait(0.2)

    def call(self, method: str, path: str, **options: object) -> requests.Response:
        try:
            response = super().call(method, path, **options)
        except requests.RequestException as error:
            raise self._refused(f"cut off ({type(error).__name__})") from error
        if response.status_code >= 500:
            is_json = response.headers["Content-Type"].startswith("application/json")
            reason = response.json()["error"] if is_json else "by nginx"
            raise self._refused(f"{response.status_code} {reason}")
        if method == "delete" and response.status_code == 404 and self.trouble.phase != CALM:
            # nginx asks the second server for a deletion again that the first had carried out.
            raise self._refused("404 of a deletion, asked for again by nginx")
        return response

    def _refused(self, reason: str) -> Refused:
        with self.promises.lock:
            self.trouble.note(reason)
        return Refused(reason)


@dataclass
class Pace:
    """What was answered in a while, and the cores that each part kept busy."""

    seconds: float
    answers: Counter[str]
    cores: dict[str, float]

    @property
    def rate(self) -> float:
        return self.answers.total() / self.seconds


@contextmanager
def visited(site: Site, load: Load, trouble: Trouble, name: str, clients: int) -> Iterator[None]:
    """Have clients work meanwhile."""
    stop = threading.Event()
    guests = [Guest(site, f"{name}{n}", load, stop, trouble) for n in range(clients)]
    for guest in guests:
        guest.start()
    try:
        yield
    finally:
        stop.set()
        for guest in guests:
            guest.join(GUEST_SECONDS)
            assert not guest.is_alive(), f"{guest.name} still waits for an answer."


def measure(site: Site, load: Load, seconds: float) -> Pace:
    """Let the load go on for so long."""
    before, busy, started = Counter(load.promises.answers), site.busy(), time.monotonic()
    time.sleep(seconds)
    taken = time.monotonic() - started
    answers = Counter(load.promises.answers) - before
    cores = {name: (used - busy.get(name, 0.0)) / taken for name, used in site.busy().items()}
    return Pace(taken, answers, cores)


WAYS: dict[str, Callable[[Site, int], object]] = {
    "web server": lambda site, n: site.webs[n % len(site.webs)].kill(),
    "worker": lambda site, n: site.workers[n % len(site.workers)].kill(),
    "Milvus": lambda site, _n: site.milvus.kill(),
    "PostgreSQL's connections": lambda site, _n: site.cut_connections(),
    "S3": lambda site, _n: site.s3.kill(),
}


def kill_all(site: Site, number: int) -> None:
    """Kill one part of each kind at the same moment."""
    for way in WAYS.values():
        way(site, number)


AT_ONCE = {"all of these at once": kill_all}


def tell(pace: Pace) -> Pace:
    """Print what was measured at once: the rest of a run takes minutes."""
    print(f"{pace.rate:.1f} a second: {pace}", file=sys.stderr, flush=True)  # noqa: T201
    return pace


def kill_in_turn(
    site: Site,
    load: Load,
    trouble: Trouble,
    kills: int,
    ways: Mapping[str, Callable[[Site, int], object]],
) -> None:
    """Kill each part this many times under load, and let it heal each time."""
    await_work(load)
    probe = Guest(site, "probe", load, threading.Event(), trouble)
    for number in range(kills):
        for name, way in ways.items():
            time.sleep(random.uniform(0, STEADY_SECONDS))
            trouble.phase, started = name, time.monotonic()
            way(site, number)
            trouble.kills[name] += 1
            await_health(site, probe, trouble, f"{number}-{len(trouble.healed[name])}-{name[:2]}")
            trouble.healed[name].append(time.monotonic() - started)
            trouble.leaders[site.leaders()] += 1
            time.sleep(STEADY_SECONDS)
            trouble.phase = CALM


def await_work(load: Load) -> None:
    """Wait until the clients have done of each, so that a kill may undo each; a busy machine is slow."""
    deadline = time.monotonic() + HEAL_SECONDS
    while not all(load.promises.answers[call] for call in ("insert", "search", "delete")):
        assert time.monotonic() < deadline, load.promises.answers
        time.sleep(0.1)


def await_health(site: Site, probe: Guest, trouble: Trouble, name: str) -> None:
    """Wait until every part is up and a picture can be inserted and found."""
    deadline, attempt = time.monotonic() + HEAL_SECONDS, 0
    time.sleep(0.5)
    while time.monotonic() < deadline:
        attempt += 1
        try:
            if all(site.is_up(part) for part in site.parts):
                person = f"probe-{name}-{attempt}"
                probe.search(probe.insert(person)[0], person)
                return
        except (requests.RequestException, Refused):
            pass
        time.sleep(0.2)
    trouble.unhealed.append(f"{trouble.phase} after {HEAL_SECONDS:.0f} s")


def settle(site: Site, load: Load) -> None:
    """Stop the servers and workers, and compare everything with what was promised."""
    for part in (*site.webs, *site.workers):
        part.stop()
    for picture in (site.folder / "bucket" / BUCKET).rglob("*.jpg"):
        os.utime(picture, (1e9, 1e9))  # younger ones without a row are left to their upload
    environment = site.environment | {"TORCH_THREADS": str(CORES)}
    examine(environment, load.promises, load.figures)
    for refusal, count in load.promises.refusals.items():
        if refusal not in ANNOUNCED:
            load.unexpected[refusal] += count


@dataclass
class Outcome:
    """All that a run found."""

    load: Load
    trouble: Trouble
    paces: dict[str, Pace] = field(default_factory=dict)
    restarts: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        two_led = any(count > 1 for count in self.trouble.leaders)
        return self.load.failed or bool(self.trouble.unhealed) or two_led


def run_site(
    site: Site,
    *,
    kills: int,
    seconds: float,
    clients: int = CLIENTS,
    ways: Mapping[str, Callable[[Site, int], object]] = WAYS | AT_ONCE,
) -> Outcome:
    """Measure one and two web servers for so many seconds each, kill each part, and compare all."""
    load, trouble = Load(), Trouble()
    outcome = Outcome(load, trouble)
    first, second = site.webs
    if seconds:
        first.environment["TORCH_THREADS"] = "0"  # alone it may have all cores
        site.run(first, *site.workers)
        with visited(site, load, trouble, "one", clients):
            measure(site, load, seconds / 3)  # until all is warm
            outcome.paces["one web server"] = tell(measure(site, load, seconds))
        first.stop()
        for web in site.webs:
            web.environment["TORCH_THREADS"] = str(max(1, CORES // 2))
        site.run(first, second)
        with visited(site, load, trouble, "two", clients):
            measure(site, load, seconds / 3)
            outcome.paces["two web servers"] = tell(measure(site, load, seconds))
    else:
        site.run(first, second, *site.workers)
    with visited(site, load, trouble, "kill", clients):
        kill_in_turn(site, load, trouble, kills, ways)
    settle(site, load)
    outcome.restarts = site.keeper.restarts
    return outcome


def update_site(site: Site, *, seconds: float, clients: int = CLIENTS) -> Outcome:
    """Replace an older version, which the site began with, part by part under load, and compare all."""
    load, trouble = Load(), Trouble()
    for web in site.webs:
        web.environment["TORCH_THREADS"] = str(max(1, CORES // 2))
        site.run(web)  # of version 1.0 two at once would both make the account
    site.run(*site.workers)
    with visited(site, load, trouble, "old", clients):
        time.sleep(seconds)
        trouble.phase = "migrating"
        migrate(site.environment)
        trouble.phase = "old servers, new schema"
        time.sleep(seconds)
        for part in (*site.webs, *site.workers):
            trouble.phase = f"replacing {part.name}"
            part.stop()
            part.root = ROOT
            site.run(part)
            time.sleep(seconds)
        trouble.phase = CALM
    settle(site, load)
    return Outcome(load, trouble, restarts=site.keeper.restarts)


def print_outcome(outcome: Outcome, clients: int, seconds: float) -> None:
    load, trouble, figures = outcome.load, outcome.trouble, outcome.load.figures
    rows: dict[str, object] = {"clients; seconds": f"{clients}; {seconds:.0f}"}
    for name, pace in outcome.paces.items():
        busy = sorted(pace.cores.items(), key=lambda item: -item[1])
        rows[f"{name}: answers a second"] = f"{pace.rate:.1f}  {dict(pace.answers)}"
        rows[f"{name}: cores busy"] = {n: round(c, 2) for n, c in busy if c >= 0.01}
    for name, count in trouble.kills.items():
        healed = trouble.healed[name]
        rows[f"{name}: killed"] = (
            f"{count} times, healed after {min(healed):.1f} to {max(healed):.1f} s"
        )
    rows |= {f"refused, {name}": dict(reasons) for name, reasons in trouble.refused.items()}
    rows |= {
        "not healed": trouble.unhealed or 0,
        "started again, with those that ended by themselves": dict(outcome.restarts),
        "servers that led, as seen after each kill": dict(trouble.leaders),
        "answers, by what was asked": dict(load.promises.answers),
        "announced refusals": {n: c for n, c in load.promises.refusals.items() if n in ANNOUNCED},
        "unexpected answers": dict(load.unexpected) or 0,
        "accepted pictures at the end": sum(map(len, load.promises.paths.values())),
        "accepted pictures lost, or not found by a search": len(figures.lost),
        "pictures enrolled twice": figures.doubled,
        "persons deleted; renamed": f"{len(load.promises.deleted)}; {len(load.promises.former)}",
        "deleted persons or former ids found (ghosts)": len(figures.ghosts),
        "differences named": dict(figures.drift) or 0,
        "differences that reindex met and --check had not named": figures.unnamed,
        "differences that reindex left": figures.unmended,
    }
    for name, value in rows.items():
        print(f"{name:56} {value}")  # noqa: T201 (the figures are what is asked for)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=5, help="of each part")
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement; 0: none")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seed", type=int, default=None, help="for the moments of the kills")
    parser.add_argument(
        "--from",
        dest="old",
        type=Path,
        help="the folder of an older version, which is updated under load; nothing is killed then",
    )
    parser.add_argument("--keep", type=Path, help="a new folder for the data and logs, kept")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    logging.getLogger("recognition.vector_store").setLevel(logging.ERROR)
    random.seed(options.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended."))  # and ends what was started
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        try:
            root = options.old or ROOT
            with running_site(folder, root=root, session_seconds=SESSION_SECONDS) as site:
                clients = options.clients
                if options.old:
                    outcome = update_site(site, seconds=options.seconds, clients=clients)
                else:
                    outcome = run_site(
                        site, kills=options.kills, seconds=options.seconds, clients=clients
                    )
        except Missing as error:
            sys.exit(str(error))
        print_outcome(outcome, options.clients, time.monotonic() - started)
    sys.exit(outcome.failed)


if __name__ == "__main__":
    main()
