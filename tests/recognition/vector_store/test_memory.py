"""The vectors in memory: what they answer, and that they follow what is stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recognition.exceptions import VectorStoreUnavailable
from recognition.vector_store import LiteVectorStore, VectorIndex, resident
from recognition.vector_store.resident import ResidentVectors
from tests.recognition.vector_store.helpers import (
    ids_in,
    make_row,
    make_rows,
    nearest,
    unit_vectors,
)

SAME = 1e-6  # difference of two cosines that rounding makes


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLOCK_ROWS", "TIDY_ROWS", "_COPIED_ROWS"):
        monkeypatch.setattr(resident, name, 16)


@pytest.fixture
def engine_store(tmp_path: Path) -> Iterator[LiteVectorStore]:
    """One that keeps nothing in memory: Milvus Lite itself searches."""
    store = LiteVectorStore(tmp_path / "engine.db", memory=0)
    yield store
    store.close()


def same_answers(one: LiteVectorStore, other: LiteVectorStore, queries: np.ndarray) -> None:
    for limit in (1, 7, 200):
        for hits, expected in zip(
            one.search("a", queries, limit), other.search("a", queries, limit), strict=True
        ):
            similarity = {hit.id: hit.similarity for hit in expected}
            for hit, other_hit in zip(hits, expected, strict=True):  # equals come in any order
                tie = abs(similarity.get(hit.id, 0) - other_hit.similarity) < SAME
                assert hit.id == other_hit.id or tie
            np.testing.assert_allclose(
                [hit.similarity for hit in hits], [hit.similarity for hit in expected], atol=SAME
            )


@pytest.mark.usefixtures("small_blocks")
def test_answers_are_those_of_milvus_lite(
    folder_store: LiteVectorStore, engine_store: LiteVectorStore
) -> None:
    chance = np.random.default_rng(3)
    queries = unit_vectors(5)
    for _round in range(8):
        ids = chance.choice(90, 30, False).tolist()
        rows = [make_row(n, vector) for n, vector in zip(ids, unit_vectors(30), strict=True)]
        gone = chance.choice(90, 12, False).tolist()
        for store in (folder_store, engine_store):
            store.upsert("a", rows)
            store.delete("a", gone)
        same_answers(folder_store, engine_store, queries)
    assert (folder_store.searched_in, engine_store.searched_in) == ("memory", "milvus_lite")
    assert folder_store.compare_memory()


def test_equally_near_rows_come_by_id(folder_store: LiteVectorStore) -> None:
    """Whatever others ask at the same time, which changes how the products are rounded."""
    same, *others = unit_vectors(60)
    rows = [make_row(n, same) for n in (9, 3, 70, 5)]
    folder_store.upsert("a", [*(make_row(100 + n, v) for n, v in enumerate(others)), *rows])
    assert nearest(folder_store, "a", same, 4) == [3, 5, 9, 70]
    for hits in folder_store.search("a", np.stack([same] * 33), 2):
        assert [hit.id for hit in hits] == [3, 5]


@pytest.mark.usefixtures("small_blocks")
def test_memory_holds_what_is_stored(folder_store: LiteVectorStore) -> None:
    """Out of files, out of the log, replaced, deleted before and after a flush, and read again."""
    rows = make_rows(60)
    folder_store.upsert("a", rows[:40])
    folder_store.upsert("other", [make_row(900, rows[0].embedding)])
    folder_store.flush()
    folder_store.delete("a", range(1, 6))
    folder_store.upsert("a", [make_row(7, rows[59].embedding), *rows[40:59]])
    folder_store.delete("a", [41, 8])
    stored = sorted({*range(6, 60)} - {41, 8})

    assert sorted(nearest(folder_store, "a", rows[0].embedding, 100)) == stored  # read now
    assert nearest(folder_store, "a", rows[59].embedding, 1) == [7]
    assert folder_store.compare_memory()
    folder_store.delete("a", range(10, 40))
    folder_store.upsert("a", rows[20:30])
    folder_store.erase("a", range(10, 40))
    assert folder_store.compare_memory()
    stored = sorted({*stored} - {*range(10, 40)} | {*range(21, 31)})
    assert ids_in(folder_store, "a") == stored
    folder_store.close()
    assert sorted(nearest(folder_store, "a", rows[0].embedding, 100)) == stored
    assert folder_store.compare_memory()


def test_memory_follows_many_threads(folder_store: LiteVectorStore) -> None:
    """What stays is found by every search meanwhile, what was deleted by none after it."""
    stays = make_rows(20, first=10_000)
    folder_store.upsert("a", stays)
    wrong: list[str] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            found = folder_store.search("a", np.stack([row.embedding for row in stays]), 1)
            if [hits[0].id for hits in found] != [row.id for row in stays]:
                wrong.append("a row that stays was not found")

    def write(thread: int) -> None:
        chance = np.random.default_rng(thread)
        for number in range(30):
            first = thread * 1000 + number * 10
            vectors = chance.normal(size=(5, 512)).astype(np.float32)
            folder_store.upsert("a", [make_row(first + n, v) for n, v in enumerate(vectors)])
            folder_store.upsert("a", stays[thread : thread + 3])  # the same again
            if nearest(folder_store, "a", vectors[1], 1) != [first + 1]:
                wrong.append("a row that was written was not found")
            folder_store.delete("a", [first + 1])
            if first + 1 in nearest(folder_store, "a", vectors[1], 3):
                wrong.append("a row that was deleted was found")

    searchers = [threading.Thread(target=search) for _number in range(3)]
    for thread in searchers:
        thread.start()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    stop.set()
    for thread in searchers:
        thread.join()
    assert wrong == []
    assert folder_store.compare_memory()
    assert len(ids_in(folder_store, "a")) == 20 + 6 * 30 * 4


def test_search_does_not_wait_for_who_writes(folder_store: LiteVectorStore) -> None:
    rows = make_rows(3)
    folder_store.upsert("a", rows)
    nearest(folder_store, "a", rows[0].embedding)
    with folder_store._lock, ThreadPoolExecutor(1) as pool:  # as a flush holds it
        found = pool.submit(nearest, folder_store, "a", rows[0].embedding, 1).result(timeout=60)
    assert found == [1]


def test_partition_and_collection_leave_the_memory_too(folder_store: LiteVectorStore) -> None:
    rows = make_rows(4)
    for partition in ("a", "b"):
        folder_store.upsert(partition, rows[:2] if partition == "a" else rows[2:])
        nearest(folder_store, partition, rows[0].embedding)
    folder_store.drop_partition("a")
    assert folder_store.search("a", rows[0].embedding[None], 5) == [[]]
    folder_store.upsert("a", rows[1:2])
    assert nearest(folder_store, "a", rows[0].embedding) == [2]
    folder_store.clear()
    assert folder_store.search("b", rows[0].embedding[None], 5) == [[]]


def test_other_content_than_stored_is_found_and_read_again(
    folder_store: LiteVectorStore, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(3)
    folder_store.upsert("a", rows)
    nearest(folder_store, "a", rows[0].embedding)
    spoils: list[Callable[[ResidentVectors], None]] = [
        lambda kept: kept.remove([2]),
        lambda kept: kept.put([77], rows[0].embedding[None]),
        lambda kept: kept.put([1], rows[2].embedding[None]),
    ]
    for spoil in spoils:
        kept = folder_store._resident["a"]
        assert kept
        spoil(kept)
        assert not folder_store.compare_memory()
        assert "read again" in caplog.text
        assert nearest(folder_store, "a", rows[0].embedding, 9)[0] == 1
        assert sorted(nearest(folder_store, "a", rows[0].embedding, 9)) == [1, 2, 3]
        assert folder_store.compare_memory()


def test_memory_is_read_again_after_a_write_that_failed(
    folder_store: LiteVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(3)
    folder_store.upsert("a", rows)
    nearest(folder_store, "a", rows[0].embedding)
    collection = folder_store._collection
    whole = collection.insert

    def cut_short(entities: list[dict], partition_name: str) -> None:
        whole(entities[:1], partition_name=partition_name)
        raise OSError("No space left on device")

    monkeypatch.setattr(collection, "insert", cut_short)
    with pytest.raises(VectorStoreUnavailable):
        folder_store.upsert("a", make_rows(2, first=8))
    assert sorted(nearest(folder_store, "a", rows[0].embedding)) == [1, 2, 3, 8]


def test_what_does_not_fit_is_searched_by_milvus_lite(tmp_path: Path) -> None:
    store = LiteVectorStore(tmp_path / "small.db", memory=10 * 2048)
    store.upsert("a", make_rows(8))
    store.upsert("b", make_rows(8, first=100))
    rows = make_rows(2, first=50)
    store.upsert("a", rows)
    assert nearest(store, "a", rows[0].embedding, 1) == [50]
    assert store.searched_in == "memory"
    assert len(nearest(store, "b", rows[0].embedding, 20)) == 8
    assert store.searched_in == "milvus_lite"
    store.upsert("a", make_rows(3, first=70))  # which was in memory, and is too large now
    assert store._resident == {"a": None, "b": None}
    assert nearest(store, "a", rows[0].embedding, 1) == [50]
    store.close()


def test_graph_that_was_chosen_is_searched(tmp_path: Path) -> None:
    store = LiteVectorStore(tmp_path / "graph.db", VectorIndex("HNSW"))
    store.upsert("a", make_rows(8))
    nearest(store, "a", unit_vectors(1)[0])
    assert (store.searched_in, store._resident) == ("milvus_lite", {"a": None})
    store.close()


@pytest.mark.usefixtures("small_blocks")
def test_rows_that_were_replaced_take_no_memory_for_long() -> None:
    memory = ResidentVectors()
    vectors = unit_vectors(40)
    for _again in range(20):
        memory.put(list(range(40)), vectors)
        assert memory.nbytes <= 3 * 40 * resident.ROW_BYTES
    memory.remove(range(35))
    assert memory.nbytes <= 2 * 16 * resident.ROW_BYTES
    assert sorted(id_ for id_, _cosine in memory.search(vectors[:1], 99)[0]) == [*range(35, 40)]


def test_who_waits_is_answered_when_who_took_them_along_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = unit_vectors(4)
    memory = ResidentVectors()
    memory.put([1, 2, 3, 4], vectors)
    whole = memory._answer

    def fail_once(asked: list) -> None:
        monkeypatch.setattr(memory, "_answer", whole)
        raise MemoryError

    monkeypatch.setattr(memory, "_answer", fail_once)
    with memory._turn, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(memory.search, vectors[n : n + 1], 1) for n in range(4)]
        while len(memory._waiting) < 4:
            pass
        memory._turn.release()
        outcomes = [answer.exception(timeout=60) or answer.result() for answer in answers]
        memory._turn.acquire()
    assert sum(isinstance(outcome, MemoryError) for outcome in outcomes) == 1
    assert [outcome[0][0][0] for outcome in outcomes if not isinstance(outcome, MemoryError)] == [
        n + 1 for n, outcome in enumerate(outcomes) if not isinstance(outcome, MemoryError)
    ]
