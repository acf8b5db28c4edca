"""One contract, the same for every engine; then what is special to a folder and to a server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recognition import vector_store
from recognition.exceptions import VectorStoreLocked, VectorStoreUnavailable
from recognition.vector_store import (
    COLLECTION,
    DEFAULT_PARTITION,
    MilvusVectorStore,
    StoredRow,
    VectorIndex,
    VectorRow,
    get_vector_store,
    partition_name,
    reset_vector_store,
)
from tests.recognition.milvus_server import free_port, lite_server

ROOT = Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(7)


def unit_vectors(count: int) -> np.ndarray:
    vectors = RANDOM.normal(size=(count, 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_row(id_: int, vector: np.ndarray, person: str = "ana", path: str = "a.jpg") -> VectorRow:
    return VectorRow(id_, vector, person, path, "2024-05-01T12:00:00+00:00")


def make_rows(count: int, first: int = 1) -> list[VectorRow]:
    return [make_row(first + n, vector) for n, vector in enumerate(unit_vectors(count))]


def nearest(
    store: MilvusVectorStore, partition: str, vector: np.ndarray, limit: int = 5
) -> list[int]:
    (hits,) = store.search(partition, vector[None], limit)
    return [hit.id for hit in hits]


def ids_in(store: MilvusVectorStore, partition: str) -> list[int]:
    return sorted(row.id for row in store.iterate(partition))


@pytest.fixture(params=["folder", "lite server", "milvus server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "vectors" / "milvus_face.db")
    name = "lite_address" if request.param == "lite server" else "milvus_address"
    return request.getfixturevalue(name)


@pytest.fixture
def store(uri: str) -> Iterator[MilvusVectorStore]:
    """An empty store on each engine in turn."""
    store = MilvusVectorStore(uri)
    store.clear()
    yield store
    store.close()


@pytest.fixture
def folder_store(tmp_path: Path) -> Iterator[MilvusVectorStore]:
    store = MilvusVectorStore(str(tmp_path / "milvus_face.db"))
    yield store
    store.close()


# The contract


def test_search_finds_what_was_just_written(store: MilvusVectorStore) -> None:
    vectors = unit_vectors(30)
    store.upsert("a", [make_row(n, vector) for n, vector in enumerate(vectors)])

    queries = unit_vectors(3)
    found = store.search("a", queries, 10)

    cosines = queries @ vectors.T
    for hits, cosine in zip(found, cosines, strict=True):
        assert [hit.id for hit in hits] == np.argsort(-cosine)[:10].tolist()
        np.testing.assert_allclose(
            [hit.similarity for hit in hits], np.sort(cosine)[::-1][:10], atol=1e-5
        )


def test_upsert_replaces_the_row_of_an_id(store: MilvusVectorStore) -> None:
    old, new, other = unit_vectors(3)
    store.upsert("a", [make_row(1, old, "ana"), make_row(2, other)])
    store.upsert("a", [make_row(1, new, "bia")])

    (hits,) = store.search("a", old[None], 5)
    assert max(hit.similarity for hit in hits) < 0.5
    assert nearest(store, "a", new)[0] == 1
    assert store.row_count() == 2
    assert {row.id: row.person_id for row in store.iterate("a")} == {1: "bia", 2: "ana"}


def test_last_row_of_an_id_wins_within_one_call(store: MilvusVectorStore) -> None:
    first, last = unit_vectors(2)
    store.upsert("a", [make_row(1, first, "ana"), make_row(1, last, "bia")])

    assert list(store.iterate("a")) == [StoredRow(1, "bia", "a.jpg")]
    assert store.search("a", last[None], 5)[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_upsert_sends_more_rows_than_one_batch(
    store: MilvusVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_store, "BATCH_ROWS", 20)
    store.upsert("a", make_rows(50))
    assert ids_in(store, "a") == list(range(1, 51))


def test_deleted_rows_are_gone_from_the_next_search(store: MilvusVectorStore) -> None:
    rows = make_rows(3)
    store.upsert("a", rows)
    store.delete("a", [1, 3, 999])

    assert nearest(store, "a", rows[0].embedding) == [2]
    assert ids_in(store, "a") == [2]
    assert store.row_count() == 1


def test_nothing_is_found_or_deleted_in_an_absent_partition(store: MilvusVectorStore) -> None:
    store.delete("absent", [1])
    store.drop_partition("absent")
    assert store.search("absent", unit_vectors(2), 5) == [[], []]
    assert list(store.iterate("absent")) == []
    assert store.partitions() == []


def test_no_vectors_give_no_answers(store: MilvusVectorStore) -> None:
    assert store.search("a", np.empty((0, 512), np.float32), 5) == []
    store.upsert("a", [])
    store.delete("a", [])
    assert store.row_count() == 0


def test_partitions_never_meet(store: MilvusVectorStore) -> None:
    one, other = make_rows(2)
    store.upsert("a", [one])
    store.upsert("b", [other])

    assert nearest(store, "a", other.embedding) == [1]
    assert nearest(store, "b", other.embedding) == [2]
    assert store.partitions() == ["a", "b"]


def test_dropped_partition_takes_its_rows_along(store: MilvusVectorStore) -> None:
    one, other = make_rows(2)
    store.upsert("a", [one])
    store.upsert("b", [other])
    store.drop_partition("a")

    assert store.partitions() == ["b"]
    assert store.search("a", one.embedding[None], 5) == [[]]
    assert nearest(store, "b", other.embedding) == [2]
    store.upsert("a", [one])
    assert nearest(store, "a", one.embedding) == [1]


def test_id_moves_between_partitions(store: MilvusVectorStore) -> None:
    (row,) = make_rows(1)
    store.upsert("a", [row])
    store.delete("a", [row.id])
    store.upsert("b", [row])

    assert ids_in(store, "a") == []
    assert nearest(store, "b", row.embedding) == [row.id]


def test_iterate_goes_through_every_page(
    store: MilvusVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_store, "PAGE_ROWS", 40)
    store.upsert("a", make_rows(130))
    store.upsert("b", make_rows(5, first=1000))
    assert ids_in(store, "a") == list(range(1, 131))


@pytest.mark.parametrize(
    "person", ["João 😀 da Silva", "😀" * 200, "' or 1 == 1 or '", 'a"\\%_', "line\nbreak", ""]
)
def test_any_text_is_kept_as_it_is(store: MilvusVectorStore, person: str) -> None:
    path = "é" * 4096
    store.upsert("a", [make_row(1, unit_vectors(1)[0], person, path)])
    assert list(store.iterate("a")) == [StoredRow(1, person, path)]


def test_rows_outside_our_partitions_can_be_found_and_deleted(store: MilvusVectorStore) -> None:
    entity = vector_store._as_entity(make_row(5, unit_vectors(1)[0], "stray"))
    store._run(lambda client: client.insert(COLLECTION, [entity]))

    assert list(store.iterate(DEFAULT_PARTITION)) == [StoredRow(5, "stray", "a.jpg")]
    assert store.partitions() == []
    store.delete(DEFAULT_PARTITION, [5])
    assert store.row_count() == 0


def test_clear_leaves_an_empty_store_that_works(store: MilvusVectorStore) -> None:
    rows = make_rows(3)
    store.upsert("a", rows)
    store.clear()

    assert (store.row_count(), store.partitions()) == (0, [])
    store.upsert("a", rows[:1])
    assert nearest(store, "a", rows[0].embedding) == [1]


def test_rows_are_there_after_reopening(store: MilvusVectorStore) -> None:
    rows = make_rows(3)
    store.upsert("a", rows)
    store.delete("a", [2])
    store.close()

    assert nearest(store, "a", rows[0].embedding)[0] == 1
    assert ids_in(store, "a") == [1, 3]


def test_flush_changes_no_answer(store: MilvusVectorStore) -> None:
    rows = make_rows(20)
    store.upsert("a", rows)
    before = store.search("a", rows[0].embedding[None], 20)
    store.flush()
    after = store.search("a", rows[0].embedding[None], 20)
    assert [hit.id for hit in after[0]] == [hit.id for hit in before[0]]


def test_ping_answers_true(store: MilvusVectorStore) -> None:
    assert store.ping() is True


def test_collection_of_another_schema_is_refused_until_cleared(store: MilvusVectorStore) -> None:
    def make_other(client) -> None:
        client.create_collection(COLLECTION, dimension=8, auto_id=True)

    store._run(make_other, prepare=False)
    with pytest.raises(VectorStoreUnavailable, match="reindex --rebuild"):
        store.ping()
    store.clear()
    assert store.row_count() == 0


def test_threads_lose_nothing(store: MilvusVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock Milvus Lite failed 5 of 430 rounds of this."""
    monkeypatch.setattr(vector_store, "FLUSH_ROWS", 16)
    store.ping()

    def rounds(thread: int) -> int:
        found = 0
        for number in range(3):
            rows = make_rows_of(thread, number)
            store.upsert("a", rows)
            found += sum(nearest(store, "a", row.embedding, 1) == [row.id] for row in rows[:2])
            store.delete("a", [rows[2].id])
        return found

    def make_rows_of(thread: int, number: int) -> list[VectorRow]:
        vectors = np.random.default_rng([thread, number]).normal(size=(3, 512))
        first = thread * 1000 + number * 10
        return [make_row(first + n, vector) for n, vector in enumerate(vectors)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(rounds, range(8))) == [6] * 8
    assert store.row_count() == 8 * 3 * 2


