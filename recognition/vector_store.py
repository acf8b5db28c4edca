"""The whole of what Milvus is asked to do: keep vectors by integer id, find the nearest, forget.

One collection of one fixed schema; each pair of model and weights fingerprint has its own
partition, so that vectors of different networks never meet. Lookups and deletes go by integer ids
only: nothing that a person typed ever reaches a filter expression. SQL is the truth; all of this
can be rebuilt.

`MILVUS_URI` is a folder (embedded Milvus Lite, which belongs to one process) or a server's address.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from django.utils.translation import gettext as _

from recognition.conf import get_settings
from recognition.exceptions import VectorStoreLocked, VectorStoreUnavailable

if TYPE_CHECKING:
    from pymilvus import MilvusClient

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

COLLECTION = "face_embeddings"
DEFAULT_PARTITION = "_default"  # Milvus's own; we write nothing there, so rows in it are strays
EMBEDDING_DIM = 512
# Milvus counts bytes: 200 characters of person_id and 4,096 of image_path, 4 bytes each at most.
VARCHAR_BYTES = {"person_id": 800, "image_path": 16_384, "created_at": 64}

BATCH_ROWS = 1_000  # rows an upsert or delete sends at once
PAGE_ROWS = 10_000  # rows a page of iterate; a server's window ends at 16,384
MAX_HITS = 16_384
FLUSH_ROWS = 256  # Milvus Lite searches unflushed rows one by one, about 50 µs each
BULK_FLUSH_ROWS = 10_000  # within one upsert: a flush for every batch doubles its time
SLOW_SECONDS = 120.0  # loading, flushing, index building
PING_SECONDS = 3.0
LOCAL_HOSTS = (None, "127.0.0.1", "localhost", "::1")  # None: a Unix socket
NEVER_MS = 2**31 - 1
SOCKET_PREFIX = "vectors-"
SOCKET_SETTLED = 3_600.0

# Milvus's codes for a collection or partition that is gone or not loaded (any more).
STALE_CODES = {100, 101, 103, 200, 201, 202}


@dataclass(frozen=True, slots=True)
class VectorRow:
    """What is stored; `embedding` is 512 float32, L2-normalised."""

    id: int
    embedding: np.ndarray = field(repr=False)
    person_id: str
    image_path: str
    created_at: str


@dataclass(frozen=True, slots=True)
class VectorHit:
    """One found row; `similarity` is the cosine, -1 to 1, higher is nearer."""

    id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What is stored beside the vector, to compare with SQL."""

    id: int
    person_id: str
    image_path: str


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How a new collection finds the nearest; `m`, `ef_construction` and `ef` are of HNSW alone.

    `FLAT` compares with every vector: exact. `HNSW` (Malkov and Yashunin 2018) walks a graph: at
    hundreds of thousands quicker, at the price of some neighbours that it misses.
    """

    kind: str = "FLAT"
    m: int = 16
    ef_construction: int = 200
    ef: int = 256

    def build_params(self, is_lite: bool) -> tuple[str, dict[str, int]]:
        """Type and parameters to create the index with.

        FLAT of Milvus Lite computes in NumPy, ten times slower than FAISS over one cell with all.
        """
        if self.kind == "HNSW":
            return "HNSW", {"M": self.m, "efConstruction": self.ef_construction}
        return ("IVF_FLAT", {"nlist": 1}) if is_lite else ("FLAT", {})

    def search_params(self, description: dict[str, Any], limit: int) -> dict[str, int]:
        """What to search the index with that is there, which may be older than the settings."""
        if description["index_type"] == "HNSW":
            return {"ef": max(self.ef, limit)}
        if description["index_type"] == "IVF_FLAT":
            return {"nprobe": int(dict(description.get("params") or {}).get("nlist", 1))}
        return {}


def partition_name(model: str, fingerprint: str) -> str:
    """The partition of one model with one weights file; both of word characters (ValueError)."""
    name = f"{model}_{fingerprint}"
    if not re.fullmatch(r"[A-Za-z_]\w{1,254}", name, re.ASCII):
        raise ValueError(f"{name!r} cannot name a partition: letters, digits and _ are expected.")
    return name


class MilvusVectorStore:
    """Thread-safe; opens at the first call; every failure is a VectorStoreUnavailable.

    An id lives in one partition: Milvus Lite keeps one row and one tombstone per id. To move an id,
    delete it from the old partition before the upsert into the new one.
    """

    def __init__(
        self,
        uri: str,
        token: str = "",
        timeout: float = 10.0,
        index: VectorIndex = VectorIndex(),  # noqa: B008 (frozen)
    ) -> None:
        self._address = uri if re.match(r"(https?|tcp|unix):", uri) else None
        self._folder = None if self._address else Path(uri)
        self._token = token
        self._index = index
        self._index_there: dict[str, Any] = {}
        self._timeout = timeout if self._address else SLOW_SECONDS
        self._lock = threading.RLock()
        self._turn = threading.Lock()
        self._embedded: _EmbeddedServer | None = None
        self._client: MilvusClient | None = None
        self._is_lite = False
        self._prepared = False
        self._unflushed = 0

    @property
    def is_embedded(self) -> bool:
        """Whether this process alone can write, as long as the database is open."""
        return self._folder is not None

    def upsert(self, partition: str, rows: Sequence[VectorRow]) -> None:
        """Write rows, replacing those of the same id; the next search finds them."""
        unique = list({row.id: row for row in rows}.values())
        data = [_as_entity(row) for row in unique]
        for batch in _batches(data):
            self._run(lambda client, batch=batch: self._upsert_batch(client, partition, batch))
        if data:
            self._run(self._settle)

    def delete(self, partition: str, ids: Iterable[int]) -> None:
        """Forget these ids; absent ones and an absent partition are fine."""
        wanted = [int(id_) for id_ in ids]
        for batch in _batches(wanted):
            self._run(lambda client, batch=batch: self._delete_batch(client, partition, batch))
        if wanted:
            self._run(self._settle)

    def search(self, partition: str, vectors: np.ndarray, limit: int) -> list[list[VectorHit]]:
        """The `limit` nearest rows to each of (N, 512) float32 vectors, best first."""
        queries = _as_matrix(vectors)
        wanted = min(limit, MAX_HITS)
        if limit < 1 or not len(queries):
            return [[] for _query in queries]

        def action(client: MilvusClient) -> list[list[VectorHit]]:
            if not self._has_partition(client, partition):
                return [[] for _query in queries]
            found = client.search(
                COLLECTION,
                data=list(queries),
                limit=wanted,
                anns_field="embedding",
                partition_names=[partition],
                output_fields=[],
                search_params={
                    "metric_type": "COSINE",
                    "params": self._index.search_params(self._index_there, wanted),
                },
                consistency_level="Bounded",  # writes waited already (_settle)
                timeout=self._timeout,
            )
            return [
                [VectorHit(int(hit["id"]), _as_cosine(hit["distance"])) for hit in hits]
                for hits in found
            ]

        return self._run(action)

    def iterate(self, partition: str) -> Iterator[StoredRow]:
        """Every row of a partition, by pages; `DEFAULT_PARTITION` shows what is in none of ours."""
        pages = self._run(lambda client: self._pages(client, partition))
        while pages and (page := self._run(lambda _client: pages.next())):
            for row in page:
                yield StoredRow(int(row["id"]), row["person_id"], row["image_path"])

    def partitions(self) -> list[str]:
        """The names of our partitions, sorted; Milvus's own `_default` is left out."""
        names = self._run(lambda client: client.list_partitions(COLLECTION, timeout=self._timeout))
        return sorted(set(names) - {DEFAULT_PARTITION})

    def drop_partition(self, partition: str) -> None:
        """Forget a partition with all its rows; an absent one is fine. Not for `_default`."""
        self._run(lambda client: self._drop_partition(client, partition))

    def clear(self) -> None:
        """Drop the collection, whatever its schema or state; the next call makes an empty one."""
        self._run(self._drop_collection, prepare=False)

    def row_count(self) -> int:
        """Live rows of the whole collection: replaced and deleted ones are not counted."""
        return self._run(self._count)

    def flush(self) -> None:
        """Write what is in memory to disk and index it."""
        self._run(self._flush)

    def ping(self) -> bool:
        """True when the collection is open and answers; VectorStoreUnavailable otherwise."""
        timeout = min(self._timeout, PING_SECONDS)
        return self._run(lambda client: client.has_collection(COLLECTION, timeout=timeout))

    def close(self) -> None:
        """Let go of the database or the connection; the next call opens it again."""
        with self._lock:
            client, embedded = self._client, self._embedded
            self._client = self._embedded = None
            self._prepared = False
            self._unflushed = 0
            if client:
                client.close()
            if embedded:
                embedded.close()

    # One call

    def _run(self, action: Callable[[MilvusClient], Answer], *, prepare: bool = True) -> Answer:
        """`action` on an open collection; what the vendor throws becomes our own error."""
        with self._exclusive(), _vendor_errors_translated(self._folder is not None):
            try:
                return action(self._open(prepare))
            except _vendor().MilvusException as error:
                if error.code not in STALE_CODES or not prepare:
                    raise
            # Another process dropped or rebuilt the collection since we opened it.
            self._prepared = False
            return action(self._open(prepare))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Milvus Lite allows one writer, and a search during a flush would miss the moving rows.

        Who waits holds the turn, so that a long upsert cannot take the lock back before them.
        """
        if self._address and not self._is_lite:
            yield
            return
        with self._turn:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _open(self, prepare: bool) -> MilvusClient:
        if self._address:
            _knock(self._address, self._timeout)
        with self._lock:
            if self._client is None:
                self._client = self._connect()
                version = self._client.get_server_version(timeout=self._timeout)
                self._is_lite = version.startswith("milvus_lite")
            if prepare and not self._prepared:
                self._prepare(self._client)
                self._prepared = True
            return self._client

    def _connect(self) -> MilvusClient:
        if self._folder and self._embedded is None:
            self._embedded = _EmbeddedServer(self._folder)
        uri = self._embedded.address if self._embedded else self._address
        options = {}
        if urlsplit(uri).hostname in LOCAL_HOSTS:
            # A peer on this machine that ends is noticed. Milvus Lite takes the pings of pymilvus,
            # one each 10 s, for an attack, and hangs up.
            options["grpc.keepalive_time_ms"] = NEVER_MS
        return _vendor().MilvusClient(
            uri=uri,
            token=self._token,
            timeout=self._timeout,
            dedicated=True,
            grpc_options=options,
        )

    # The collection

    def _prepare(self, client: MilvusClient) -> None:
        if client.has_collection(COLLECTION, timeout=self._timeout):
            _check_schema(client.describe_collection(COLLECTION, timeout=self._timeout))
        else:
            with self._unless_made(client.has_collection, COLLECTION):
                self._create_collection(client)
        if not client.list_indexes(COLLECTION, timeout=self._timeout):
            self._create_index(client)
        self._index_there = client.describe_index(COLLECTION, "embedding", timeout=self._timeout)
        client.load_collection(COLLECTION, timeout=SLOW_SECONDS)
        if self._is_lite:
            # Rows recovered from the write-ahead log are searched one by one until flushed.
            self._flush(client)

    @contextmanager
    def _unless_made(self, exists: Callable[..., bool], *names: str) -> Iterator[None]:
        """Another process may make the same thing at the same moment; that is as good."""
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
        """An index that someone else made is left as it is."""
        kind, build = self._index.build_params(self._is_lite)
        index = client.prepare_index_params()
        # Nested, as Milvus Lite reads no others; pymilvus would flatten the outer one.
        index.add_index(
            "embedding", index_type=kind, metric_type="COSINE", params={"params": build}
        )
        client.create_index(COLLECTION, index, sync=False, timeout=SLOW_SECONDS)

    def _drop_collection(self, client: MilvusClient) -> None:
        try:
            client.drop_collection(COLLECTION, timeout=self._timeout)
        except _vendor().MilvusException:
            if not self._folder:
                raise
        if self._folder:  # Milvus Lite overlooks a damaged one, and then cannot make a new one
            shutil.rmtree(self._folder / "collections" / COLLECTION, ignore_errors=True)
        self._prepared = False
        self._unflushed = 0

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

    def _settle(self, client: MilvusClient) -> None:
        """Make what was written visible and quick to find.

        A server shows a write up to 0.4 s later; waiting here once spares every search the wait.
        It also indexes by itself: flushing it often would cut it into small segments.
        """
        if not self._is_lite:
            self._count(client)
        elif self._unflushed >= FLUSH_ROWS:
            self._flush(client)

    # Partitions

    def _has_partition(self, client: MilvusClient, partition: str) -> bool:
        return client.has_partition(COLLECTION, partition, timeout=self._timeout)

    def _upsert_batch(
        self, client: MilvusClient, partition: str, batch: list[dict[str, Any]]
    ) -> None:
        if not self._has_partition(client, partition):
            with self._unless_made(client.has_partition, COLLECTION, partition):
                client.create_partition(COLLECTION, partition, timeout=self._timeout)
        client.upsert(COLLECTION, batch, partition_name=partition, timeout=self._timeout)
        self._unflushed += len(batch)
        if self._is_lite and self._unflushed >= BULK_FLUSH_ROWS:
            self._flush(client)

    def _delete_batch(self, client: MilvusClient, partition: str, batch: list[int]) -> None:
        if self._has_partition(client, partition):
            client.delete(COLLECTION, ids=batch, partition_name=partition, timeout=self._timeout)
            self._unflushed += len(batch)

    def _drop_partition(self, client: MilvusClient, partition: str) -> None:
        if not self._has_partition(client, partition):
            return
        if not self._is_lite:  # a server wants it released; Milvus Lite cannot release one
            client.release_partitions(COLLECTION, [partition], timeout=SLOW_SECONDS)
        client.drop_partition(COLLECTION, partition, timeout=self._timeout)

    def _pages(self, client: MilvusClient, partition: str) -> Any:
        if not self._has_partition(client, partition):
            return None
        return client.query_iterator(
            COLLECTION,
            batch_size=PAGE_ROWS,
            partition_names=[partition],
            output_fields=["id", "person_id", "image_path"],
            consistency_level="Strong",
            timeout=self._timeout,
        )


class _EmbeddedServer:
    """Milvus Lite on a folder, behind a Unix socket that only this user can open."""

    def __init__(self, folder: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import grpc
        from milvus_lite import MilvusLite
        from milvus_lite.adapter.grpc.servicer import MilvusServicer
        from pymilvus.grpc_gen import milvus_pb2_grpc

        _quiet_training()
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._database = MilvusLite(str(folder))
        _remove_stale_sockets()
        self._socket_folder = tempfile.mkdtemp(prefix=SOCKET_PREFIX)
        self._socket_lock = os.open(self._socket_folder, os.O_RDONLY)
        fcntl.flock(self._socket_lock, fcntl.LOCK_EX)
        self.address = f"unix:{self._socket_folder}/milvus"
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(4), options=unlimited)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(
            MilvusServicer(self._database), self._server
        )
        self._server.add_insecure_port(self.address)
        self._server.start()

    def close(self) -> None:
        self._server.stop(grace=2).wait()
        self._database.close()
        shutil.rmtree(self._socket_folder, ignore_errors=True)
        os.close(self._socket_lock)


def _remove_stale_sockets() -> None:
    """Removes the socket folders that killed processes left: nobody holds the lock on them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SOCKET_PREFIX}*"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            about = os.fstat(handle)
            # One that was just made may not be locked yet.
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > SOCKET_SETTLED:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)


