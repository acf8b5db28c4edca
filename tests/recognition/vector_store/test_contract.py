"""The contract of the vector store, the same for every engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recognition.exceptions import VectorStoreUnavailable
from recognition.vector_store import (
    DEFAULT_PARTITION,
    StoredRow,
    VectorRow,
    VectorStore,
    base,
    partition_name,
    vector_store_at,
)
from tests.recognition.vector_store.helpers import (
    ids_in,
    index_at,
    make_other_collection,
    make_row,
    make_rows,
    nearest,
    unit_vectors,
)


def test_search_finds_what_was_just_written(store: VectorStore) -> None:
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


def test_upsert_replaces_the_row_of_an_id(store: VectorStore) -> None:
    old, new, other = unit_vectors(3)
    store.upsert("a", [make_row(1, old, "ana"), make_row(2, other)])
    store.upsert("a", [make_row(1, new, "bia")])

    (hits,) = store.search("a", old[None], 5)
    assert max(hit.similarity for hit in hits) < 0.5
    assert nearest(store, "a", new)[0] == 1
    assert store.row_count() == 2
    assert {row.id: row.person_id for row in store.iterate("a")} == {1: "bia", 2: "ana"}


def test_last_row_of_an_id_wins_within_one_call(store: VectorStore) -> None:
    first, last = unit_vectors(2)
    store.upsert("a", [make_row(1, first, "ana"), make_row(1, last, "bia")])

    assert list(store.iterate("a")) == [StoredRow(1, "bia", "a.jpg")]
    assert store.search("a", last[None], 5)[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_upsert_sends_more_rows_than_one_batch(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BATCH_ROWS", 20)
    store.upsert("a", make_rows(50))
    assert ids_in(store, "a") == list(range(1, 51))


def test_deleted_rows_are_gone_from_the_next_search(store: VectorStore) -> None:
    rows = make_rows(3)
    store.upsert("a", rows)
    store.delete("a", [1, 3, 999])

    assert nearest(store, "a", rows[0].embedding) == [2]
    assert ids_in(store, "a") == [2]
    assert store.row_count() == 1


def test_nothing_is_found_or_deleted_in_an_absent_partition(store: VectorStore) -> None:
    store.delete("absent", [1])
    store.drop_partition("absent")
    assert store.search("absent", unit_vectors(2), 5) == [[], []]
    assert list(store.iterate("absent")) == []
    assert store.partitions() == []


def test_no_vectors_give_no_answers(store: VectorStore) -> None:
    assert store.search("a", np.empty((0, 512), np.float32), 5) == []
    store.upsert("a", [])
    store.delete("a", [])
    assert store.row_count() == 0


def test_partitions_never_meet(store: VectorStore) -> None:
    one, other = make_rows(2)
    store.upsert("a", [one])
    store.upsert("b", [other])

    assert nearest(store, "a", other.embedding) == [1]
    assert nearest(store, "b", other.embedding) == [2]
    assert store.partitions() == ["a", "b"]


def test_dropped_partition_takes_its_rows_along(store: VectorStore) -> None:
    one, other = make_rows(2)
    store.upsert("a", [one])
    store.upsert("b", [other])
    store.drop_partition("a")

    assert store.partitions() == ["b"]
    assert store.search("a", one.embedding[None], 5) == [[]]
    assert nearest(store, "b", other.embedding) == [2]
    store.upsert("a", [one])
    assert nearest(store, "a", one.embedding) == [1]


def test_id_moves_between_partitions(store: VectorStore) -> None:
    (row,) = make_rows(1)
    store.upsert("a", [row])
    store.delete("a", [row.id])
    store.upsert("b", [row])

    assert ids_in(store, "a") == []
    assert nearest(store, "b", row.embedding) == [row.id]


def test_iterate_goes_through_every_page(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PAGE_ROWS", 40)
    store.upsert("a", make_rows(130))
    store.upsert("b", make_rows(5, first=1000))
    assert ids_in(store, "a") == list(range(1, 131))


def test_any_text_is_kept_as_it_is(store: VectorStore) -> None:
    persons = ["João 😀 da Silva", "😀" * 200, "' or 1 == 1 or '", 'a"\\%_', "line\nbreak", ""]
    path = "é" * 4096
    vectors = unit_vectors(len(persons))
    store.upsert("a", [make_row(n, vectors[n], who, path) for n, who in enumerate(persons)])
    assert sorted(store.iterate("a"), key=lambda row: row.id) == [
        StoredRow(n, who, path) for n, who in enumerate(persons)
    ]


def test_rows_outside_our_partitions_can_be_found_and_deleted(store: VectorStore) -> None:
    store.upsert(DEFAULT_PARTITION, [make_row(5, unit_vectors(1)[0], "stray")])

    assert list(store.iterate(DEFAULT_PARTITION)) == [StoredRow(5, "stray", "a.jpg")]
    assert store.partitions() == []
    store.delete(DEFAULT_PARTITION, [5])
    assert store.row_count() == 0


def test_clear_leaves_an_empty_store_that_works(store: VectorStore) -> None:
    rows = make_rows(3)
    store.upsert("a", rows)
    store.clear()

    assert (store.row_count(), store.partitions()) == (0, [])
    store.upsert("a", rows[:1])
    assert nearest(store, "a", rows[0].embedding) == [1]


def test_rows_are_there_after_reopening(store: VectorStore) -> None:
    rows = make_rows(3)
    store.upsert("a", rows)
    store.delete("a", [2])
    store.close()

    assert nearest(store, "a", rows[0].embedding)[0] == 1
    assert ids_in(store, "a") == [1, 3]


def test_flush_changes_no_answer(store: VectorStore) -> None:
    rows = make_rows(20)
    store.upsert("a", rows)
    before = store.search("a", rows[0].embedding[None], 20)
    store.flush()
    after = store.search("a", rows[0].embedding[None], 20)
    assert [hit.id for hit in after[0]] == [hit.id for hit in before[0]]


def test_ping_answers_true(store: VectorStore) -> None:
    assert store.ping() is True


def test_collection_of_another_schema_is_refused_until_cleared(
    store: VectorStore, uri: str
) -> None:
    store.close()
    make_other_collection(uri)
    with pytest.raises(VectorStoreUnavailable, match="reindex --rebuild"):
        store.ping()
    store.clear()
    assert store.row_count() == 0


def test_threads_lose_nothing(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock, Milvus Lite failed in 5 of 430 rounds."""
    monkeypatch.setattr(base, "FLUSH_ROWS", 16)
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