@pytest.mark.parametrize("engine", ["lite_address", "milvus_address"])
def test_answered_rows_are_found_by_every_client_at_once(
    request: pytest.FixtureRequest, engine: str
) -> None:
    one, other = (MilvusVectorStore(request.getfixturevalue(engine)) for _client in range(2))
    one.clear()
    for row in make_rows(30):
        one.upsert("a", [row])
        assert nearest(other, "a", row.embedding, 1) == [row.id]
    one.delete("a", [row.id])
    assert row.id not in nearest(other, "a", row.embedding, 30)
    one.close()
    other.close()


@pytest.fixture
def graph_store(uri: str) -> Iterator[MilvusVectorStore]:
    """An empty store with a graph in place of the exact index."""
    store = MilvusVectorStore(uri, index=VectorIndex("HNSW", m=8, ef_construction=64, ef=32))
    store.clear()
    yield store
    store.clear()
    store.close()


def index_kind(store: MilvusVectorStore) -> str:
    return store._run(lambda client: client.describe_index(COLLECTION, "embedding"))["index_type"]


def test_graph_finds_more_than_it_looks_at(graph_store: MilvusVectorStore) -> None:
    """A server refuses to look at fewer candidates than it is to answer."""
    rows = make_rows(300)
    graph_store.upsert("a", rows)
    graph_store.flush()
    graph_store.delete("a", [300])

    assert index_kind(graph_store) == "HNSW"
    assert [nearest(graph_store, "a", row.embedding, 1) for row in rows[:20]] == [
        [row.id] for row in rows[:20]
    ]
    (hits,) = graph_store.search("a", rows[0].embedding[None], 200)
    assert len(hits) > 150


