"""The benchmark measures every step and a server, and does not change the installation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from django.core.management import CommandError, call_command
from PIL import Image

from enrollment.models import Person
from faceproject.benchmark import QUICK, BenchmarkError, Row, Target, notes
from faceproject.benchmark.load import Call, form
from faceproject.benchmark.rows import Figures
from recognition.benchmark import LEAST_RUNS, made_up_vectors
from recognition.conf import get_settings
from recognition.vector_store import get_vector_store
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face

MODEL = "mobilenetv3_large"


@pytest.fixture
def benchmark(weights, tmp_path, monkeypatch, capsys):
    """Run the command as briefly as possible; return its output and its JSON."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def run(*arguments: str) -> tuple[str, dict]:
        file = tmp_path / "figures.json"
        call_command("benchmark", "--quick", *arguments, f"--model={MODEL}", f"--json={file}")
        return capsys.readouterr().out, json.loads(file.read_text())

    return run


def test_every_step_is_measured(benchmark, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"EMBED_BATCH_SIZE": 2}
    printed, figures = benchmark("--no-server", "--gallery", "20", "300")

    assert [(t["step"], t["size"], t["model"]) for t in figures["timings"]] == [
        ("decode", None, None),
        ("detect", QUICK.photo, None),
        ("detect_largest", QUICK.photo, None),
        ("align", None, None),
        ("network", 1, MODEL),
        ("network", 2, MODEL),
        ("embed", 1, MODEL),
        ("embed", 2, MODEL),
        ("picture_to_embedding", None, MODEL),
        ("faiss", 20, None),
        ("search", 20, None),
        ("faiss", 300, None),
        ("search", 300, None),
    ]
    for timing in figures["timings"]:
        things = timing["size"] if timing["step"] in ("embed", "network") else 1
        assert timing["runs"] >= LEAST_RUNS
        assert 0 < timing["best_ms"] <= timing["median_ms"]
        assert timing["per_second"] * timing["median_ms"] == pytest.approx(1000 * things)
    assert figures["served"] == []
    assert list(figures["machine"]["devices"]) == [MODEL]
    assert "a made-up picture that shows nobody" in printed
    assert printed.count(" ms ") == 2 * len(figures["timings"])
    assert "embed 2 faces at once" in printed and "search among 300 vectors" in printed
    assert not Path(get_settings().milvus_uri).exists()


@pytest.mark.django_db
def test_a_server_of_its_own_is_measured_and_one_that_exists(
    benchmark, tmp_path, live_server, settings
):
    """The other server is this process's, so both answer; `live_server` asks for a token."""
    settings.API_AUTH_REQUIRED = False
    picture = tmp_path / "figures.png"

    printed, figures = benchmark(
        "--gallery", "20", "50", "--against", live_server.url, f"--plot={picture}"
    )

    few, many = QUICK.clients
    searches = [
        (step, clients, size, unit)
        for size in (20, 50)
        for step, clients, unit in (
            ("search", 1, "ms"),
            ("search", 2, "/s"),
            ("search_picture", 1, "ms"),
        )
    ]
    rows = figures["served"]
    assert [(row["step"], row["clients"], row["size"], row["unit"]) for row in rows] == [
        ("crop", few, None, "ms"),
        ("crop", many, None, "/s"),
        ("batch", 1, QUICK.batch, "/s"),
        ("photo", 1, QUICK.photo, "ms"),
        ("large", many, 120_000, "MB"),
        *searches,
    ]
    for row in rows:
        assert row["figures"]["answers"] >= LEAST_RUNS and not row["figures"]["refused"]
        assert 0 < row["figures"]["median_ms"] <= row["figures"]["p95_ms"]
        assert not row["their_failure"]
        if row["step"] in ("large", "search"):  # the contract has none of these
            assert row["theirs"] is None
        else:
            assert row["theirs"]["answers"] >= LEAST_RUNS and row["times_theirs"] > 0
    alone = {item["step"]: item for item in figures["timings"] if item["size"] == 50}
    last = next(row for row in rows if row["step"] == "search" and row["size"] == 50)
    assert last["alone"] == alone["faiss"]["median_ms"]
    assert last["limit"] == pytest.approx(1.5 * last["alone"] + 5)
    assert last["within"] == (last["figures"]["median_ms"] <= last["limit"])
    assert "search by a vector among 50, 2 clients" in printed
    assert "MB of memory at the most (limit 1500)" in printed
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
    # Nothing was stored, and nothing is left behind.
    assert not Person.objects.exists()
    assert get_vector_store().row_count() == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_photos_are_counted_by_whether_a_face_is_found(benchmark, tmp_path, picture):
    folder = tmp_path / "photos" / "ana"
    folder.mkdir(parents=True)
    (folder / "face.jpg").write_bytes(as_jpeg(draw_face(PEOPLE[0])))
    (folder / "wall.jpg").write_bytes(picture)

    printed, _figures = benchmark(str(folder.parent), "--no-server", "--gallery")

    assert "With 2 pictures; in 1 of them a face is found." in printed
    assert "search among" not in printed