def _quiet_training() -> None:
    """FAISS writes to standard error that a cell has few vectors; ours is one cell with all."""
    from milvus_lite.index import faiss_ivf_flat

    vendor = faiss_ivf_flat.faiss
    if (made := vendor.IndexIVFFlat).__module__ == __name__:
        return

    def quiet(*arguments: Any) -> Any:
        index = made(*arguments)
        index.cp.min_points_per_centroid = 1
        return index

    vendor.IndexIVFFlat = quiet


# The vendor

_vendor_lock = threading.Lock()


@lru_cache(maxsize=1)
def _vendor() -> SimpleNamespace:
    """pymilvus and what it throws, imported at the first call (0.7 s).

    On import it reads `.env` and connects its own default to `MILVUS_URI`, where it refuses a path.
    """
    quiet = {"MILVUS_URI": "", "PYTHON_DOTENV_DISABLED": "1"}
    with _vendor_lock, _environment(quiet):
        import grpc
        import pymilvus
        from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError

    # It logs a traceback for every error that it also raises.
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite.adapter"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return SimpleNamespace(
        MilvusClient=pymilvus.MilvusClient,
        MilvusException=pymilvus.MilvusException,
        DataType=pymilvus.DataType,
        Locked=DataDirLockedError,
        errors=(
            pymilvus.MilvusException,
            MilvusLiteError,
            grpc.RpcError,
            grpc.FutureTimeoutError,
            OSError,
            ValueError,  # damaged files, closed channels
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


@contextmanager
def _vendor_errors_translated(embedded: bool) -> Iterator[None]:
    vendor = _vendor()
    try:
        yield
    except vendor.Locked as error:
        raise VectorStoreLocked(
            _(
                "The embedded vector database is open in another process, usually the running "
                "server. Stop that one first; or serve the database to both with `script/milvus` "
                "and set MILVUS_URI to http://127.0.0.1:19530."
            )
        ) from error
    except vendor.errors as error:
        first_line = next(iter(str(error).splitlines()), "")
        logger.warning("Milvus failed: %s: %s", type(error).__name__, first_line)
        raise VectorStoreUnavailable(_way_out(error, embedded)) from error


def _way_out(error: Exception, embedded: bool) -> str:
    if not embedded:
        return _(
            "The Milvus server did not answer or refused the call. Check that it runs and that "
            "MILVUS_URI and MILVUS_TOKEN are right; then run `manage.py reindex`."
        )
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return _(
            "MILVUS_URI names a file, and the embedded vector database is a folder. Move the file "
            "away (an older Milvus Lite made it), then run `manage.py reindex`."
        )
    return _(
        "The embedded vector database failed. Check that the folder in MILVUS_URI is writable and "
        "its disk not full. If it is damaged, stop the server and run "
        "`manage.py reindex --rebuild`: it is made anew from SQL."
    )


def _knock(address: str, timeout: float) -> None:
    """Fail at once where nothing listens: gRPC would go on trying until its time is up."""
    parts = urlsplit(address)
    if parts.scheme != "unix":
        port = parts.port or (443 if parts.scheme == "https" else 19530)
        socket.create_connection((parts.hostname or "localhost", port), timeout).close()


def _check_schema(description: dict[str, Any]) -> None:
    fields = {item["name"]: item for item in description["fields"]}
    types = _vendor().DataType
    expected = {"id": types.INT64, "embedding": types.FLOAT_VECTOR}
    expected |= dict.fromkeys(VARCHAR_BYTES, types.VARCHAR)
    same = (
        {name: item["type"] for name, item in fields.items()} == expected
        and not description.get("auto_id")
        and int(fields["embedding"]["params"]["dim"]) == EMBEDDING_DIM
        and all(
            int(fields[name]["params"]["max_length"]) >= size
            for name, size in VARCHAR_BYTES.items()
        )
    )
    if not same:
        raise VectorStoreUnavailable(
            _(
                "The collection face_embeddings in the vector database has other fields than this "
                "version writes. Nothing was changed. Point MILVUS_URI at an empty database, or "
                "replace the collection with `manage.py reindex --rebuild`."
            )
        )


# Values


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH_ROWS):
        yield items[start : start + BATCH_ROWS]


