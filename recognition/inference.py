"""A queue of crops for each device, and its threads, which run the networks.

    future = get_queue().submit(crops, "mobilenetv3_large")  # returns at once
    embeddings = future.result()  # or: await asyncio.wrap_future(future)

All embeddings are made here; `recognition.embedding.embed_crops` does both steps in one call. A
thread puts the crops that wait for the same network into one batch. It never waits for more crops: an
idle device starts at once. While a batch is computed the next one is handed over already, if as many
requests wait as it has places: the device then never waits until a thread of Python has its turn.

A batch is divided equally among the requests in it. A single face therefore overtakes a request
with a hundred faces, which in turn gets a share of every batch. Where there are more requests than
a batch has places they take turns. All bulk work together counts as one request, and gets what the
others leave.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, NamedTuple

import numpy as np

from recognition.conf import get_settings
from recognition.exceptions import Overloaded
from recognition.instrumentation import BATCHES, STAGES, timed
from recognition.networks import LoadedNetwork, load_network
from recognition.networks.device import CPU, choose_device
from recognition.networks.loader import no_embedding
from recognition.networks.registry import CROP_SIZE, EMBEDDING_DIM
from recognition.networks.runtime import HANDED_OVER
from recognition.sentences import gettext

logger = logging.getLogger(__name__)

# Larger batches are no faster on a processor (docs/performance.md), and the next face waits longer.
CPU_BATCH: Final = 8
LEAST_LENGTH: Final = 1e-12  # of an embedding that is divided by its length
END_SECONDS: Final = 5.0  # how long the end of the process waits for the batch that runs
FIRST_PACE: Final = 0.01  # seconds a crop, before any was measured


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors` is N×512 float32, each of length 1; vectors of other weights are not comparable."""

    vectors: np.ndarray
    model: str
    fingerprint: str


@dataclass(slots=True, eq=False)
class _Request:
    """Crops (N×112×112×3 uint8 RGB) on their way to vectors (N×512 float32)."""

    loaded: LoadedNetwork
    crops: np.ndarray
    vectors: np.ndarray
    future: Future[Embeddings] = field(default_factory=Future)
    is_bulk: bool = False
    since: float = field(default_factory=monotonic)
    taken: int = 0  # crops that were given to a batch
    done: int = 0

    @property
    def left(self) -> int:
        return len(self.crops) - self.taken


class _Part(NamedTuple):
    """The crops of one request that are in a batch."""

    request: _Request
    start: int
    end: int


