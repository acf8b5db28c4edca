"""The load of `script/chaos --clients`, for some seconds."""

from __future__ import annotations

from pathlib import Path

from tests.load import load_server

CLIENTS, SECONDS = 8, 3.0


def test_many_clients_meet_no_error_and_lose_nothing(tmp_path: Path) -> None:
    load = load_server(CLIENTS, SECONDS, tmp_path / "data")
    assert dict(load.unexpected) == {}
    assert not load.failed, load.figures
    assert min(load.promises.answers[call] for call in ("insert again", "search", "delete")) > 0
    assert load.promises.paths and load.promises.deleted and load.promises.former
