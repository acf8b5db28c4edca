"""The embedded store: file permissions, flushes, locks and damaged files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recognition.exceptions import VectorStoreLocked, VectorStoreUnavailable
from recognition.vector_store import COLLECTION, LiteVectorStore, base, lite
from tests.recognition.vector_store.helpers import (
    ids_in,
    index_at,
    make_row,
    make_rows,
    nearest,
    unit_vectors,
)

ROOT = Path(__file__).resolve().parents[3]


def test_folder_and_its_parents_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "milvus_face.db"
    store = LiteVectorStore(folder)
    store.ping()
    store.close()
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder.parent)] == ["0o700"] * 2


def test_many_small_writes_are_flushed_by_themselves(
    folder_store: LiteVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FLUSH_ROWS", 10)
    for row in make_rows(9):
        folder_store.upsert("a", [row])
    assert not list(tmp_path.rglob("data_*.parquet"))
    folder_store.upsert("a", make_rows(1, first=10))
    assert list(tmp_path.rglob("data_*.parquet"))


def test_bulk_goes_into_few_files_at_once(
    folder_store: LiteVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FILE_ROWS", 40)
    monkeypatch.setattr(base, "FLUSH_ROWS", 5)
    folder_store.upsert("a", make_rows(100))
    assert len(list(tmp_path.rglob("data_*.parquet"))) == 3
    assert not list(tmp_path.rglob("wal_data_*"))
    assert folder_store._unflushed == 0


@pytest.mark.parametrize(
    "memory", [0, lite.MEMORY_BYTES], ids=["searched by Milvus Lite", "in memory"]
)
def test_bulk_is_stored_like_single_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, memory: int
) -> None:
    """Over rows that are not flushed, flushed, deleted; replaced and deleted afterwards; read again."""
    monkeypatch.setattr(base, "FLUSH_ROWS", 8)
    store = LiteVectorStore(tmp_path / "milvus_face.db", memory=memory)
    vectors = unit_vectors(30)
    store.upsert("a", [make_row(n, vectors[n], "old") for n in range(1, 4)])
    store.flush()
    store.upsert("a", [make_row(n, vectors[n], "old") for n in range(3, 7)])
    nearest(store, "a", vectors[1])  # loads what is kept in memory
    store.delete("a", [2, 5])
    store.upsert("a", [make_row(n, vectors[10 + n], "É", "ç.jpg") for n in range(1, 11)])
    store.upsert("a", [make_row(4, vectors[24], "new")])
    store.delete("a", [6])
    for _reopened in range(2):
        here = {row.id: (row.person_id, row.image_path) for row in store.iterate("a")}
        bulk = dict.fromkeys({*range(1, 11)} - {6}, ("É", "ç.jpg"))
        assert here == bulk | {4: ("new", "a.jpg")}
        assert store.row_count() == 9
        for n in bulk:
            expected = vectors[24 if n == 4 else 10 + n]
            (hits,) = store.search("a", expected[None], 1)
            assert (hits[0].id, round(hits[0].similarity, 5)) == (n, 1)
        assert store.compare_memory()
        store.close()
    assert not caplog.records  # Milvus Lite merged the files by itself


def test_bulk_that_a_crash_cut_off_is_gone_and_can_be_written_again(
    folder_store: LiteVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FLUSH_ROWS", 8)
    folder_store.upsert("a", make_rows(3))
    folder_store.flush()
    with monkeypatch.context() as crash, pytest.raises(VectorStoreUnavailable):
        crash.setattr(folder_store._collection._manifest, "save", _no_space)
        folder_store.upsert("a", make_rows(20, first=10))
    assert len(list(tmp_path.rglob("data_*.parquet"))) == 2
    folder_store.close()
    assert ids_in(folder_store, "a") == [1, 2, 3]
    assert len(list(tmp_path.rglob("data_*.parquet"))) == 1
    folder_store.upsert("a", make_rows(20, first=10))
    assert ids_in(folder_store, "a") == [1, 2, 3, *range(10, 30)]


def _no_space() -> None:
    raise OSError("No space left on device")


def test_a_start_on_a_full_disk_searches_all(
    folder_store: LiteVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(3)
    folder_store.upsert("a", rows)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("milvus_lite.engine.flush.write_data_file", full)
        folder_store.close()
        assert nearest(folder_store, "a", rows[1].embedding, 1) == [2]
    folder_store.delete("a", [3])  # flushes what waits
    assert folder_store._unflushed == 0 and ids_in(folder_store, "a") == [1, 2]


@pytest.mark.parametrize("fails", ["write_data_file", "write_delta_file"])
def test_rows_outlive_a_flush_that_failed(
    folder_store: LiteVectorStore, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """On a full disk rows that were answered, and deletions, were gone after the next flush."""
    folder_store.upsert("a", make_rows(9))
    folder_store.flush()
    folder_store.upsert("a", make_rows(2, first=20))
    folder_store.delete("a", [1, 20])

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(f"milvus_lite.engine.flush.{fails}", full)
        for _try in range(2):
            with pytest.raises(VectorStoreUnavailable):
                folder_store.flush()
        folder_store.upsert("a", make_rows(1, first=30))
    left = [*range(2, 10), 21, 30]
    assert ids_in(folder_store, "a") == left
    folder_store.flush()
    assert ids_in(folder_store, "a") == left
    folder_store.close()
    assert ids_in(folder_store, "a") == left and folder_store.compare_memory()


def test_exact_search_has_the_quick_index(folder_store: LiteVectorStore, tmp_path: Path) -> None:
    """Among 20,000 vectors Milvus Lite's FLAT took 31 ms and IVF_FLAT with one cell 10 ms; both are
    exact."""
    folder_store.upsert("a", make_rows(10))
    folder_store.close()
    assert index_at(str(tmp_path / "milvus_face.db")) == ("IVF_FLAT", {"nlist": 1})


def test_few_vectors_are_indexed_without_a_word(
    folder_store: LiteVectorStore, capfd: pytest.CaptureFixture[str]
) -> None:
    """FAISS warns of cells with fewer than 39 vectors, which is meaningless for a single cell."""
    folder_store.upsert("a", make_rows(5))
    folder_store.close()  # Milvus Lite waits here for the index, which it builds in the background
    assert capfd.readouterr() == ("", "")
    faiss = pytest.importorskip("faiss")
    faiss.IndexIVFFlat.__base__(faiss.IndexFlat(512), 512, 1).train(unit_vectors(5))
    assert "WARNING" in capfd.readouterr().err, "FAISS is quiet by itself: the patch can go"


def test_an_index_file_is_whole_or_absent(
    folder_store: LiteVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milvus Lite reads any index file that is there, while its own thread may still write it."""
    folder_store.ping()
    faiss = pytest.importorskip("faiss")
    assert faiss.write_index.__qualname__ == "whole_files.<locals>.write_whole"
    written = []

    def watched(index: object, path: str) -> None:
        written.append(Path(path))
        faiss.swigfaiss.write_index(index, path)

    monkeypatch.setitem(vars(faiss), "write_index", lite.whole_files(watched))
    folder_store.upsert("a", make_rows(5))
    folder_store.close()  # Milvus Lite waits here for the index
    assert [path.name.endswith(lite.PARTIAL) for path in written] == [True]
    assert [path.suffix for path in tmp_path.rglob("*.idx*")] == [".idx"]