def test_index_of_an_existing_collection_stays_until_rebuilt(
    graph_store: MilvusVectorStore, uri: str
) -> None:
    rows = make_rows(20)
    graph_store.upsert("a", rows)
    graph_store.close()
    exact = MilvusVectorStore(uri)
    assert nearest(exact, "a", rows[3].embedding, 1) == [4]
    assert index_kind(exact) == "HNSW"
    exact.clear()
    exact.upsert("a", rows)
    assert index_kind(exact) != "HNSW"
    assert nearest(exact, "a", rows[3].embedding, 1) == [4]
    exact.close()


# Values


@pytest.mark.parametrize(
    "vector",
    [np.zeros(511, np.float32), np.full(512, np.nan, np.float32), np.full(512, np.inf, np.float32)],
    ids=["short", "nan", "inf"],
)
def test_vectors_that_are_none_are_refused(
    folder_store: MilvusVectorStore, vector: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"finite vectors of shape \(N, 512\)"):
        folder_store.upsert("a", [make_row(1, vector)])
    with pytest.raises(ValueError, match=r"finite vectors of shape \(N, 512\)"):
        folder_store.search("a", vector[None], 5)


def test_text_too_long_for_its_field_is_refused(folder_store: MilvusVectorStore) -> None:
    with pytest.raises(ValueError, match="person_id of row 1 has 804 bytes; at most 800"):
        folder_store.upsert("a", [make_row(1, unit_vectors(1)[0], "😀" * 201)])


