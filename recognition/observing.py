"""What this process measures of its own work, for who scrapes `/metrics`. Knows no HTTP.

Counts and times only: no label holds anything of a person, and each has few values.
"""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import Counter, Histogram
from prometheus_client.context_managers import Timer

Stage = Literal["thread", "pixels", "decode", "detect", "embed", "search"]

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FACES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES: Final = Histogram(
    "faces_stage_seconds",
    "Time of one step of the work: thread (a request waits for a free thread), pixels (a picture"
    " waits until there is room to decode it), decode, detect, embed (a batch), search.",
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
    """Return a context manager, also a decorator, that observes how long the stage takes."""
    return STAGES.labels(stage).time()