def test_an_index_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def breaks_off(_index: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        lite.whole_files(breaks_off)(None, str(tmp_path / "b.idx"))
    assert not list(tmp_path.iterdir())


def test_what_a_crash_left_of_an_index_is_removed(
    folder_store: LiteVectorStore, tmp_path: Path
) -> None:
    folder_store.upsert("a", make_rows(5))
    folder_store.close()
    (index,) = tmp_path.rglob("*.idx")
    left = index.with_name(f"tmp1{lite.PARTIAL}")
    left.write_bytes(index.read_bytes()[:100])
    assert folder_store.row_count() == 5
    assert not left.exists()


def test_folder_open_elsewhere_is_named_as_locked(
    folder_store: LiteVectorStore, tmp_path: Path
) -> None:
    from milvus_lite import MilvusLite

    elsewhere = MilvusLite(str(tmp_path / "milvus_face.db"))
    with pytest.raises(VectorStoreLocked, match="open in another process") as caught:
        folder_store.ping()
    assert str(tmp_path) not in str(caught.value)

    elsewhere.close()
    assert folder_store.ping()


def test_file_in_place_of_the_folder_is_explained(
    folder_store: LiteVectorStore, tmp_path: Path
) -> None:
    (tmp_path / "milvus_face.db").write_bytes(b"SQLite format 3\0")
    with pytest.raises(VectorStoreUnavailable, match="Move the file away") as caught:
        folder_store.ping()
    assert str(tmp_path) not in str(caught.value)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damaged", "damage"),
    [
        ("schema.json", cut_short),
        ("schema.json", Path.unlink),
        ("partitions/a/data/*.parquet", cut_short),
        ("partitions/a/indexes/*.idx", cut_short),
    ],
)
def test_damaged_folder_is_refused_until_cleared(
    folder_store: LiteVectorStore, tmp_path: Path, damaged: str, damage: Callable[[Path], None]
) -> None:
    folder_store.upsert("a", make_rows(3))
    folder_store.flush()
    folder_store.close()
    (path,) = (tmp_path / "milvus_face.db" / "collections" / COLLECTION).glob(damaged)
    damage(path)
    with pytest.raises(VectorStoreUnavailable, match="reindex --rebuild") as caught:
        folder_store.ping()
    assert str(tmp_path) not in str(caught.value)

    folder_store.clear()
    folder_store.upsert("a", make_rows(2))
    assert ids_in(folder_store, "a") == [1, 2]


