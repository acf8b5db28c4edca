"""A Milvus server, through pymilvus; also Milvus Lite when it serves several processes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import numpy as np

from recognition.vector_store import base
from recognition.vector_store.base import (
    COLLECTION,
    DEFAULT_PARTITION,
    EMBEDDING_DIM,
    VARCHAR_BYTES,
    FairLock,
    StoredRow,
    VectorIndex,
    VectorRow,
    VectorStore,
    as_entity,
    as_stored,
)
from recognition.vector_store.errors import other_schema, server_failed
from recognition.vector_store.line import Line

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Answer = TypeVar("Answer")

SLOW_SECONDS: Final = 120.0  # loading, flushing, index building
PING_SECONDS: Final = 3.0
LOCAL_HOSTS: Final = (None, "127.0.0.1", "localhost", "::1")  # None: a Unix socket
NEVER_MS: Final = 2**31 - 1
# Milvus's error codes for a collection or partition that is missing or not loaded.
STALE_CODES: Final = {100, 101, 103, 200, 201, 202}


class ServerVectorStore(VectorStore):
    """A server at an http, https, tcp or unix address. Other processes may use it too."""

    is_embedded = False
    searched_in = "milvus"

    def __init__(
        self,
        address: str,
        token: str = "",
        timeout: float = 10.0,
        index: VectorIndex = VectorIndex(),  # noqa: B008 (frozen)
    ) -> None:
        self._address = address
        self._token = token
        self._timeout = timeout
        self._index = index
        self._index_there: dict[str, Any] = {}
        self._opening = threading.Lock()
        # Milvus Lite allows one writer, and a search during a flush would miss the rows being flushed.
        self._turns_at_lite = FairLock()
        self._client: MilvusClient | None = None
        self._line = Line(address, timeout)
        self._is_lite = False
        self._prepared = False
        self._unflushed = 0

    def iterate(self, partition: str) -> Iterator[StoredRow]:
        pages = self._run(lambda client: self._pages(client, partition))
        while pages and (page := self._run(lambda _client: pages.next())):
            yield from map(as_stored, page)

    def partitions(self) -> list[str]:
        names = self._run(lambda client: client.list_partitions(COLLECTION, timeout=self._timeout))
        return sorted(set(names) - {DEFAULT_PARTITION})

    def drop_partition(self, partition: str) -> None:
        def action(client: MilvusClient) -> None:
            if not self._has_partition(client, partition):
                return
            if not self._is_lite:  # a server requires a release first; Milvus Lite has no release
                client.release_partitions(COLLECTION, [partition], timeout=SLOW_SECONDS)
            client.drop_partition(COLLECTION, partition, timeout=self._timeout)

        self._run(action)

    def clear(self) -> None:
        def action(client: MilvusClient) -> None:
            client.drop_collection(COLLECTION, timeout=self._timeout)
            self._prepared = False
            self._unflushed = 0

        self._run(action, prepare=False)

    def row_count(self) -> int:
        return self._run(self._count)

    def flush(self) -> None:
        self._run(self._flush)

    def ping(self) -> bool:
        timeout = min(self._timeout, PING_SECONDS)
        return bool(self._run(lambda client: client.has_collection(COLLECTION, timeout=timeout)))

    def close(self) -> None:
        with self._opening:
            client, self._client = self._client, None
            self._prepared = False
            self._unflushed = 0
        self._line.close()
        if client:
            client.close()

    def erase(self, partition: str, ids: Iterable[int]) -> None:
        def action(client: MilvusClient) -> None:
            if not self._is_lite:  # Milvus Lite merges four files of a similar size by itself
                self._flush(client)
                client.compact(COLLECTION, timeout=SLOW_SECONDS)

        self._run(action)

    def _upsert_batch(self, partition: str, rows: list[VectorRow]) -> None:
        entities = [as_entity(row, row.embedding.astype(np.float32, copy=False)) for row in rows]

        def action(client: MilvusClient) -> None:
            if not self._has_partition(client, partition):
                with self._unless_made(client.has_partition, COLLECTION, partition):
                    client.create_partition(COLLECTION, partition, timeout=self._timeout)
            client.upsert(COLLECTION, entities, partition_name=partition, timeout=self._timeout)
            self._unflushed += len(rows)
            if self._is_lite and self._unflushed >= base.BULK_FLUSH_ROWS:
                self._flush(client)

        self._run(action)

    def _delete_batch(self, partition: str, ids: list[int]) -> None:
        def action(client: MilvusClient) -> None:
            if self._has_partition(client, partition):
                client.delete(COLLECTION, ids=ids, partition_name=partition, timeout=self._timeout)
                self._unflushed += len(ids)

        self._run(action)

    def _make_visible(self) -> None:
        """Wait until the server shows the write, up to 0.4 s, so that searches need not wait.

        A server indexes by itself, and frequent flushes would create many small segments. Milvus
        Lite is flushed.
        """

        def action(client: MilvusClient) -> None:
            if not self._is_lite:
                self._count(client)
            elif self._unflushed >= base.FLUSH_ROWS:
                self._flush(client)

        self._run(action)

    def _search(
        self, partition: str, queries: np.ndarray, limit: int
    ) -> list[list[tuple[int, float]]]:
        def action(client: MilvusClient) -> list[list[tuple[int, float]]]:
            index = self._index_there
            params = self._index.search_params(
                index["index_type"], index.get("params") or {}, limit
            )
            try:
                found = client.search(
                    COLLECTION,
                    data=list(queries),
                    limit=limit,
                    anns_field="embedding",
                    partition_names=[partition],
                    output_fields=[],
                    search_params={"metric_type": "COSINE", "params": params},
                    consistency_level="Bounded",  # writes waited already (_make_visible)
                    timeout=self._timeout,
                )
            except _vendor().MilvusException:
                if self._has_partition(client, partition):
                    raise
                return [[] for _query in queries]
            return [[(int(hit["id"]), hit["distance"]) for hit in hits] for hits in found]

        return self._run(action)

    # One call

    def _run(self, action: Callable[[MilvusClient], Answer], *, prepare: bool = True) -> Answer:
        """Call `action` with an open client; raise our errors for those of pymilvus and gRPC.

        A missing collection is created again once, because another process may have dropped it.
        """
        vendor = _vendor()
        with self._turns_at_lite if self._is_lite else nullcontext():
            try:
                try:
                    return action(self._open(prepare))
                except vendor.MilvusException as error:
                    if error.code not in STALE_CODES or not prepare:
                        raise
                # Another process dropped or rebuilt the collection since we opened it.
                self._prepared = False
                return action(self._open(prepare))
            except vendor.errors as error:
                raise server_failed(error) from error

    def _open(self, prepare: bool) -> MilvusClient:
        self._line.check()
        with self._opening:
            if self._client is None:
                client = self._connect()
                version = client.get_server_version(timeout=self._timeout)
                self._is_lite = version.startswith("milvus_lite")
                self._client = client
            if prepare and not self._prepared:
                self._prepare(self._client)
                self._prepared = True
            return self._client

    def _connect(self) -> MilvusClient:
        options = {}
        if urlsplit(self._address).hostname in LOCAL_HOSTS:
            # A closed local connection is noticed anyway. Milvus Lite takes pymilvus's keepalive pings,
            # one every 10 s, for an attack, and disconnects.
            options["grpc.keepalive_time_ms"] = NEVER_MS
        return _vendor().MilvusClient(
            uri=self._address,
            token=self._token,
            timeout=self._timeout,
            dedicated=True,
            grpc_options=options,
        )

    # The collection

    def _prepare(self, client: MilvusClient) -> None:
        if client.has_collection(COLLECTION, timeout=self._timeout):
            if not _is_ours(client.describe_collection(COLLECTION, timeout=self._timeout)):
                raise other_schema()
        else:
            with self._unless_made(client.has_collection, COLLECTION):
                self._create_collection(client)
        if not client.list_indexes(COLLECTION, timeout=self._timeout):
            self._create_index(client)
        self._index_there = client.describe_index(COLLECTION, "embedding", timeout=self._timeout)
        client.load_collection(COLLECTION, timeout=SLOW_SECONDS)
        if self._is_lite:
            # Rows recovered from the write-ahead log are slow to search until they are flushed.
            self._flush(client)

    @contextmanager
    def _unless_made(self, exists: Callable[..., bool], *names: str) -> Iterator[None]:
        """Ignore an error of creation if another process created the same meanwhile."""
        try:
            yield
        except _vendor().MilvusException:
            if not exists(*names, timeout=self._timeout):
                raise

    def _create_collection(self, client: MilvusClient) -> None:
        types = _vendor().DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("embedding", types.FLOAT_VECTOR, dim=EMBEDDING_DIM)
        for name, max_length in VARCHAR_BYTES.items():
            schema.add_field(name, types.VARCHAR, max_length=max_length)
        client.create_collection(
            COLLECTION, schema=schema, consistency_level="Strong", timeout=self._timeout
        )

    def _create_index(self, client: MilvusClient) -> None:
        """Create the index. It is only called when there is none."""
        kind, build = self._index.build_params(is_lite=self._is_lite)
        index = client.prepare_index_params()
        # Nested, because pymilvus flattens the outer level and Milvus Lite reads only the inner one.
        index.add_index(
            "embedding", index_type=kind, metric_type="COSINE", params={"params": build}
        )
        client.create_index(COLLECTION, index, sync=False, timeout=SLOW_SECONDS)

    def _has_partition(self, client: MilvusClient, partition: str) -> bool:
        return bool(client.has_partition(COLLECTION, partition, timeout=self._timeout))

    def _pages(self, client: MilvusClient, partition: str) -> Any:
        if not self._has_partition(client, partition):
            return None
        return client.query_iterator(
            COLLECTION,
            batch_size=base.PAGE_ROWS,
            partition_names=[partition],
            output_fields=["id", "person_id", "image_path"],
            consistency_level="Strong",
            timeout=self._timeout,
        )

    def _count(self, client: MilvusClient) -> int:
        answer = client.query(
            COLLECTION,
            filter="",
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=self._timeout,
        )
        return int(answer[0]["count(*)"])

    def _flush(self, client: MilvusClient) -> None:
        client.flush(COLLECTION, timeout=SLOW_SECONDS)
        self._unflushed = 0


def _is_ours(description: dict[str, Any]) -> bool:
    """Return whether the schema has our fields; text fields may be longer than ours."""
    fields = {item["name"]: item for item in description["fields"]}
    types = _vendor().DataType
    expected = {"id": types.INT64, "embedding": types.FLOAT_VECTOR}
    expected |= dict.fromkeys(VARCHAR_BYTES, types.VARCHAR)
    return (
        {name: item["type"] for name, item in fields.items()} == expected
        and not description.get("auto_id")
        and int(fields["embedding"]["params"]["dim"]) == EMBEDDING_DIM
        and all(
            int(fields[name]["params"]["max_length"]) >= size
            for name, size in VARCHAR_BYTES.items()
        )
    )


# pymilvus

_vendor_lock = threading.Lock()


@lru_cache(maxsize=1)
def _vendor() -> SimpleNamespace:
    """Return pymilvus and its exceptions, imported at the first call (0.7 s).

    On import pymilvus reads `.env` and connects to `MILVUS_URI`, where it rejects a path; both are
    prevented.
    """
    quiet = {"MILVUS_URI": "", "PYTHON_DOTENV_DISABLED": "1"}
    with _vendor_lock, _environment(quiet):
        import grpc
        import pymilvus

    # pymilvus logs a traceback for every error that it raises.
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return SimpleNamespace(
        MilvusClient=pymilvus.MilvusClient,
        MilvusException=pymilvus.MilvusException,
        DataType=pymilvus.DataType,
        errors=(
            pymilvus.MilvusException,
            grpc.RpcError,
            grpc.FutureTimeoutError,
            OSError,
            ValueError,  # closed channels
        ),
    )


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