def test_made_up_vectors_are_the_same_however_they_are_taken():
    ((_first, whole),) = made_up_vectors(0, 30)
    ((first, rest),) = made_up_vectors(20, 30)
    assert first == 20
    assert (rest == whole[20:]).all()
    blocks = [(first, len(vectors)) for first, vectors in made_up_vectors(9_990, 20_010)]
    assert blocks == [(9_990, 10), (10_000, 10_000), (20_000, 10)]


def test_what_cannot_be_measured_is_told(benchmark, tmp_path, picture):
    with pytest.raises(CommandError, match="neither a folder nor a zip archive"):
        benchmark(str(tmp_path / "nowhere"))
    with pytest.raises(CommandError, match="'localhost:5000' is no address of a server"):
        benchmark("--against=localhost:5000")
    (tmp_path / "bad.jpg").write_bytes(picture[:-400])
    with pytest.raises(CommandError, match="damaged or incomplete"):
        benchmark(str(tmp_path))


class Refusing(BaseHTTPRequestHandler):
    """Refuse every second request, or every one below /never."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        Refusing.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        accepted = Refusing.asked % 2 and not self.path.startswith("/never")
        body = b"{}" if accepted else b'{"error": "busy", "message": "Come again."}'
        self.send_response(200 if accepted else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


class Answering(Refusing):
    """Answer in each way that HTTP has to say where a body ends, or cut it off."""

    def do_POST(self) -> None:
        given = self.rfile.read(int(self.headers["Content-Length"]))
        assert given == form({}) and self.headers["Authorization"] == "Token secret"
        way = self.path.rpartition("/")[2]
        if way == "old":
            self.protocol_version = "HTTP/1.0"
        self.send_response(503)
        if way == "chunked":
            self.send_header("Transfer-Encoding", "Chunked")
        elif way == "cut":
            self.send_header("Content-Length", "100")
        elif way == "closing":
            self.send_header("Connection", "close")
        self.end_headers()
        body = b'{"error": "busy"}'
        chunks = b"5;x=y\r\n" + body[:5] + b"\r\nC\r\n" + body[5:] + b"\r\n0\r\nEnd: 1\r\n\r\n"
        self.wfile.write(chunks if way == "chunked" else body)
        self.close_connection = way != "chunked"


@pytest.mark.parametrize("way", ["chunked", "old", "closing", "cut"])
def test_a_server_may_end_its_answers_in_any_way(way):
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        target = Target(f"http://127.0.0.1:{server.server_port}/a", "secret")
        reason = "does not answer /cut: the conn" if way == "cut" else f"refuses /{way}: 503 busy"
        with pytest.raises(BenchmarkError, match=reason):
            target.load(Call(f"/{way}", [form({})]), 1, 0.0)
        server.shutdown()
        thread.join()


@pytest.fixture
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_refusals_are_counted_apart_and_told(refusing):
    load = Target(refusing).load(Call("/api/embedding", [form({})]), 2, 0.0)
    assert load.refused and load.seconds
    refused = Figures.of(load)
    asked = f"{load.refused} of {load.refused + len(load.seconds)} requests were refused: {load.refusal}"
    assert "503" in load.refusal
    served = replace(refused, refused=0)
    row = Row(
        step="crop",
        model=MODEL,
        clients=2,
        size=None,
        unit="/s",
        figures=served,
        cores=None,
        client_cores=0.0,
    )
    label = f"{MODEL}: an aligned face, 2 clients"
    assert list(notes([replace(row, figures=refused)])) == [f"{label}: {asked}"]
    assert list(notes([replace(row, theirs=refused)])) == [f"{label} (the other): {asked}"]
    assert list(notes([replace(row, theirs=served)])) == []


def test_a_server_that_refuses_everything_is_named(refusing):
    with pytest.raises(BenchmarkError, match="/never refuses /again: 503 Come again"):
        Target(f"{refusing}/never").load(Call("/again", [form({})]), 2, 0.0)


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(BenchmarkError, match="http://127.0.0.1:1 does not answer /api/embedding"):
        Target("http://127.0.0.1:1").load(Call("/api/embedding", [form({})]), 3, 0.0)


@pytest.mark.parametrize(
    "argument", ["--gallery=0", "--gallery=many", "--seconds=-1", "--seconds=nan"]
)
def test_senseless_numbers_are_refused(benchmark, argument):
    with pytest.raises(CommandError, match="is no (whole )?number of"):
        benchmark(argument)