def test_partition_is_named_after_model_and_weights() -> None:
    names = {
        partition_name(model, weights)
        for model in ("mobilenetv3_large", "cosface_resnet50")
        for weights in ("0e48f8e1", "ffffffff")
    }
    assert len(names) == 4


@pytest.mark.parametrize(("model", "weights"), [("a b", "0"), ("a", "x/../y"), ("a", "0" * 255)])
def test_impossible_partition_names_are_refused(model: str, weights: str) -> None:
    with pytest.raises(ValueError, match="cannot name a partition"):
        partition_name(model, weights)


# A folder


def test_folder_and_its_parents_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "milvus_face.db"
    store = MilvusVectorStore(str(folder))
    store.ping()
    store.close()
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder.parent)] == ["0o700"] * 2


def test_many_small_writes_are_flushed_by_themselves(
    folder_store: MilvusVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_store, "FLUSH_ROWS", 10)
    for row in make_rows(9):
        folder_store.upsert("a", [row])
    assert not list(tmp_path.rglob("data_*.parquet"))
    folder_store.upsert("a", make_rows(1, first=10))
    assert list(tmp_path.rglob("data_*.parquet"))


def test_bulk_is_flushed_seldom_and_at_its_end(
    folder_store: MilvusVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_store, "BATCH_ROWS", 10)
    monkeypatch.setattr(vector_store, "FLUSH_ROWS", 5)
    monkeypatch.setattr(vector_store, "BULK_FLUSH_ROWS", 40)
    folder_store.ping()
    flushes = []
    flush = folder_store._flush

    def counted(client: object) -> None:
        flushes.append(folder_store._unflushed)
        flush(client)

    monkeypatch.setattr(folder_store, "_flush", counted)
    folder_store.upsert("a", make_rows(100))
    assert flushes == [40, 40, 20]
    assert folder_store._unflushed == 0


def test_exact_search_has_the_quick_index(folder_store: MilvusVectorStore) -> None:
    """FLAT of Milvus Lite took 104 ms among 20,000, one cell of IVF_FLAT 15 ms; both are exact."""
    folder_store.upsert("a", make_rows(10))
    description = folder_store._run(lambda client: client.describe_index(COLLECTION, "embedding"))
    assert (description["index_type"], description["params"]) == ("IVF_FLAT", {"nlist": 1})


def test_folder_open_elsewhere_is_named_as_locked(
    folder_store: MilvusVectorStore, tmp_path: Path
) -> None:
    from milvus_lite import MilvusLite

    elsewhere = MilvusLite(str(tmp_path / "milvus_face.db"))
    with pytest.raises(VectorStoreLocked, match="open in another process") as caught:
        folder_store.ping()
    assert str(tmp_path) not in str(caught.value)

    elsewhere.close()
    assert folder_store.ping()


