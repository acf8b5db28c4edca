"""The number of processor threads of each part of the work."""

from __future__ import annotations

import os

from recognition.conf import get_settings


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def size_threads() -> None:
    """Give OpenCV as many threads as one forward pass has."""
    import cv2

    cv2.setNumThreads(network_threads())


def network_threads() -> int:
    """Return the number of threads of one forward pass."""
    return get_settings().torch_threads or available_cores()