UPSERT_FOREVER = """
import sys, django; django.setup()
import numpy as np
from recognition.vector_store import LiteVectorStore, VectorRow
assert "milvus_lite" not in sys.modules, "importing the store must not import its engine"
store = LiteVectorStore(sys.argv[1])
store.ping()
assert "pymilvus" not in sys.modules, "a folder does without pymilvus"
for number in range(100_000):
    vector = np.random.default_rng(number).normal(size=512).astype(np.float32)
    store.upsert("a", [VectorRow(number, vector, "ana", "a.jpg", "2024")])
    print(number, flush=True)
"""


def test_answered_rows_survive_a_killed_process(
    folder_store: LiteVectorStore, tmp_path: Path
) -> None:
    folder = str(tmp_path / "milvus_face.db")
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "MILVUS_URI": folder}
    command = [sys.executable, "-c", UPSERT_FOREVER, folder]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        answered = [int(process.stdout.readline()) for _line in range(150)]
        process.send_signal(signal.SIGKILL)

    assert set(answered) <= set(ids_in(folder_store, "a"))
    vector = np.random.default_rng(149).normal(size=512).astype(np.float32)
    assert nearest(folder_store, "a", vector)[0] == 149


def test_rows_whose_erasure_failed_are_in_no_file_after_the_next(
    folder_store: LiteVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of files could not be written on a full disk, and the old file stayed."""
    rows = make_rows(3)
    folder_store.upsert("a", rows)
    folder_store.flush()
    folder_store.delete("a", [2])
    folder_store.flush()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("milvus_lite.storage.manifest.Manifest.save", full)
        with pytest.raises(VectorStoreUnavailable):
            folder_store.erase("a", [2])
    folder_store.erase("a", [2])
    folder_store.close()
    assert ids_in(folder_store, "a") == [1, 3]  # opened again, which removes files of no list
    for file in tmp_path.rglob("data_*.parquet"):
        assert rows[1].embedding.tobytes() not in file.read_bytes()


def test_erased_rows_are_in_no_file(folder_store: LiteVectorStore, tmp_path: Path) -> None:
    """Milvus Lite keeps deleted rows in its files until it merges four files of a similar size."""
    first = [make_row(n, v, f"person-{n}") for n, v in enumerate(unit_vectors(20), 1)]
    second = [make_row(n, v, f"person-{n}") for n, v in enumerate(unit_vectors(20), 21)]
    for rows in (first, second):
        folder_store.upsert("m_f", rows)
        folder_store.flush()
    folder_store.upsert("m_f", [make_row(3, first[2].embedding, "renamed-3")])
    folder_store.delete("m_f", [3, 7])

    def in_files(text: bytes) -> bool:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return any(text in path.read_bytes() for path in files)

    assert in_files(first[2].embedding.tobytes())
    folder_store.erase("m_f", [3, 7])
    for row in (first[2], first[6]):
        assert not in_files(row.embedding.tobytes()) and not in_files(row.person_id.encode())
    assert not in_files(b"renamed-3")
    assert ids_in(folder_store, "m_f") == sorted({*range(1, 41)} - {3, 7})
    assert nearest(folder_store, "m_f", second[0].embedding, 1) == [21]
    folder_store.close()
    assert folder_store.row_count() == 38
    assert nearest(folder_store, "m_f", first[0].embedding, 1) == [1]
