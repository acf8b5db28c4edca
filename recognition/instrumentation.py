"""Metrics of this process's own work, for `/metrics`; independent of HTTP.

They are counts and times only. No label contains personal data, and each has few values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Literal

from prometheus_client import Counter, Histogram

Stage = Literal["thread", "pixels", "decode", "detect", "queue", "embed", "liveness", "search"]

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FACES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES: Final = Histogram(
    "faces_stage_seconds",
    "Time of one step of the work: thread (a request waits for a free thread), pixels (a picture"
    " waits until there is room to decode it), decode, detect, queue (faces"
    " wait for the network), embed (a batch), liveness, search.",
    ["stage"],
    buckets=SECONDS,
)
BATCHES: Final = Histogram(
    "faces_batch_size", "Faces that went through a network at once.", buckets=FACES
)
DECISIONS: Final = Counter(
    "faces_decisions",
    "Faces searched or verified, by the decision about the best hit; none: there was no verdict.",
    ["decision"],
)


def open_no_span(name: str) -> AbstractContextManager[object]:
    return nullcontext()


# Opens a span of a trace; whoever composes the service may replace it.
open_span: Callable[[str], AbstractContextManager[object]] = open_no_span


@contextmanager
def timed(stage: Stage) -> Iterator[None]:
    """Record the duration of the stage; usable as a decorator, too."""
    with STAGES.labels(stage).time(), open_span(stage):
        yield