def test_graph_finds_more_than_it_looks_at(graph_store: VectorStore, uri: str) -> None:
    """A server refuses an `ef` below the number of requested hits."""
    rows = make_rows(300)
    graph_store.upsert("a", rows)
    graph_store.flush()
    graph_store.delete("a", [300])

    graph_store.close()
    assert index_at(uri)[0] == "HNSW"
    assert [nearest(graph_store, "a", row.embedding, 1) for row in rows[:20]] == [
        [row.id] for row in rows[:20]
    ]
    (hits,) = graph_store.search("a", rows[0].embedding[None], 200)
    assert len(hits) > 150


def test_index_is_exact_in_milvus_lite_and_compares_codes_on_a_server(
    store: VectorStore, uri: str, request: pytest.FixtureRequest
) -> None:
    rows = make_rows(300)
    store.upsert("a", rows)
    vectors = np.stack([row.embedding for row in rows])
    for limit in (10, 250):
        (hits,) = store.search("a", vectors[7][None], limit)
        expected = np.argsort(-(vectors @ vectors[7]))[:limit] + 1
        assert {hit.id for hit in hits} == set(expected.tolist())
    store.close()
    kind, built_with = index_at(uri)
    if request.node.callspec.params["uri"] == "milvus server":
        assert (kind, built_with["nlist"], built_with["with_raw_data"]) == ("SCANN", 64, True)
    else:
        assert (kind, built_with) == ("IVF_FLAT", {"nlist": 1})


def test_index_of_an_existing_collection_stays_until_rebuilt(
    graph_store: VectorStore, uri: str
) -> None:
    rows = make_rows(20)
    graph_store.upsert("a", rows)
    graph_store.close()
    exact = vector_store_at(uri)
    assert nearest(exact, "a", rows[3].embedding, 1) == [4]
    exact.close()
    assert index_at(uri)[0] == "HNSW"
    exact.clear()
    exact.upsert("a", rows)
    assert nearest(exact, "a", rows[3].embedding, 1) == [4]
    exact.close()
    assert index_at(uri)[0] != "HNSW"


# Values


def test_vectors_that_are_none_are_refused(store: VectorStore) -> None:
    for vector in (np.zeros(511, np.float32), *np.float32([[np.nan] * 512, [np.inf] * 512])):
        with pytest.raises(ValueError, match=r"finite vectors of shape \(N, 512\)"):
            store.upsert("a", [make_row(1, vector)])
        with pytest.raises(ValueError, match=r"finite vectors of shape \(N, 512\)"):
            store.search("a", vector[None], 5)


def test_text_too_long_for_its_field_is_refused(store: VectorStore) -> None:
    with pytest.raises(ValueError, match="person_id of row 1 has 804 bytes; at most 800"):
        store.upsert("a", [make_row(1, unit_vectors(1)[0], "😀" * 201)])


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


def test_what_was_deleted_can_be_erased_and_the_others_stay(store):
    rows = make_rows(20)
    store.upsert("m_f", rows)
    store.delete("m_f", [3, 7])
    for _again in range(2):
        store.erase("m_f", [3, 7])
    store.erase("absent_f", [1])
    assert ids_in(store, "m_f") == [row.id for row in rows if row.id not in (3, 7)]
    assert nearest(store, "m_f", rows[0].embedding, 1) == [1]