def _as_matrix(vectors: np.ndarray) -> np.ndarray:
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != EMBEDDING_DIM or not np.isfinite(matrix).all():
        raise ValueError(f"Expected finite vectors of shape (N, 512), not {matrix.shape}.")
    return matrix


def _as_cosine(value: float) -> float:
    """FAISS gives 1.0000002 for a vector and itself."""
    return max(-1.0, min(1.0, float(value)))


def _as_entity(row: VectorRow) -> dict[str, Any]:
    for name, limit in VARCHAR_BYTES.items():
        if (size := len(getattr(row, name).encode())) > limit:
            raise ValueError(f"{name} of row {row.id} has {size} bytes; at most {limit} fit.")
    return {
        "id": row.id,
        "embedding": _as_matrix(row.embedding[None])[0],
        "person_id": row.person_id,
        "image_path": row.image_path,
        "created_at": row.created_at,
    }


# One store a process

_store: MilvusVectorStore | None = None
_store_key: tuple[str, str, float, VectorIndex] | None = None
_store_lock = threading.Lock()


def configured_index() -> VectorIndex:
    """How the settings say that the nearest are found."""
    settings = get_settings()
    return VectorIndex(
        settings.milvus_index,
        settings.milvus_hnsw_m,
        settings.milvus_hnsw_ef_construction,
        settings.milvus_hnsw_ef,
    )


def get_vector_store() -> MilvusVectorStore:
    """The store of this process; a new one when the Milvus settings have changed."""
    global _store, _store_key
    settings = get_settings()
    address = str(settings.milvus_uri)
    key = (address, settings.milvus_token, settings.milvus_timeout, configured_index())
    with _store_lock:
        if _store is None or key != _store_key:
            if _store:
                _store.close()
            _store, _store_key = MilvusVectorStore(*key), key
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
    """A child cannot use its parent's gRPC threads; it opens its own, or is told it is locked."""
    global _store, _store_lock
    _store, _store_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
