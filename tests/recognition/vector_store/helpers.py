"""Rows to store, and access to the engines behind the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from recognition.vector_store import COLLECTION, VectorRow, VectorStore
from recognition.vector_store.server import NEVER_MS, _vendor

RANDOM = np.random.default_rng(7)


def unit_vectors(count: int) -> np.ndarray:
    vectors = RANDOM.normal(size=(count, 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_row(id_: int, vector: np.ndarray, person: str = "ana", path: str = "a.jpg") -> VectorRow:
    return VectorRow(id_, vector, person, path, "2024-05-01T12:00:00+00:00")


def make_rows(count: int, first: int = 1) -> list[VectorRow]:
    return [make_row(first + n, vector) for n, vector in enumerate(unit_vectors(count))]


def nearest(store: VectorStore, partition: str, vector: np.ndarray, limit: int = 5) -> list[int]:
    (hits,) = store.search(partition, vector[None], limit)
    return [hit.id for hit in hits]


def ids_in(store: VectorStore, partition: str) -> list[int]:
    return sorted(row.id for row in store.iterate(partition))


def client_of(uri: str) -> Any:
    """Return a client of its own that sends no keepalive pings, for which Milvus Lite disconnects."""
    never = {"grpc.keepalive_time_ms": NEVER_MS}
    return _vendor().MilvusClient(uri=uri, dedicated=True, grpc_options=never)


def index_at(uri: str) -> tuple[str, dict[str, Any]]:
    """Return type and parameters of the index; an embedded folder must not be open."""
    if "://" in uri:
        with closing(client_of(uri)) as client:
            told = client.describe_index(COLLECTION, "embedding")
        return told["index_type"], told.get("params", {})
    from milvus_lite import MilvusLite

    with MilvusLite(uri) as database:
        told = database.get_collection(COLLECTION).get_index_info("embedding")
    return told["index_type"], told["build_params"]


def make_other_collection(uri: str) -> None:
    """Create a collection with our name and other fields; a folder must not be open."""
    if "://" in uri:
        with closing(client_of(uri)) as client:
            client.create_collection(COLLECTION, dimension=8, auto_id=True)
        return
    from milvus_lite import CollectionSchema, DataType, FieldSchema, MilvusLite

    Path(uri).parent.mkdir(exist_ok=True)
    fields = [
        FieldSchema("id", DataType.INT64, is_primary=True, auto_id=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=8),
    ]
    with MilvusLite(uri) as database:
        database.create_collection(COLLECTION, CollectionSchema(fields))