class InferenceQueue:
    """The queue of one device. Its threads start at the first crop and end with the process."""

    def __init__(self) -> None:
        self._asked: deque[_Request] = deque()  # somebody waits for the answer
        self._bulk: deque[_Request] = deque()
        self._bulk_leads = False  # whether the next batch is for the network of the bulk work
        self._waiting = 0  # crops that no batch has taken
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._running = 0  # batches
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._pace = FIRST_PACE
        self._ended = 0.0  # when the last batch did, by `monotonic`

    def submit(
        self, crops: Sequence[np.ndarray] | np.ndarray, model: str, *, bulk: bool = False
    ) -> Future[Embeddings]:
        """Put N crops of 112×112×3 uint8 RGB into the queue and return their future embeddings.

        If there would be more than `MAX_WAITING_FACES`, raise `Overloaded`. With `bulk`, for imports
        and commands, block instead until there is room, which for bulk work is half of it. An empty
        queue accepts any number. Raise `WeightsUnavailable` if the model does not load. The future
        raises the errors of the network that concern these crops.
        """
        loaded = load_network(model)
        request = _Request(loaded, _stacked(crops), np.empty((len(crops), EMBEDDING_DIM), "f4"))
        request.is_bulk = bulk
        if not len(request.crops):
            request.future.set_result(_embeddings(request))
            return request.future
        with self._lock:
            while not self._has_room(request):
                if not bulk:
                    raise self._overloaded()
                self._room.wait()
            if self._closed:
                raise RuntimeError("The process ends: no faces are embedded any more.")
            self._queue_of(request).append(request)
            self._waiting += len(request.crops)
            self._start()
            self._arrived.notify()
        return request.future

    @property
    def waiting(self) -> int:
        """Return the number of crops that no batch has taken yet."""
        return self._waiting

    def close(self) -> None:
        """End the threads after the running batches, and cancel all that waits."""
        with self._lock:
            self._closed = True
            self._waiting = 0
            requests = [*self._asked, *self._bulk]
            self._asked.clear()
            self._bulk.clear()
            self._arrived.notify_all()
            self._room.notify_all()
        for request in requests:
            if not request.future.cancel():  # a part of it is done
                request.future.set_exception(CancelledError())
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _queue_of(self, request: _Request) -> deque[_Request]:
        return self._bulk if request.is_bulk else self._asked

    def _has_room(self, request: _Request) -> bool:
        most = get_settings().max_waiting_faces // (2 if request.is_bulk else 1)
        return self._closed or not self._waiting or self._waiting + request.left <= most

    def _overloaded(self) -> Overloaded:
        seconds = max(1, math.ceil(self._waiting * self._pace))
        message = gettext(
            "%(count)d faces wait for the network already, and the server takes no more. Send the "
            "request again in %(seconds)d seconds."
        )
        return Overloaded(message % {"count": self._waiting, "seconds": seconds}, seconds)

    def _start(self) -> None:
        while len(self._threads) < HANDED_OVER:
            self._threads.append(threading.Thread(target=self._work, name="inference", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._is_due():
                    if self._closed:
                        return
                    self._arrived.wait()
                batch = self._next_batch()
                self._running += 1
                self._room.notify_all()
            try:
                self._run(batch)
            except (
                Exception
            ) as error:  # the thread outlives it: nobody else would answer the others
                logger.exception("A batch was not answered")
                _fail_all(batch, error)
            del batch  # and with it the crops, before the next ones are waited for
            with self._lock:
                self._running -= 1

    def _is_due(self) -> bool:
        """Return whether the next batch is to begin; beside another one, only if it will be full."""
        if not self._running:
            return bool(self._asked or self._bulk)
        return bool(self._asked) and len(self._asked) >= batch_size(self._asked[0].loaded.device)

    def _next_batch(self) -> list[_Part]:
        """Take the next batch out of the queue, all of it for one network.

        The rest of a request goes to the end of the queue, so that nobody waits forever. Where requests
        and bulk work are for different networks, they take turns.
        """
        bulk_leads = bool(self._bulk) and (self._bulk_leads or not self._asked)
        self._bulk_leads = not bulk_leads
        loaded = (self._bulk if bulk_leads else self._asked)[0].loaded
        size = batch_size(loaded.device)
        asked = [request for request in self._asked if request.loaded is loaded]
        bulk = [request for request in self._bulk if request.loaded is loaded]
        if size == 1:
            asked, bulk = ([], bulk) if bulk_leads else (asked, [])
        asked = asked[: size - bool(bulk)]
        wanted = [request.left for request in asked]
        *shares, share_of_bulk = equal_shares([*wanted, sum(each.left for each in bulk)], size)
        for request in bulk:
            shares.append(min(request.left, share_of_bulk))
            share_of_bulk -= shares[-1]
        members = zip([*asked, *bulk], shares, strict=True)
        return list(self._take([member for member in members if member[1]]))

    def _take(self, members: Iterable[tuple[_Request, int]]) -> Iterator[_Part]:
        for request, share in members:
            queue = self._queue_of(request)
            queue.remove(request)
            if not request.taken and not request.future.set_running_or_notify_cancel():
                self._waiting -= request.left
                continue
            if not request.taken:
                STAGES.labels("queue").observe(monotonic() - request.since)
            yield _Part(request, request.taken, request.taken + share)
            request.taken += share
            self._waiting -= share
            if request.left:
                queue.append(request)

    def _run(self, batch: Sequence[_Part]) -> None:
        if not batch:  # all were cancelled
            return
        begin = monotonic()
        parts = [part.request.crops[part.start : part.end] for part in batch]
        crops = np.concatenate(parts) if len(parts) > 1 else parts[0]
        try:
            vectors = forward(batch[0].request.loaded, crops)
        except Exception as error:  # noqa: BLE001 (raised where its result is asked for)
            self._fail(batch, error)
            return
        place = 0
        for request, start, end in batch:
            request.vectors[start:end] = vectors[place : place + end - start]
            place += end - start
        with self._lock:  # another part of a request may end at the same time
            now = monotonic()
            self._pace += 0.1 * ((now - max(begin, self._ended)) / len(crops) - self._pace)
            self._ended = now
            for request, start, end in batch:
                request.done += end - start
            ready = [part.request for part in batch if part.request.done == len(part.request.crops)]
        for request in ready:
            request.future.set_result(_embeddings(request))

    def _fail(self, batch: Sequence[_Part], error: Exception) -> None:
        """Run each request of the batch alone, so that only those that fail get the error."""
        if len(batch) > 1:
            logger.warning(
                "A batch of %d requests failed and is run one by one: %s", len(batch), error
            )
            for part in batch:
                self._run([part])
            return
        request = batch[0].request
        with self._lock:
            queue = self._queue_of(request)
            if request in queue:
                queue.remove(request)
                self._waiting -= request.left
                self._room.notify_all()
        _fail_all(batch, error)


def _fail_all(batch: Sequence[_Part], error: Exception) -> None:
    for request, _start, _end in batch:
        with suppress(InvalidStateError):  # it has its answer already
            request.future.set_exception(error)


def forward(loaded: LoadedNetwork, crops: np.ndarray) -> np.ndarray:
    """Return the N×512 float32 embeddings, each of length 1, of N×112×112×3 uint8 RGB crops.

    With `FLIP_TTA` an embedding is the mean of those of the crop and of its mirror image. Raise
    `WeightsUnavailable` if one is not finite.
    """
    BATCHES.observe(len(crops))
    with timed("embed"):
        vectors = loaded.runtime.run(crops)
        if loaded.weights.flip_tta:
            # To normalise each before changes nothing (2,000 pairs, TAR at an FMR of 1 %, earlier
            # weights: 80.6 % instead of 80.4 %).
            vectors += loaded.runtime.run(np.ascontiguousarray(crops[:, :, ::-1]))
    lengths = np.sqrt(np.add.reduce(vectors * vectors, axis=1, keepdims=True))
    if not np.isfinite(lengths).all():  # stored, they would spoil whatever compares all vectors
        raise no_embedding(loaded.network.name, loaded.weights.path)
    return np.asarray(vectors / np.maximum(lengths, LEAST_LENGTH))


def batch_size(device: str) -> int:
    """Return the largest number of crops in one batch on the device."""
    size = get_settings().embed_batch_size
    return min(size, CPU_BATCH) if device == CPU else size


def equal_shares(wanted: Sequence[int], most: int) -> list[int]:
    """Divide `most` among those who want so many; return as equal shares as the wishes allow.

    Where `wanted` holds at most `most` positive numbers, each of these gets a positive share.
    """
    shares = [0] * len(wanted)
    for place, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = min(wanted[index], most // (len(wanted) - place))
        most -= shares[index]
    return shares


def _stacked(crops: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return the crops as one array. Raise ValueError for another shape or type."""
    shape = (CROP_SIZE, CROP_SIZE, 3)
    for crop in crops:
        if crop.shape != shape or crop.dtype != np.uint8:
            raise ValueError(
                f"A crop is {CROP_SIZE}×{CROP_SIZE}×3 uint8 RGB; got {crop.shape} {crop.dtype}."
            )
    return np.stack(list(crops)) if len(crops) else np.empty((0, *shape), np.uint8)


def _embeddings(request: _Request) -> Embeddings:
    return Embeddings(
        request.vectors, request.loaded.network.name, request.loaded.weights.fingerprint
    )


_queues: dict[str, InferenceQueue] = {}
_making = threading.Lock()


def get_queue() -> InferenceQueue:
    """Return the queue of the device in use."""
    device = choose_device(get_settings().device)
    if device not in _queues:
        with _making:
            _queues.setdefault(device, InferenceQueue())
    return _queues[device]


def waiting_faces() -> int:
    """Return how many crops wait in all queues of this process; choose no device for that."""
    return sum(queue.waiting for queue in list(_queues.values()))


@atexit.register
def close_queues() -> None:
    """End the threads of all queues; the next embedding starts a new one."""
    for device in list(_queues):
        _queues.pop(device).close()


def _forget_queues() -> None:
    """Forget the queues after a fork, as their threads exist in the parent only."""
    global _making
    _making = threading.Lock()
    _queues.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_queues)
