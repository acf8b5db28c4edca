"""A pool of networks that are not thread-safe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Generic, TypeVar

from recognition.threads import available_cores

Network = TypeVar("Network")


class NetworkPool(Generic[Network]):
    """At most one network for each core, loaded when first needed.

    A network shared by threads fails in OpenCV assertions. A network for each thread would be
    loaded again by servers that start a thread for each request, and would keep 30 to 100 MB each.
    """

    def __init__(self, load: Callable[[], Network]) -> None:
        self._load = load
        self._idle: deque[Network] = deque()
        self._turns = BoundedSemaphore(available_cores())

    @contextmanager
    def network(self) -> Iterator[Network]:
        """Reserve a network for this thread until the block ends."""
        with self._turns:
            try:
                network = self._idle.pop()
            except IndexError:
                network = self._load()
            yield network
            self._idle.append(network)  # not after an exception, which may leave it unusable
