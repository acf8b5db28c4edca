"""One store a process."""

from __future__ import annotations

from pathlib import Path

from recognition.vector_store import LiteVectorStore, get_vector_store, reset_vector_store
from tests.recognition.vector_store.helpers import index_at, make_rows


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
    settings.RECOGNITION = settings.RECOGNITION | {"MILVUS_INDEX": "HNSW"}
    get_vector_store().upsert("a", make_rows(10))
    reset_vector_store()
    index = index_at(settings.RECOGNITION["MILVUS_URI"])
    assert index == ("HNSW", {"M": 16, "efConstruction": 200})


def test_reset_lets_go_of_the_folder(settings) -> None:
    get_vector_store().upsert("a", make_rows(1))
    reset_vector_store()
    other = LiteVectorStore(settings.RECOGNITION["MILVUS_URI"])
    assert other.row_count() == 1
    other.close()
