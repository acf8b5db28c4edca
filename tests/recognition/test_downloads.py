"""fetch_weights against a local server that fails in every usual way."""

from __future__ import annotations

import argparse
import hashlib
import re
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from recognition.downloads import CHUNK_BYTES, install
from recognition.embedding import embed_crops
from recognition.extras import EXTRAS
from recognition.networks import PublishedWeights, find_weights

MODEL = "mobilenetv3_large"
NO_HASH = "0" * 64


@dataclass
class Publisher:
    """The server's behaviour: answer n ends after `cuts[n]` bytes, later ones are complete."""

    content: bytes
    cuts: list[int] = field(default_factory=list)
    extra_length: int = 0
    status: int = 200
    ranges: bool = True
    redirect: str = ""
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        start = (
            int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        )
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else self.status)
        if self.redirect:
            handler.send_header("Location", self.redirect)
        if start:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body) + self.extra_length))
        handler.end_headers()
        handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    """A training checkpoint in the usual form: nested under a key, with `module.` and a Namespace."""
    import torch
    from safetensors.torch import load_file

    bundled = Path(__file__).parents[2] / "weights" / f"{MODEL}.safetensors"
    state = {f"module.{key}": value for key, value in load_file(bundled).items()}
    path = tmp_path_factory.mktemp("published") / "checkpoint.pth"
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, path)
    return path.read_bytes()


@pytest.fixture
def publisher(checkpoint):
    """A publisher on loopback; its fields make it fail."""
    state = Publisher(checkpoint)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/checkpoint.pth"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(settings, tmp_path):
    """An empty weights folder."""
    settings.RECOGNITION = {**settings.RECOGNITION, "WEIGHTS_DIR": tmp_path / "weights"}
    return tmp_path / "weights"


