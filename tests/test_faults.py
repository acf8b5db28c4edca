"""The faults of `script/chaos --faults` that take seconds; that script runs the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import Promises
from tests.faults import (
    Impossible,
    disk_full,
    small_gallery,
    store_damaged,
    store_set_back,
    try_fault,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, _converted: None) -> tuple[Path, Promises]:
    folder = tmp_path_factory.mktemp("faults") / "base"
    return folder, small_gallery(folder)


@pytest.mark.parametrize(
    ("fault", "seen", "named", "command"),
    [
        (
            store_damaged,
            {"search 503", "0 of 5 found"},
            {"the database cannot be opened"},
            "reindex --rebuild",
        ),
        (
            store_set_back,
            {"search 200", "5 of 5 found"},
            {
                "2 embeddings missing in Milvus (before the start)",
                # The server removes them by itself where their removal was still noted.
                "2 vectors in Milvus that no embedding accounts for (before the start)",
            },
            "reindex",
        ),
        (
            disk_full,
            {"insert 503", "delete 503", "search 200", "insert with space again 200"},
            set(),
            "reindex|none",  # no part of a picture stays; the server may have mended the rest itself
        ),
    ],
)
def test_fault_is_told_plainly_named_and_mended(base, tmp_path, fault, seen, named, command):
    folder, promises = base
    try:
        trial = try_fault(fault, folder, tmp_path, promises)
    except Impossible as error:
        pytest.skip(str(error))
    assert trial.wrong == []
    assert seen <= set(trial.seen)
    assert named <= set(trial.named)
    assert trial.command in command.split("|")
