"""Metrics of this process's own work, for `/metrics`; independent of HTTP.

They are counts and times only. No label contains personal data, and each has few values.
"""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import Counter, Histogram
from prometheus_client.context_managers import Timer

Stage = Literal["thread", "pixels", "decode", "detect", "queue", "embed", "search"]

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FACES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES: Final = Histogram(
    "faces_stage_seconds",
    "Time of one step of the work: thread (a request waits for a free thread), pixels (a picture"
    " waits until there is room to decode it), decode, detect, queue (faces"
    " wait for the network), embed (a batch), search.",
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


def timed(stage: Stage) -> Timer:
    """Return a context manager, usable as a decorator, that records the duration of the stage."""
    return STAGES.labels(stage).time()