def fetch(publisher: Publisher, **options: str) -> None:
    """Fetch what the publisher offers, by the hash of that unless another one is given."""
    known = {"url": publisher.url, "sha256": hashlib.sha256(publisher.content).hexdigest()}
    call_command("fetch_weights", MODEL, no_progress=True, **known | options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_installed_checkpoint_is_the_one_published(publisher, folder, checkpoint, capsys):
    fetch(publisher)
    assert names(folder) == [f"{MODEL}.ckpt"]
    assert find_weights(MODEL).path.read_bytes() == checkpoint
    assert hashlib.sha256(checkpoint).hexdigest() in capsys.readouterr().out


def test_installed_checkpoint_embeds(publisher, folder, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"NETWORK_RUNTIME": "torch"}
    fetch(publisher)
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    vectors = embed_crops([crop], MODEL).vectors
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_broken_download_goes_on_where_it_stopped(publisher, folder, checkpoint):
    publisher.cuts = [2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
    fetch(publisher)
    assert publisher.asked == [None, f"bytes={2 * CHUNK_BYTES}-", f"bytes={5 * CHUNK_BYTES}-"]
    assert find_weights(MODEL).path.read_bytes() == checkpoint


def test_second_command_does_not_write_into_the_download_of_the_first(
    publisher, folder, checkpoint
):
    """Both appended to one file, the slower one even after the hash had been verified."""
    hash_of = hashlib.sha256(checkpoint).hexdigest()

    def while_it_is_checked(partial: Path) -> None:
        with pytest.raises(CommandError):
            fetch(publisher)
        assert partial.read_bytes() == checkpoint

    target = folder / f"{MODEL}.ckpt"
    install(publisher.url, target, sha256=hash_of, check=while_it_is_checked)
    assert names(folder) == [target.name]
    assert publisher.asked == [None]


def test_later_run_goes_on_with_what_came(publisher, folder, checkpoint):
    publisher.cuts = [2 * CHUNK_BYTES, 1, 1, 1]
    with pytest.raises(CommandError):
        fetch(publisher)
    fetch(publisher)
    assert publisher.asked[-1] == f"bytes={2 * CHUNK_BYTES}-"
    assert find_weights(MODEL).path.read_bytes() == checkpoint


def test_server_without_ranges_starts_over(publisher, folder, checkpoint):
    publisher.ranges = False
    publisher.cuts = [100_000]
    fetch(publisher)
    assert find_weights(MODEL).path.read_bytes() == checkpoint


@pytest.mark.parametrize(
    ("misbehaviour", "said"),
    [
        pytest.param({"extra_length": 5}, "could not be downloaded", id="lies about its length"),
        pytest.param({"content": b"<html>Sign in</html>"}, "does not hold the model", id="html"),
        pytest.param({"status": 404}, "answered 404", id="missing"),
        pytest.param({"status": 503}, "could not be downloaded", id="unavailable"),
    ],
)
def test_failed_download_leaves_the_old_file(publisher, folder, misbehaviour, said, capsys):
    folder.mkdir()
    (folder / f"{MODEL}.ckpt").write_bytes(b"the old one")
    for name, value in misbehaviour.items():
        setattr(publisher, name, value)
    with pytest.raises(CommandError, match="1 of 1 checkpoints were not installed"):
        fetch(publisher)
    assert said in capsys.readouterr().err
    assert (folder / f"{MODEL}.ckpt").read_bytes() == b"the old one"


def test_wrong_hash_is_thrown_away(publisher, folder, capsys):
    with pytest.raises(CommandError):
        fetch(publisher, sha256=NO_HASH)
    assert NO_HASH in capsys.readouterr().err
    assert names(folder) == []


def test_pinned_hash_lets_its_file_in(publisher, folder, checkpoint):
    fetch(publisher, sha256=hashlib.sha256(checkpoint).hexdigest().upper())
    assert names(folder) == [f"{MODEL}.ckpt"]


def test_nobody_answers(folder, capsys):
    with pytest.raises(CommandError):
        call_command(
            "fetch_weights", MODEL, url="http://127.0.0.1:9/none", sha256=NO_HASH, no_progress=True
        )
    assert "could not be downloaded" in capsys.readouterr().err


@pytest.mark.parametrize("redirected", [False, True])
def test_plain_http_is_refused_even_after_a_redirect(publisher, folder, redirected, capsys):
    url = "http://weights.example/model.pth"
    if redirected:
        publisher.status, publisher.redirect, url = 302, url, publisher.url
    with pytest.raises(CommandError):
        call_command("fetch_weights", MODEL, url=url, sha256=NO_HASH, no_progress=True)
    assert "http://weights.example/model.pth is not HTTPS" in capsys.readouterr().err
    assert names(folder) == []


@pytest.mark.parametrize("given", ["url", "sha256"])
def test_nothing_is_fetched_without_a_hash(publisher, folder, given):
    half = {"url": {"url": publisher.url}, "sha256": {"sha256": NO_HASH}}[given]
    with pytest.raises(CommandError, match="nothing is fetched without one"):
        call_command("fetch_weights", MODEL, no_progress=True, **half)
    with pytest.raises(CommandError, match="nothing is fetched without one"):
        call_command("fetch_weights", MODEL, no_progress=True)
    assert publisher.asked == [] and not folder.exists()


def published_files() -> list[PublishedWeights]:
    return [item for extra in EXTRAS.values() for item in extra.published.values()]


@pytest.mark.parametrize("published", published_files(), ids=lambda item: item.url)
def test_every_published_file_is_https_and_pinned(published, folder, capsys):
    assert published.url.startswith("https://") and published.licence
    assert re.fullmatch(r"[0-9a-f]{64}", published.sha256)
    call_command("fetch_weights", list=True)
    lines = capsys.readouterr().out.splitlines()
    place = next(n for n, line in enumerate(lines) if line.endswith(published.url))
    assert lines[place + 1].split() == ["SHA-256", published.sha256]
    assert str(published.gives) in lines[place - 3] and str(published.costs) in lines[place - 2]


@pytest.fixture
def detector(publisher, monkeypatch):
    """YuNet as published by the loopback server."""
    publisher.content = b"a detector"
    digest = hashlib.sha256(publisher.content).hexdigest()
    item = replace(published_files()[-1], name="here", url=publisher.url, sha256=digest)
    extra = replace(EXTRAS["yunet"], published={"yunet_n_dynamic.onnx": item})
    monkeypatch.setitem(EXTRAS, "yunet", extra)
    return publisher


def test_extra_is_installed_and_verified(detector, folder, capsys):
    call_command("fetch_weights", "yunet", no_progress=True)
    assert names(folder) == ["yunet_n_dynamic.onnx"]
    assert "reindex" not in capsys.readouterr().out
    call_command("verify_weights", "yunet")
    assert "yes, as published" in capsys.readouterr().out
    (folder / "yunet_n_dynamic.onnx").write_bytes(b"another")
    with pytest.raises(CommandError, match="1 weights file does not load"):
        call_command("verify_weights")
    assert "NO: the published file has SHA-256" in capsys.readouterr().out


def test_extra_with_another_hash_is_thrown_away(detector, folder):
    detector.content = b"a detector with something in it"
    with pytest.raises(CommandError, match="1 of 1 checkpoints were not installed"):
        call_command("fetch_weights", "yunet", no_progress=True)
    assert names(folder) == []


def test_hash_belongs_to_one_file(folder):
    with pytest.raises(CommandError, match="for the checkpoint of a model"):
        call_command("fetch_weights", "liveness", sha256=NO_HASH, no_progress=True)