def test_file_in_place_of_the_folder_is_explained(
    folder_store: MilvusVectorStore, tmp_path: Path
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
    folder_store: MilvusVectorStore, tmp_path: Path, damaged: str, damage: Callable[[Path], None]
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


def test_socket_folders_of_killed_processes_are_removed(
    folder_store: MilvusVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(sockets))
    folder_store.ping()
    (used,) = sockets.iterdir()
    stale, fresh = sockets / "vectors-stale", sockets / "vectors-fresh"
    for folder in stale, fresh:
        folder.mkdir()
        (folder / "milvus").touch()
    for folder in stale, used:
        os.utime(folder, (1e9, 1e9))

    other = MilvusVectorStore(str(tmp_path / "other.db"))
    other.ping()
    names = set(sockets.iterdir())
    assert {used, fresh} < names
    assert stale not in names

    other.close()
    folder_store.close()
    assert list(sockets.iterdir()) == [fresh]


UPSERT_FOREVER = """
import sys, django; django.setup()
import numpy as np
from recognition.vector_store import MilvusVectorStore, VectorRow
assert "pymilvus" not in sys.modules, "importing the store must not import pymilvus"
store = MilvusVectorStore(sys.argv[1])
for number in range(100_000):
    vector = np.random.default_rng(number).normal(size=512).astype(np.float32)
    store.upsert("a", [VectorRow(number, vector, "ana", "a.jpg", "2024")])
    print(number, flush=True)
"""


def test_answered_rows_survive_a_killed_process(
    folder_store: MilvusVectorStore, tmp_path: Path
) -> None:
    """Also: `MILVUS_URI` as a path in the environment, which pymilvus would refuse on import."""
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


# A server


@pytest.mark.parametrize(
    ("asked", "told"), [("0", "1 skipped"), ("1", "1 error")], ids=["there", "asked for"]
)
def test_milvus_that_does_not_start_is_told(tmp_path: Path, asked: str, told: str) -> None:
    program = tmp_path / "bin" / "milvus-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no free memory\nexit 3\n")
    program.chmod(0o700)
    one = f"{__file__}::test_ping_answers_true[milvus server]"
    output = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", one],
        env=os.environ | {"MILVUS_SERVER_VENV": str(tmp_path), "TEST_MILVUS_SERVER": asked},
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    assert told in output
    assert "did not get ready" in output
    assert "no free memory" in output


def test_nothing_listening_fails_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    store = MilvusVectorStore(f"http://127.0.0.1:{free_port()}", timeout=30)
    _assert_unavailable_within(5, store.ping)
    assert "Traceback" not in capfd.readouterr().err


def test_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        _assert_unavailable_within(5, MilvusVectorStore(address, timeout=0.5).ping)


def _assert_unavailable_within(seconds: float, call: Callable[[], object]) -> None:
    failure: list[BaseException] = []

    def attempt() -> None:
        with pytest.raises(VectorStoreUnavailable, match="Milvus server") as caught:
            call()
        failure.append(caught.value)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert failure, f"still waiting after {seconds} s"
    assert "127.0.0.1" not in str(failure[0])


def test_store_reconnects_after_an_outage(tmp_path: Path) -> None:
    port = free_port()
    rows = make_rows(2)
    with lite_server(tmp_path, port) as address:
        store = MilvusVectorStore(address, timeout=5)
        store.upsert("a", rows[:1])
    with pytest.raises(VectorStoreUnavailable, match="reindex"):
        store.upsert("a", rows[1:])
    with lite_server(tmp_path, port):
        store.upsert("a", rows[1:])
        assert ids_in(store, "a") == [1, 2]
    store.close()


def test_collection_rebuilt_by_another_client_is_noticed(lite_address: str) -> None:
    store, other = MilvusVectorStore(lite_address), MilvusVectorStore(lite_address)
    store.upsert("a", make_rows(1))
    other.clear()
    other.upsert("b", make_rows(1, first=7))

    assert ids_in(store, "b") == [7]
    other.clear()
    store.upsert("a", make_rows(1))
    assert store.row_count() == 1
    store.close()
    other.close()


# One store a process


def test_store_is_shared_until_settings_change(settings, tmp_path: Path) -> None:
    first = get_vector_store()
    assert get_vector_store() is first
    first.upsert("a", make_rows(1))

    other = str(tmp_path / "other.db")
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_URI": other}
    second = get_vector_store()
    assert second is not first
    assert second.row_count() == 0


def test_settings_choose_the_index(settings) -> None:
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_INDEX": "HNSW", "MILVUS_HNSW_M": 8}
    get_vector_store().upsert("a", make_rows(10))
    description = get_vector_store()._run(
        lambda client: client.describe_index(COLLECTION, "embedding")
    )
    assert description["index_type"] == "HNSW"
    assert description["params"] == {"M": 8, "efConstruction": 200}


def test_reset_lets_go_of_the_folder(settings) -> None:
    get_vector_store().upsert("a", make_rows(1))
    reset_vector_store()
    other = MilvusVectorStore(settings.RECOGNITION["MILVUS_URI"])
    assert other.row_count() == 1
    other.close()
