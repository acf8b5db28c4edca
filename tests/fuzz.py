"""Fuzz the service with damaged pictures, ZIPs, folders and requests, and with heavy loads.

    script/fuzz pictures --count 20000   to a server: embedded, detected, enrolled, searched for, compared
    script/fuzz zips --count 1000        imported on the pages and in the admin
    script/fuzz requests --count 5000    bytes of HTTP
    script/fuzz schema                   what schemathesis makes of the OpenAPI document (fetched by uv)
    script/fuzz decoder --count 20000    read and stored in this process, without a server
    script/fuzz folders --count 1000     `manage.py enroll` in this process
    script/fuzz intact FOLDER            each file of the folder as it is; what is answered how often
    script/fuzz large                    eight pictures of 50 megapixels at a time, kind by kind
    script/fuzz connections              250 slow connections beside searches

It exits with 1 when an answer was 5xx, took longer than 5 seconds or revealed too much, when memory
grew by 300 MiB (`large`: above 2.5 GB), or when `/livez` or `/readyz` took longer than a second. Inputs
depend only on the seed and a number: `--first NUMBER --count 1` repeats one. The suite runs a
few of each (`tests/test_fuzz.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import http.client
import io
import itertools
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.chaos import Server
from tests.drawn_faces import as_jpeg, draw_face, draw_group
from tests.gallery_folder import ROOT, new_gallery
from tests.pictures import draw_picture, encoded

CASES = ROOT / "tests" / "cases"
SLOW_SECONDS = 5.0
PROBE_SECONDS = 1.0
GROWTH_MIB = 300
LARGE_MB = 2500
CLIENTS, STOP_SECONDS = 2, 60
SCHEMATHESIS = "schemathesis==4.32.5"
ADMIN = {"username": "fuzz", "password": "a-long-password-of-tests"}  # noqa: S105
NUMBERS = (b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\xff\xff\xff\xff", b"\0\1\0\0")
BAD_LOG = re.compile(
    r"Traceback|UserWarning|Fatal Python error|CRITICAL|ERROR \[\S+\] (?!django\.security)"
)
SECRETS = ("Traceback", "site-packages", str(ROOT))  # which no answer holds


@dataclass
class Report:
    patience: float = SLOW_SECONDS  # for one input; what takes longer is a failure
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds
    growth: float = 0.0  # MiB held after the last, over that before the first
    peak: float = 0.0  # MiB held at most
    probes: dict[str, list[float]] = field(default_factory=dict)  # seconds, by path
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_clean(self) -> bool:
        late = any(max(taken, default=0.0) > PROBE_SECONDS for taken in self.probes.values())
        return not self.failures and self.growth < GROWTH_MIB and not late

    def note(self, name: str, outcome: str, seconds: float, wrong: str | None) -> None:
        """Record the outcome of one input, and what is wrong with it."""
        with self.lock:
            self.outcomes[outcome] += 1
            self.slowest = max(self.slowest, seconds)
            if wrong:
                self.failures.append(f"{name}: {wrong}")
            if seconds > self.patience:
                self.failures.append(f"{name}: {seconds:.1f} seconds")

    def __str__(self) -> str:
        lines = [f"{sum(self.outcomes.values())} sent"]
        lines += [f"  {count:6} {name}" for name, count in self.outcomes.most_common()]
        lines.append(
            f"slowest {self.slowest:.2f} s; memory grew by {self.growth:.0f} MiB, "
            f"{self.peak:.0f} MiB at most"
        )
        lines += [
            f"{path}: {len(taken)} times, median {sorted(taken)[len(taken) // 2] * 1000:.0f} ms, "
            f"slowest {max(taken) * 1000:.0f} ms"
            for path, taken in self.probes.items()
            if taken
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Slice:
    """A range of the endless sequence of inputs for a seed."""

    seed: int
    count: int
    first: int = 0

    def __iter__(self) -> Iterator[tuple[int, str, random.Random]]:
        for number in range(self.first, self.first + self.count):
            name = f"seed {self.seed}, number {number}"
            yield number, name, random.Random(f"{self.seed} {number}")


# ------------------------------------------------------------------------------- what is sent


def samples(folder: Path | None = None) -> list[bytes]:
    """Return small pictures of every format and many of their variants."""
    import numpy as np
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    size = (64, 48)
    deep = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
    kept = [
        *(draw_picture(size, mode=mode, exif=exif) for mode in ("RGB", "L", "CMYK")),
        *(draw_picture(size, progressive=True, subsampling=n) for n in (0, 2)),
        draw_picture(size, restart_marker_blocks=1),
        *(
            draw_picture(size, mode=mode, format="PNG")
            for mode in ("RGB", "RGBA", "L", "LA", "P", "1")
        ),
        *(draw_picture(size, mode=mode, format="BMP") for mode in ("RGB", "L", "P", "1")),
        *(
            draw_picture(size, format="TIFF", compression=name, exif=exif)
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        draw_picture(size, mode="1", format="TIFF", compression="group4"),
        draw_picture(size, mode="CMYK", format="TIFF"),
        draw_picture(size, mode="LAB", format="TIFF"),
        *(draw_picture(size, format="WEBP", lossless=flag, exif=exif) for flag in (True, False)),
        *(draw_picture(size, mode=mode, format="AVIF") for mode in ("RGB", "RGBA")),
        *(encoded(deep, format) for format in ("PNG", "TIFF")),
    ]
    files = sorted(CASES.iterdir()) + (sorted(folder.rglob("*")) if folder else [])
    return kept + [path.read_bytes() for path in files if path.is_file()]


@cache
def _faces() -> list[bytes]:
    """Return pictures whose faces are still detected after small damages."""
    face = draw_face(4)
    turned = face.transpose(2)  # by a quarter
    others = [encoded(face, format) for format in ("PNG", "WEBP", "BMP", "TIFF")]
    return [as_jpeg(face), as_jpeg(turned), as_jpeg(draw_group()), *others]


def mutated(data: bytes, chance: random.Random, *, at_end: bool = False) -> bytes:
    """Return the bytes with a few changes, mostly near the start, where headers are.

    With `at_end` they are as often near the end.
    """
    spoiled = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        end = len(spoiled) if chance.random() < 0.4 else min(len(spoiled), 400)
        place = chance.randrange(max(1, end))
        if at_end and chance.random() < 0.5:
            place = max(0, len(spoiled) - 1 - place)
        kind = chance.randrange(6)
        if kind <= 1:
            spoiled[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            number = chance.choice(NUMBERS)
            spoiled[place : place + len(number)] = number
        elif kind == 3:
            length = chance.randrange(1, 64)
            spoiled[place:place] = spoiled[place : place + length] * chance.randrange(1, 20)
        elif kind == 4:
            del spoiled[place : place + chance.randrange(1, 32)]
        else:
            other = chance.randrange(len(spoiled) or 1)
            spoiled[place : place + 8] = spoiled[other : other + 8]
    if chance.random() < 0.15:
        del spoiled[chance.randrange(len(spoiled) or 1) :]
    return bytes(spoiled)


ODD_NAMES = (
    *(
        "ana",
        "João",
        "Joa\u0303o",
        "Conceição",
        "a b",
        "123.456.789-09",
        "x" * 300,
        "-rf",
        "~",
        "*",
    ),
    *("Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX"),
    *(
        ".",
        "..",
        "...",
        " ",
        "",
        "\u200b",
        "\u202eana",
        "a\\b",
        "C:",
        "CON",
        "\x07",
        "=1+1",
        "'",
        '"',
    ),
    *("%2e%2e", "<b>", "{{ 7 }}", "\ud800", ".DS_Store", "._ana", "ana.", "ana ", "日本", "🙂"),
)
ODD_FILES = (
    "1.jpg",
    "1.JPG",
    "blob",
    "1.jpg.txt",
    "1.jfif",
    ".jpg",
    "1.heic",
    "notes.txt",
    "é.png",
)


def odd_path(chance: random.Random) -> str:
    """Return an unusual path, or an ordinary one."""
    folders = [chance.choice(ODD_NAMES) for _ in range(chance.choice((0, 1, 1, 1, 2, 3)))]
    name = chance.choice((*ODD_FILES, *ODD_FILES, *ODD_NAMES))
    return chance.choice("///\\").join([*folders, name]) + "/" * (chance.random() < 0.05)


def odd_file(chance: random.Random) -> bytes:
    match chance.randrange(6):
        case 0 | 1:
            return draw_picture((112, 112), seed=chance.randrange(10**6))
        case 2:
            return as_jpeg(draw_face(4, chance.randrange(4)))
        case 3:
            return mutated(draw_picture((112, 112), seed=chance.randrange(10**6)), chance)
        case 4:
            return b""
        case _:
            return chance.randbytes(chance.randrange(2000))


def odd_zip(chance: random.Random) -> bytes:
    """Return a ZIP with unusual names, contents and compressions, mostly also damaged."""
    if chance.random() < 0.2:
        data = chance.choice([path.read_bytes() for path in sorted(CASES.glob("*.zip"))])
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for _ in range(chance.randrange(1, 7)):
                info = zipfile.ZipInfo(odd_path(chance).encode("utf-8", "replace").decode())
                info.compress_type = chance.choice((0, 8, 8, 12, 14))
                info.external_attr = chance.choice(
                    (0, 0o100644 << 16, 0o120777 << 16, 16, 2**32 - 1)
                )
                with contextlib.suppress(UserWarning):
                    archive.writestr(info, odd_file(chance))
        data = buffer.getvalue()
    return mutated(data, chance, at_end=True) if chance.random() < 0.5 else data


def odd_folder(folder: Path, chance: random.Random) -> None:
    """Fill the folder with files, links, pipes and names that are not valid text."""
    for _ in range(chance.randrange(1, 10)):
        parts = [part.replace("\0", "") for part in odd_path(chance).split("/") if part.strip("./")]
        raw = os.fsencode(folder) + b"/" + "/".join(parts).encode("utf-8", "surrogatepass")[:200]
        if chance.random() < 0.15:
            raw += b"\xe3"
        path = Path(os.fsdecode(raw))
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            match chance.randrange(12):
                case 0:
                    path.symlink_to(chance.choice(("/etc", ".", "nowhere", "/dev/zero")))
                case 1:
                    os.mkfifo(path)
                case 2:
                    path.mkdir()
                case _:
                    path.write_bytes(odd_file(chance))


def raw_request(
    method: str,
    target: str,
    body: bytes = b"",
    headers: Sequence[str] = (),
    *,
    chunked: bool = False,
) -> bytes:
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", length, *headers]
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return "\r\n".join([*head, "", ""]).encode() + body


@cache
def raw_requests() -> list[bytes]:
    """Return one HTTP request of each kind that the service reads."""
    picture = draw_picture((64, 48))
    fields = {"person_id": "ana", "use_face_detection": "false", "image_paths": '["a.jpg"]'}
    form = "Content-Type: multipart/form-data; boundary=b0"
    text = "Content-Type: application/json"
    image = _multipart(fields | {"top_k": "3"}, image=picture)
    images = _multipart(fields, images=picture)
    person = json.dumps({"person_id": "bia", "name": "Bia", "notes": "…"}).encode()
    vector = _multipart({"embedding": json.dumps([0.1] * 512)})
    key = "Idempotency-Key: one"
    return [
        raw_request("POST", "/api/embedding", image, [form]),
        raw_request("POST", "/api/embedding", image, [form], chunked=True),
        raw_request("POST", "/api/detect", image, [form, "Accept-Language: pt-BR, en;q=0.5"]),
        raw_request("POST", "/api/embeddings/batch", images, [form, "Accept: application/json"]),
        raw_request("POST", "/api/milvus/insert", images, [form, key]),
        raw_request("POST", "/api/milvus/search", image, [form]),
        raw_request("POST", "/api/milvus/search", vector, [form]),
        raw_request("POST", "/api/persons", person, [text]),
        raw_request("PATCH", "/api/persons/bia", person, [text]),
        raw_request("POST", "/api/persons/bia/merge", b'{"person_id": "ana"}', [text]),
        raw_request("DELETE", "/api/persons/bia"),
        raw_request("GET", "/api/persons?q=jo%C3%A3o&page=1&page_size=20&ordering=name"),
        raw_request("GET", "/api/persons/ana/images?page=1", b"", ["Authorization: Token abc"]),
        raw_request("GET", "/api/schema?format=json&lang=pt-br"),
        raw_request("GET", "/people/?q=ana&page=1", b"", ["Cookie: sessionid=abc; csrftoken=x"]),
        raw_request("GET", "/people/1/"),
        raw_request("GET", "/pictures/1?size=96", b"", ['If-None-Match: "a"', "Range: bytes=0-9"]),
        raw_request("GET", "/people/import/abcdefgh?csv"),
        raw_request("POST", "/", image, [form]),
        raw_request("POST", "/login?next=/", b"username=a&password=b"),
        raw_request("OPTIONS", "/api/persons"),
        raw_request("HEAD", "/livez"),
        *(path.read_bytes() for path in sorted(CASES.glob("*.http"))),
    ]


def _multipart(fields: dict[str, str], **files: bytes) -> bytes:
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{name}"; filename="a.jpg"', content) for name, content in files.items()]
    lines = [
        b"--b0\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (name.encode(), value)
        for name, value in parts
    ]
    return b"".join([*lines, b"--b0--\r\n"])


def odd_request(number: int, chance: random.Random) -> bytes:
    """Return a damaged request: damaged anywhere, or in its body only, with a correct length."""
    request = raw_requests()[number % len(raw_requests())]
    head, _blank, body = request.partition(b"\r\n\r\n")
    if not body or chance.random() < 0.5:
        return mutated(request, chance)
    body = mutated(body, chance)
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body


def large_pictures(megapixels: float) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of large pictures of a face, like those of cameras and programs."""
    import numpy as np
    from PIL import Image, ImageFilter

    from tests.recognition.test_imaging_colours import png, wide_gamut_profile

    side = round((megapixels * 1e6) ** 0.5)
    chance = np.random.default_rng(1)
    image = Image.fromarray(chance.integers(0, 255, (40, 40, 3), np.uint8))
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    image.paste(draw_face(4).resize((side // 2, side // 2)), (side // 4, side // 4))
    pixels = np.asarray(image) ^ (chance.integers(0, 8, (side, side, 1), np.uint8) == 0)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.transpose(Image.Transpose.ROTATE_90)
    yield "RGBA PNG", encoded(image.convert("RGBA"), "PNG", compress_level=1)
    yield "turned JPEG", encoded(turned, "JPEG", quality=85, exif=exif)
    yield "JPEG, profile", encoded(image, "JPEG", quality=85, icc_profile=wide_gamut_profile())
    yield "JPEG, progressive", encoded(image, "JPEG", progressive=True, subsampling=0)
    yield "WebP", encoded(image, "WEBP", quality=80, method=0)
    yield "AVIF", encoded(image, "AVIF", quality=70, speed=10)
    yield "TIFF", encoded(image, "TIFF", compression="jpeg")
    deep = np.asarray(image.filter(ImageFilter.GaussianBlur(3))).astype(">u2") * 16
    deep = deep.view(np.uint8).reshape(side, -1)
    deep[:, 6:] -= deep[
        :, :-6
    ].copy()  # PNG's filter 1, so that it is no larger than a request may be
    rows = np.concatenate([np.ones((side, 1), np.uint8), deep], 1)
    yield "16-bit PNG", png(16, 2, rows.tobytes(), side, side)


# ------------------------------------------------------------------------- who it is sent to


@contextlib.contextmanager
def served(report: Report, **knobs: str) -> Iterator[Server]:
    """Run a warm server with its own gallery; its memory and log go into the report."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        account = {f"DJANGO_SUPERUSER_{name.upper()}": value for name, value in ADMIN.items()}
        fixed = {"PRELOAD_MODELS": "mobilenetv3_large", "PYTHONFAULTHANDLER": "1"}
        knobs = fixed | account | knobs
        environment = new_gallery(folder / "data", **knobs)
        with (folder / "log").open("wb") as log:
            server = Server(environment, log=log)
        stop = threading.Event()
        watch = threading.Thread(target=_probe, args=(server.url, report, stop), daemon=True)
        try:
            while not requests.get(
                f"{server.url}/readyz", timeout=30
            ).ok:  # models are being loaded
                time.sleep(0.2)
            watch.start()
            yield server
        finally:
            stop.set()
            if watch.ident:
                watch.join()
            server.process.terminate()
            server.process.wait(STOP_SECONDS)
        logged = (folder / "log").read_text(errors="replace")
        if server.process.returncode:
            report.failures.append(f"The server ended with {server.process.returncode}.")
        if bad := BAD_LOG.search(logged):
            report.failures.append(f"The server logged: {logged[bad.start() :][:3000]}")


def _probe(url: str, report: Report, stop: threading.Event) -> None:
    """Request both probes ten times a second, each time on a new connection."""
    while not stop.wait(0.1):
        for path in ("/livez", "/readyz"):
            started = time.monotonic()
            try:
                connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
                connection.request("GET", path)
                status = connection.getresponse().status
                connection.close()
            except OSError as error:
                report.note(path, f"{path} {type(error).__name__}", 0.0, str(error))
                return
            report.probes.setdefault(path, []).append(time.monotonic() - started)
            if status != 200:
                report.note(path, f"{path} {status}", 0.0, f"answered {status}")


def held(process: int) -> float:
    """Return the memory of the process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


@contextlib.contextmanager
def memory(process: int, report: Report) -> Iterator[None]:
    """Record the peak memory of the process within the block, and its growth."""
    before = held(process)
    Path(f"/proc/{process}/clear_refs").write_text("5")  # what it held at most begins anew
    yield
    if not Path(f"/proc/{process}/statm").read_text().strip("0 \n"):  # a zombie
        report.failures.append("The server has died.")
        return
    most = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    report.peak = max(report.peak, int(most[1]) / 1024)
    report.growth = held(process) - before


def wrong_with(response: requests.Response) -> str | None:
    """Return what is wrong with an answer, or None."""
    if response.status_code >= 500:
        return f"{response.status_code} {response.text[:300]}"
    if any(secret in response.text for secret in SECRETS):
        return f"tells too much: {response.text[:300]}"
    if urlsplit(response.url).path.startswith("/api/") and response.status_code >= 400:
        body = response.json()
        if body["success"] is not False or not (body["error"] and body["message"]):
            return f"explains nothing: {response.text[:300]}"
    return None


# --------------------------------------------------------------------------- to send, and judge


def fuzz_decoder(part: Slice, given: Sequence[bytes]) -> Report:
    """Decode mutated pictures, store the readable ones, and decode them again."""
    from recognition.exceptions import InvalidImage
    from recognition.imaging import read_image, storable_bytes

    def outcome(data: bytes) -> str:
        try:
            picture = read_image(data)
        except InvalidImage:
            return "refused"
        stored, _extension = storable_bytes(data, picture)
        again = read_image(stored)
        if (again.width, again.height) != (picture.width, picture.height):
            raise AssertionError("What was stored has another size.")
        return "read"

    report = Report()
    for data in given:
        outcome(data)
    gc.collect()
    with memory(os.getpid(), report):
        for number, name, chance in part:
            data = mutated(given[number % len(given)], chance)
            started, became, wrong = time.thread_time(), "failed", None
            try:
                became = outcome(data)
            except Exception as error:  # noqa: BLE001 (that is what is looked for)
                wrong = f"{type(error).__name__}: {error}"
            report.note(name, became, time.thread_time() - started, wrong)
        gc.collect()
    return report


@dataclass(frozen=True)
class Call:
    path: str
    picture: str = "image"  # the field of the mutated one
    fields: dict[str, str] = field(default_factory=dict)
    beside: str = ""  # the field of a whole one, sent along
    kept: bool = False  # whether the whole one has to succeed, whatever becomes of the other


CROP = {"use_face_detection": "false"}
CALLS = (
    Call("/api/embedding"),
    Call("/api/embedding", fields=CROP),
    Call("/api/detect"),
    Call("/api/embeddings/batch", "images", beside="images", kept=True),
    Call("/api/milvus/insert", "images", {"person_id": "ana", "on_several_faces": "refuse"}),
    Call("/api/milvus/insert", "images", CROP | {"person_id": "bia"}, beside="images", kept=True),
    Call("/api/milvus/search"),
    Call("/api/milvus/search", fields={"all_faces": "true", "group_by_person": "true"}),
    Call("/api/verify", "source_image", CROP, beside="target_image"),
)


def fuzz_pictures(part: Slice, given: Sequence[bytes], server: Server, report: Report) -> None:
    """Send mutated pictures to one endpoint after the other, with `CLIENTS` clients."""
    given = [*given, *_faces()]
    local = threading.local()

    def send(number: int, name: str, data: bytes, chance: random.Random) -> None:
        call = CALLS[number % len(CALLS)]
        files = [(call.picture, (chance.choice(ODD_FILES), data))]
        if call.beside:
            files.append((call.beside, ("whole.jpg", _faces()[0])))
        session = local.__dict__.setdefault("session", requests.Session())
        _post(session, server, call, files, name, report)

    # Whole pictures first, by all clients at once: every thread then has its detector and buffers.
    with ThreadPoolExecutor(CLIENTS) as clients:
        for number in range(min(len(CALLS) * len(given), part.count)):
            data = given[number // len(CALLS)]
            clients.submit(_noted, report, send, number, f"sample {number}", data, random.Random(0))
    with memory(server.process.pid, report), ThreadPoolExecutor(CLIENTS) as clients:
        for number, name, chance in part:
            # All calls see all pictures: there are not so many of one as of the other.
            data = given[number // len(CALLS) % len(given)]
            clients.submit(_noted, report, send, number, name, mutated(data, chance), chance)


def _post(
    session: requests.Session, server: Server, call: Call, files: Any, name: str, report: Report
) -> None:
    started = time.monotonic()
    answer = session.post(server.url + call.path, data=call.fields, files=files, timeout=300)
    seconds = time.monotonic() - started
    wrong = wrong_with(answer)
    if call.kept and not wrong and not answer.json()["results"][-1]["success"]:
        wrong = f"sank the other picture: {answer.text[:300]}"
    outcome = f"{call.path} {answer.status_code}"
    if not answer.ok:
        outcome += f" {answer.json().get('error')}"
    report.note(f"{name}, {call.path}", outcome, seconds, wrong)


def _noted(report: Report, work: Callable[..., None], number: int, name: str, *rest: Any) -> None:
    """Call `work`; record an exception as a failure."""
    try:
        work(number, name, *rest)
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        report.note(name, "no answer", 0.0, f"{type(error).__name__}: {str(error)[:300]}")


def fuzz_zips(part: Slice, server: Server, report: Report) -> None:
    """Import unusual ZIPs on the pages and in the admin: open the preview and confirm most."""
    session = requests.Session()
    token = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')

    def post(url: str, fields: dict[str, str], **options: Any) -> requests.Response:
        fields["csrfmiddlewaretoken"] = token.search(session.get(url).text)[1]
        headers = {"Referer": url}
        return session.post(url, data=fields, headers=headers, timeout=60, **options)

    def looked_at(url: str) -> None:
        deadline = time.monotonic() + 60
        while "data-working" in session.get(url, timeout=60).text and time.monotonic() < deadline:
            time.sleep(0.1)

    def send(number: int, name: str, data: bytes, chance: random.Random) -> None:
        place = ("/people/import", "/admin/enrollment/person/import-pictures/")[number % 2]
        started = time.monotonic()
        fields = {"use_face_detection": "on"} if chance.random() < 0.4 else {}
        answers = [post(server.url + place, fields, files={"archive": ("odd.zip", data)})]
        outcome = "refused"
        if answers[0].history:  # led to the preview
            preview = answers[0].url
            looked_at(preview)
            answers.append(session.get(f"{preview}?csv"))
            outcome = chance.choice(("confirm", "confirm", "confirm", "cancel"))
            answers.append(post(preview, {outcome: "1"}))
        seconds = time.monotonic() - started
        wrong = next(filter(None, map(wrong_with, answers)), None)
        if not wrong and any(answer.status_code != 200 for answer in answers):
            wrong = f"answered {[answer.status_code for answer in answers]}"
        report.note(name, f"{place} {outcome}", seconds, wrong)

    post(f"{server.url}/admin/login/", ADMIN | {"next": "/admin/"})
    with memory(server.process.pid, report):
        for number, name, chance in part:
            _noted(report, send, number, name, odd_zip(chance), chance)


def fuzz_folders(part: Slice) -> Report:
    """Import unusual folders and unpacked ZIPs as `manage.py enroll` does. Needs a database."""
    from django.core.management import CommandError, call_command

    from enrollment.imports.zip_archive import BadArchive, unpack

    report = Report()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:  # so that the networks are loaded
        (Path(folder) / "ana").mkdir()
        (Path(folder) / "ana" / "1.jpg").write_bytes(as_jpeg(draw_face(4)))
        call_command("enroll", folder, no_progress=True, stdout=io.StringIO())
    with memory(os.getpid(), report):
        for number, name, chance in part:
            started, wrong = time.thread_time(), None
            output, options = io.StringIO(), {"no_face_detection": chance.random() < 0.6}
            with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
                try:
                    if number % 2:
                        odd_folder(Path(folder), chance)
                    else:
                        unpack(io.BytesIO(odd_zip(chance)), Path(folder) / "files")
                    call_command(
                        "enroll", folder, no_progress=True, stdout=output, stderr=output, **options
                    )
                    became = "enrolled"
                except (CommandError, BadArchive) as error:
                    became = f"{type(error).__name__}: {re.sub('[0-9]+', 'N', str(error))[:60]}"
                except Exception as error:  # noqa: BLE001 (that is what is looked for)
                    became, wrong = "failed", f"{type(error).__name__}: {error}"
            report.note(name, became, time.thread_time() - started, wrong)
    return report


def fuzz_requests(part: Slice, server: Server, report: Report) -> None:
    """Send damaged HTTP, sixteen requests at a time, as most of the time is spent waiting."""
    address = urlsplit(server.url)

    def send(_number: int, name: str, data: bytes) -> None:
        started = time.monotonic()
        with socket.create_connection((address.hostname, address.port), timeout=2) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            received = _received(connection)
            seconds = time.monotonic() - started
            if not received and seconds > 1.5:  # it waits for more
                connection.shutdown(socket.SHUT_WR)
                started = time.monotonic()
                received = _received(connection) or b"HTTP/1.1 incomplete"
                seconds = time.monotonic() - started
        status = received.split()[1].decode() if received.startswith(b"HTTP/1.") else "closed"
        wrong = f"{received[:600]!r}" if status.startswith("5") else None
        if any(secret.encode() in received for secret in SECRETS):
            wrong = f"tells too much: {received[-300:]!r}"
        report.note(name, status, seconds, wrong)

    with memory(server.process.pid, report), ThreadPoolExecutor(16) as clients:
        for number, name, chance in part:
            clients.submit(_noted, report, send, number, name, odd_request(number, chance))


def _received(connection: socket.socket) -> bytes:
    """Return everything received until the other side closes or the timeout passes."""
    pieces = []
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def send_intact(folder: Path, server: Server, report: Report) -> None:
    """Embed each file of the folder unchanged; print each kind of answer and its files."""
    said: dict[str, list[str]] = {}
    with memory(server.process.pid, report):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files = {"image": (path.name, path.read_bytes())}
                started = time.monotonic()
                answer = requests.post(f"{server.url}/api/embedding", files=files, timeout=120)
                seconds = time.monotonic() - started
                outcome = f"{answer.status_code} {answer.json().get('message', '')}"
                report.note(path.name, outcome, seconds, wrong_with(answer))
                said.setdefault(outcome, []).append(str(path.relative_to(folder)))
    for outcome, names in said.items():
        if not outcome.startswith("200"):
            print(f"{outcome}\n    {' '.join(names)}")  # noqa: T201


def load_with_large(
    pictures: Iterator[tuple[str, bytes]], at_once: int, server: Server, report: Report
) -> None:
    """Send this many large pictures of each kind at once: first to embed, then to enrol."""

    def send(number: int, kind: str, data: bytes, call: Call) -> None:
        fields = call.fields | ({"person_id": f"{kind} {number}"} if "insert" in call.path else {})
        one = Report()  # how long a queue takes is no fault
        with requests.Session() as session:
            files = [(call.picture, ("large", data))]
            _post(session, server, Call(call.path, call.picture, fields), files, kind, one)
        report.note(f"{kind}, {call.path}", f"{kind}: {next(iter(one.outcomes))}", 0.0, None)
        report.failures += [failure for failure in one.failures if "seconds" not in failure]
        slowest[0] = max(slowest[0], one.slowest)

    for kind, data in pictures:
        for call in (Call("/api/embedding"), Call("/api/milvus/insert", "images")):
            own, slowest = Report(), [0.0]
            known = {path: len(taken) for path, taken in report.probes.items()}
            with memory(server.process.pid, own), ThreadPoolExecutor(at_once) as clients:
                for number in range(at_once):
                    clients.submit(_noted, report, send, number, kind, data, call)
            late = {
                path: max(report.probes[path][start:], default=0) for path, start in known.items()
            }
            probes = ", ".join(f"{path} {1000 * taken:.0f} ms" for path, taken in late.items())
            print(  # noqa: T201
                f"{kind} ({len(data) / 1e6:.0f} MB), {call.path}: {own.peak * 1.048576:.0f} MB at most, "
                f"{slowest[0]:.1f} s, {probes}",
                flush=True,
            )
            report.peak = max(report.peak, own.peak)
            if own.peak * 1.048576 > LARGE_MB:
                report.failures.append(f"{kind}, {call.path}: {own.peak * 1.048576:.0f} MB")


def load_with_connections(count: int, seconds: float, server: Server, report: Report) -> None:
    """Open silent, slow and non-reading connections, with searches beside them."""
    address = urlsplit(server.url)
    head = b"POST /api/embedding HTTP/1.1\r\nHost: localhost\r\n"
    kinds = (
        (b"", b""),
        (b"", head * 1000),
        (head + b"Content-Type: multipart/form-data; boundary=b0\r\nContent-Length: 40000000\r\n\r\n",
         b"x" * 10**6),
        (head + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10**5),
        (b"GET /static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50, b""),
    )  # fmt: skip
    slow = []
    for number in range(count):
        first, rest = kinds[number % len(kinds)]
        connection = socket.create_connection((address.hostname, address.port))
        connection.sendall(first)
        slow.append((connection, iter(rest)))
    end = time.monotonic() + seconds
    call, number = Call("/api/milvus/search"), 0
    with memory(server.process.pid, report), requests.Session() as session:
        while time.monotonic() < end:
            if number % 20 == 0:
                for connection, rest in slow:
                    with contextlib.suppress(OSError):
                        connection.send(bytes([byte])) if (byte := next(rest, None)) else None
            picture = draw_picture((320, 240), seed=number)
            _post(
                session, server, call, [("image", ("a.jpg", picture))], f"search {number}", report
            )
            number += 1
    for connection, _rest in slow:
        connection.close()


def run_schemathesis(count: int, seed: int, server: Server, report: Report) -> None:
    """Run requests that schemathesis generates from the OpenAPI description."""
    words = [Path(sys.executable).with_name("uv"), "tool", "run", SCHEMATHESIS, "run"]
    words += [f"{server.url}/api/schema", "--seed", seed, "--max-examples", count]
    words += ["--checks", "not_a_server_error", "--request-timeout", 2 * SLOW_SECONDS]
    words += ["--max-response-time", SLOW_SECONDS, "--generation-database", "none"]
    with memory(server.process.pid, report), tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run([str(word) for word in words], cwd=folder, check=False)
    report.note("schemathesis", f"ended with {ended.returncode}", 0.0, None)
    if ended.returncode:
        report.failures.append("schemathesis found what stands above")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=[*KINDS, "decoder", "folders"])
    parser.add_argument("folder", type=Path, nargs="?", help="of pictures to send, or mutate, too")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="connections: for so long")
    options = parser.parse_args()
    part = Slice(options.seed, options.count, options.first)
    match options.kind:
        case "decoder":
            report = fuzz_decoder(part, samples(options.folder))
        case "folders":
            from django.core.management import call_command

            call_command("migrate", verbosity=0)
            report = fuzz_folders(part)
        case kind:
            report = Report()
            # So that no answer is the 503 of a model without weights.
            knobs = {}
            if kind == "schema":
                both = "mobilenetv3_large,cosface_resnet50"
                knobs = {"WEIGHTS_DIR": str(ROOT / "weights"), "PRELOAD_MODELS": both}
            with served(report, **knobs) as server:
                KINDS[kind](options, part, server, report)
            if kind in ("large", "intact", "connections"):
                report.growth = 0.0  # of one load, not of many in a row
    for failure in report.failures:
        print(failure)  # noqa: T201
    print(report)  # noqa: T201
    return 0 if report.is_clean else 1


def _large(options: argparse.Namespace, _part: Slice, server: Server, report: Report) -> None:
    drawn = large_pictures(50)
    files = sorted(options.folder.iterdir()) if options.folder else []
    given = ((path.name, path.read_bytes()) for path in files)
    load_with_large(itertools.chain(drawn, given), 8, server, report)


KINDS: dict[str, Callable[[argparse.Namespace, Slice, Server, Report], None]] = {
    "pictures": lambda options, part, *to: fuzz_pictures(part, samples(options.folder), *to),
    "zips": lambda _options, part, *to: fuzz_zips(part, *to),
    "requests": lambda _options, part, *to: fuzz_requests(part, *to),
    "schema": lambda _options, part, *to: run_schemathesis(part.count, part.seed, *to),
    "intact": lambda options, _part, *to: send_intact(options.folder, *to),
    "large": _large,
    "connections": lambda options, _part, *to: load_with_connections(250, options.seconds, *to),
}


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    faulthandler.enable()
    import django

    django.setup()
    sys.exit(main())
