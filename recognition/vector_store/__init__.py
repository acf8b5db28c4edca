"""The vector store: keep vectors by integer id in Milvus, search them, delete them.

SQL is the source of truth; everything here can be rebuilt. `MILVUS_URI` is a folder
(`LiteVectorStore`, embedded, for one process) or the address of a server (`ServerVectorStore`).
Both fulfil the contract of `VectorStore`, which one test suite checks.
"""

from __future__ import annotations

import atexit
import os
import re
import threading

from recognition.conf import get_settings
from recognition.vector_store.base import (
    COLLECTION,
    DEFAULT_PARTITION,
    EMBEDDING_DIM,
    MAX_HITS,
    StoredRow,
    VectorHit,
    VectorIndex,
    VectorRow,
    VectorStore,
    model_of_partition,
    partition_name,
)
from recognition.vector_store.lite import MEMORY_BYTES, LiteVectorStore
from recognition.vector_store.server import ServerVectorStore

__all__ = [
    "COLLECTION",
    "DEFAULT_PARTITION",
    "EMBEDDING_DIM",
    "MAX_HITS",
    "LiteVectorStore",
    "ServerVectorStore",
    "StoredRow",
    "VectorHit",
    "VectorIndex",
    "VectorRow",
    "VectorStore",
    "configured_index",
    "get_vector_store",
    "model_of_partition",
    "partition_name",
    "reset_vector_store",
    "vector_store_at",
]

_Key = tuple[str, str, float, VectorIndex, int]

_store: VectorStore | None = None
_store_key: _Key | None = None
_store_lock = threading.Lock()


def vector_store_at(
    uri: str,
    token: str = "",
    timeout: float = 10.0,
    index: VectorIndex = VectorIndex(),  # noqa: B008 (frozen)
    memory: int = MEMORY_BYTES,
) -> VectorStore:
    """Return the store at an address or in a folder.

    `token` and `timeout` (seconds a call) apply to servers only, `memory` (bytes of vectors that
    may be held in memory) to folders.
    """
    if re.match(r"(https?|tcp|unix):", uri):
        return ServerVectorStore(uri, token, timeout, index)
    return LiteVectorStore(uri, index, memory)


def configured_index() -> VectorIndex:
    """Return the index that the settings choose."""
    settings = get_settings()
    return VectorIndex(settings.milvus_index, ef=settings.milvus_hnsw_ef)


def get_vector_store() -> VectorStore:
    """Return the store of this process; a new one after the Milvus settings changed."""
    global _store, _store_key
    settings = get_settings()
    address = str(settings.milvus_uri)
    memory = settings.milvus_memory_bytes
    key = (address, settings.milvus_token, settings.milvus_timeout, configured_index(), memory)
    with _store_lock:
        if _store is None or key != _store_key:
            if _store:
                _store.close()
            _store, _store_key = vector_store_at(*key), key
        return _store


@atexit.register
def reset_vector_store() -> None:
    """Close the store of this process; the next get_vector_store() makes a new one."""
    global _store
    with _store_lock:
        store, _store = _store, None
    if store:
        store.close()


def _forget_after_fork() -> None:
    """Drop the store after a fork: a child process cannot use its parent's threads.

    The child opens its own store, or gets `VectorStoreLocked`.
    """
    global _store, _store_lock
    _store, _store_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
