from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recognition.vector_store import LiteVectorStore, VectorIndex, VectorStore, vector_store_at
from tests.conftest import REAL_MILVUS


@pytest.fixture(params=["folder", "lite server", pytest.param("milvus server", marks=REAL_MILVUS)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each engine in turn: Milvus Lite embedded and as a server, and a real Milvus server."""
    if request.param == "folder":
        return str(tmp_path / "vectors" / "milvus_face.db")
    name = "lite_address" if request.param == "lite server" else "milvus_address"
    return request.getfixturevalue(name)


@pytest.fixture
def store(uri: str) -> Iterator[VectorStore]:
    """An empty store on each engine in turn."""
    store = vector_store_at(uri)
    store.clear()
    yield store
    store.close()


@pytest.fixture
def graph_store(uri: str) -> Iterator[VectorStore]:
    """An empty store with an HNSW index instead of the exact one."""
    store = vector_store_at(uri, index=VectorIndex("HNSW", m=8, ef_construction=64, ef=32))
    store.clear()
    yield store
    store.clear()
    store.close()


@pytest.fixture
def folder_store(tmp_path: Path) -> Iterator[LiteVectorStore]:
    store = LiteVectorStore(tmp_path / "milvus_face.db")
    yield store
    store.close()
