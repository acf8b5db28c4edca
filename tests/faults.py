"""Faults around a server, each made on a small gallery, observed, and repaired.

`script/chaos --faults` prints a line for each. A fault fails when an accepted picture is lost, a
deleted person is found, an answer shows more than a message, or the repair command leaves a
difference.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.chaos import START_SECONDS, Client, Promises, Server
from tests.gallery_folder import ROOT, mend, new_gallery
from tests.pictures import draw_picture
from tests.recognition.milvus_server import (
    free_port,
    milvus_command,
    milvus_program,
    own_ports,
    running,
)

STORE = "milvus_face.db"
PERSONS, DELETED = 5, 2
FULL_DISK = 48 * 2**20
LOAD_SECONDS = 4.0
UNREADABLE = "the database cannot be opened"
REVEALING = re.compile(r"Traceback|File \"|/tmp|/home|sqlite|Errno", re.IGNORECASE)


class Impossible(Exception):
    """This machine cannot produce the fault."""


@dataclass
class Trial:
    """One gallery, what its users were promised, and what was observed."""

    data: Path
    environment: dict[str, str]
    promises: Promises
    named: list[str] = field(default_factory=list)
    command: str = "none"
    seen: list[str] = field(default_factory=list)  # by users, while it was broken
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self, **knobs: str) -> Iterator[Client]:
        """Run a server and yield a client; the server is killed at the end."""
        server = Server(self.environment | knobs)
        try:
            yield Client(server.url, "fault", self.promises)
        finally:
            server.kill()

    def see(self, what: str, response: requests.Response) -> None:
        """Record an answer, and whether it reveals too much."""
        self.seen.append(f"{what} {response.status_code}")
        if not response.ok and (REVEALING.search(response.text) or str(self.data) in response.text):
            self.wrong.append(f"{what} answered {response.text[:200]}")

    def search(self, client: Client, path: str) -> list[str]:
        """Return the persons found for the picture of this path."""
        response = client.call(
            "post",
            "/api/milvus/search",
            files={"image": ("probe.jpg", draw_picture((112, 112), seed=path))},
            data={"use_face_detection": "false", "top_k": "50"},
        )
        self.see("search", response)
        found = re.findall(r'"person_id": ?"([^"]*)"', response.text)
        if ghosts := self.promises.deleted & set(found):
            self.wrong.append(f"deleted, but found: {sorted(ghosts)}")
        return found if response.ok else []

    def await_copies(self, client: Client) -> None:
        """Wait until the server has copied the missing vectors; the last one is copied last."""
        (*_others, (person, (path, *_more))) = self.promises.paths.items()
        deadline = time.monotonic() + START_SECONDS
        while person not in self.search(client, path):
            assert time.monotonic() < deadline, f"{person} is still not found"
            time.sleep(0.2)
        self.seen.clear()

    def search_all(self, client: Client) -> None:
        """Search for all kept and all deleted pictures."""
        for person in self.promises.deleted:
            self.search(client, f"{person}/0.jpg")
        kept = [
            bool({person, f"{person} renamed"} & set(self.search(client, paths[0])))
            for person, paths in self.promises.paths.items()
        ]
        self.seen.append(f"{sum(kept)} of {len(kept)} found")

    def reindex(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", "reindex", "--no-progress", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    def check(self) -> None:
        """Record what `reindex --check` reports."""
        output = self.reindex("--check")
        text = output.stdout + output.stderr
        names = re.findall(r"^(\d+ .+?):", text, re.MULTILINE)
        if "reindex --rebuild" in text:
            names.append(UNREADABLE)
        elif output.returncode and not names:
            names.append(f"it could not look: {output.stderr.strip().splitlines()[-1]}")
        self.named += names

    def examine(self) -> None:
        """Run the repair command and count what is still lost."""
        self.check()
        if UNREADABLE in self.named:
            self.command = "reindex --rebuild"
            if (done := self.reindex("--rebuild")).returncode:
                self.wrong.append(f"--rebuild: {done.stderr[-300:]}")
        state = mend(self.environment)
        status, named = state["named"]
        self.named += re.findall(r"^(\d+ .+?):", named, re.MULTILINE)
        if "Nothing to do" not in state["mended"][1]:
            self.command = "reindex"
            if not status:
                self.wrong.append(f"mended, but not named: {state['mended'][1]}")
        if state["mended"][0] or state["checked"][0]:
            self.wrong.append(f"not mended: {state['mended'][1]} {state['checked'][1]}")
        promised = {path for paths in self.promises.paths.values() for path in paths}
        if lost := promised - set(state["searchable"]):
            self.wrong.append(f"accepted, but lost: {sorted(lost)}")
        if ghosts := self.promises.deleted & set(state["persons"]):
            self.wrong.append(f"deleted, but there: {sorted(ghosts)}")


# The faults


def store_deleted(trial: Trial) -> None:
    shutil.rmtree(trial.data / STORE)


def store_deleted_then_served(trial: Trial) -> None:
    """Delete the vector store: the server copies the missing vectors by itself."""
    shutil.rmtree(trial.data / STORE)
    with trial.serving() as client:
        trial.await_copies(client)
        trial.search_all(client)


def store_deleted_while_serving(trial: Trial) -> None:
    with trial.serving() as client:
        shutil.rmtree(trial.data / STORE)
        client.insert("after")
        trial.search_all(client)


def store_damaged(trial: Trial) -> None:
    for path in (trial.data / STORE).rglob("*"):
        if path.is_file() and (size := path.stat().st_size):
            os.truncate(path, size // 2)
    with trial.serving() as client:
        client.insert("during")
        trial.search_all(client)


def store_set_back(trial: Trial) -> None:
    copy = trial.data / "copy"
    shutil.copytree(trial.data / STORE, copy)
    with trial.serving() as client:
        client.insert("new")
        client.rename("person-0", "person-0 renamed")
        client.delete("person-1")
    shutil.rmtree(trial.data / STORE)
    copy.rename(trial.data / STORE)
    trial.check()
    trial.named[:] = [f"{name} (before the start)" for name in trial.named]
    with trial.serving() as client:
        trial.await_copies(client)
        trial.search_all(client)


def sqlite_locked(trial: Trial) -> None:
    with trial.serving() as client:
        with closing(sqlite3.connect(trial.data / "db.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            trial.see("insert", insert(client, "during"))
            trial.seen[-1] += f" after {time.monotonic() - started:.0f} s"
            trial.search_all(client)
            other.execute("ROLLBACK")
        client.insert("after")


def insert(client: Client, person: str) -> requests.Response:
    """Insert a picture and record the answer; it counts as promised on success."""
    paths = [f"{person}/0.jpg"]
    response = client.call(
        "post",
        "/api/milvus/insert",
        files=[("images", (paths[0], draw_picture((112, 112), seed=paths[0])))],
        data={
            "person_id": person,
            "image_paths": json.dumps(paths),
            "use_face_detection": "false",
        },
    )
    if client.promises.note("insert", response):
        client.promises.paths[person] = paths
    return response


def picture_missing(trial: Trial) -> None:
    picture = next(path for path in (trial.data / "media").rglob("*.jpg"))
    away = picture.rename(trial.data / "away.jpg")
    with trial.serving() as client:
        trial.search_all(client)
    trial.check()
    refused = trial.reindex()
    trial.seen.append(f"reindex exit code {refused.returncode}")
    away.rename(picture)


def weights_replaced(trial: Trial) -> None:
    """Replace the weights while serving: by a damaged file, then by another network's."""
    from safetensors.torch import load_file, save_file

    weights = trial.data / "weights"
    shutil.copytree(ROOT / "weights", weights)
    trial.environment["WEIGHTS_DIR"] = str(weights)
    (file,) = weights.glob("mobilenetv3_large.safetensors")
    with trial.serving() as client:
        whole = file.read_bytes()
        replace(file, whole[: len(whole) // 2])
        trial.see("insert with damaged weights", insert(client, "damaged"))
        tensors = load_file(ROOT / "weights" / file.name)
        name = next(name for name in tensors if tensors[name].ndim == 4)
        tensors[name] = tensors[name] * 1.05
        save_file(tensors, weights / "new")
        replace(file, (weights / "new").read_bytes())
        (weights / "new").unlink()
        trial.see("insert with new weights", insert(client, "other"))
        trial.search_all(client)


def replace(file: Path, content: bytes) -> None:
    """Replace a file atomically, as a careful administrator does."""
    new = file.with_suffix(".tmp")
    new.write_bytes(content)
    new.replace(file)


def disk_full(trial: Trial) -> None:
    """Fill the disk, on a tmpfs of its own."""
    disk = trial.data.with_name("disk")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise Impossible("mounting a tmpfs is not permitted here")
    shutil.copytree(trial.data, disk, dirs_exist_ok=True)
    kept, trial.data = trial.data, disk
    trial.environment["DATA_DIR"] = str(disk)
    try:
        with trial.serving() as client:
            fill(disk / "filler")
            for number in range(4):
                trial.see("insert", insert(client, f"full-{number}"))
            trial.search_all(client)
            delete(trial, client, "person-1")
            (disk / "filler").unlink()
            trial.see("insert with space again", insert(client, "space"))
        trial.examine()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        trial.data = kept
        trial.environment["DATA_DIR"] = str(kept)


def delete(trial: Trial, client: Client, person: str) -> None:
    response = client.call("delete", f"/api/persons/{person}")
    trial.see("delete", response)
    if response.ok:
        trial.promises.paths.pop(person)
        trial.promises.deleted.add(person)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue


def milvus_killed_under_load(trial: Trial) -> None:
    """Kill a real Milvus server and start it again while four clients write."""
    program = milvus_program()
    if program is None:
        raise Impossible("no Milvus server is installed (TEST_MILVUS_SERVER=1)")
    folder, port = trial.data / "milvus", free_port()
    command, ports = milvus_command(program, folder, port), own_ports(folder, port)
    trial.environment["MILVUS_URI"] = f"http://127.0.0.1:{port}"
    with ExitStack() as web:
        with running(command, folder, port, **ports) as process:
            trial.reindex()
            url = web.enter_context(trial.serving()).url
            clients = [Client(url, f"load-{number}", trial.promises) for number in range(4)]
            for client in clients:
                client.start()
            time.sleep(LOAD_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(LOAD_SECONDS)
        with running(command, folder, port, **ports):
            time.sleep(LOAD_SECONDS)
            web.close()
            for client in clients:
                client.join()
            trial.seen.append(f"{trial.promises.answers.total()} answers to writes")
            for picture in (trial.data / "media").rglob("*.jpg"):
                os.utime(picture, (1e9, 1e9))  # younger ones without a row are left to their upload
            trial.examine()


FAULTS: list[Callable[[Trial], None]] = [
    store_deleted,
    store_deleted_then_served,
    store_deleted_while_serving,
    store_damaged,
    store_set_back,
    sqlite_locked,
    picture_missing,
    weights_replaced,
    disk_full,
    milvus_killed_under_load,
]


def small_gallery(data: Path) -> Promises:
    """Create a folder with some persons, and some deleted ones, to be copied."""
    environment, promises = new_gallery(data), Promises()
    server = Server(environment)
    client = Client(server.url, "small", promises)
    for number in range(PERSONS):
        client.insert(f"person-{number}")
    for number in range(DELETED):
        client.insert(f"gone-{number}")
        client.delete(f"gone-{number}")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait()
    return promises


def try_fault(
    fault: Callable[[Trial], None], base: Path, folder: Path, promises: Promises
) -> Trial:
    """Run the fault on a copy of the gallery."""
    data = Path(shutil.copytree(base, folder / fault.__name__ / "data"))
    own = Promises(paths=dict(promises.paths), deleted=set(promises.deleted))
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "faceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(data),
        "LOG_LEVEL": "ERROR",
        "TORCH_THREADS": "1",
        "API_AUTH_REQUIRED": "0",  # who asks may have servers in it
    }
    trial = Trial(data, environment, own)
    fault(trial)
    if fault not in (
        disk_full,
        milvus_killed_under_load,
    ):  # which look while it is mounted, or runs
        trial.examine()
    for refusal in own.refusals:
        if REVEALING.search(refusal):
            trial.wrong.append(refusal)
    return trial


def run_faults(names: list[str]) -> bool:
    """Print a line for each named fault, or for all; return whether one failed."""
    failed = False
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        base = Path(folder) / "base"
        promises = small_gallery(base)
        for fault in FAULTS:
            if names and fault.__name__ not in names:
                continue
            started = time.monotonic()
            try:
                trial = try_fault(fault, base, Path(folder), promises)
            except (Impossible, RuntimeError) as error:  # also a Milvus that does not start
                first_line = str(error).splitlines()[0]
                print(f"{fault.__name__}: skipped, {first_line}", flush=True)  # noqa: T201
                continue
            failed |= bool(trial.wrong)
            print_line(fault.__name__, trial, time.monotonic() - started)
    return failed


def print_line(name: str, trial: Trial, seconds: float) -> None:
    seen = list(dict.fromkeys(trial.seen))
    parts = {
        "seen": ", ".join(seen) or "no server",
        "refused": dict(trial.promises.refusals) or 0,
        "named": "; ".join(dict.fromkeys(trial.named)) or "nothing",
        "mended by": trial.command,
        "wrong": trial.wrong or 0,
        "s": round(seconds),
    }
    print(f"{name}: " + " | ".join(f"{key} {value}" for key, value in parts.items()), flush=True)  # noqa: T201
