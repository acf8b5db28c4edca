"""Which unknown faces look like one stranger, found as they come."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
from django.db import connection

from enrollment.gallery import Weights, thresholds_in_force
from enrollment.models import Probe
from enrollment.probes.encryption import SealBroken, unseal
from recognition.decision import Decision
from recognition.vector_store import EMBEDDING_DIM

MOST_COMPARED: Final = 20_000  # newest waiting faces that a new one is compared with: 40 MB
_READ_AT_A_TIME: Final = 1_000
_LOCK: Final = 0x6661636547524F55  # of PostgreSQL; any number that nobody else takes
Key = tuple[
    int, int
]  # number and group: a number alone comes again after a transaction that failed


def begin_groups_alone() -> None:
    """Let nobody else group strangers until the caller's transaction ends.

    Two searches for one stranger at the same time would each begin a group. SQLite has one writer anyway.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def group_of(vector: np.ndarray, weights: Weights) -> int:
    """Return the group of the nearest waiting stranger from the `match` threshold on, or a new one.

    `vector` is 512 float32 of length 1. The thresholds rise with the number of faces compared, as
    those of a search do.
    """
    thresholds = thresholds_in_force(weights)
    known = _strangers(weights).nearest(vector) if thresholds else None
    if thresholds and known:
        similarity, group, compared = known
        if similarity >= thresholds.for_search(compared).match.similarity:
            return group
    return secrets.randbits(62)


@lru_cache(maxsize=4)
def _strangers(weights: Weights) -> _Strangers:
    return _Strangers(weights)


class _Strangers:
    """The vectors of the waiting unknown faces, deciphered once and followed since."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._lock = threading.Lock()
        self._keys: list[Key] = []
        self._vectors = np.empty((0, EMBEDDING_DIM), np.float32)

    def nearest(self, vector: np.ndarray) -> tuple[float, int, int] | None:
        """Return the highest cosine, its group, and how many faces were compared; None without any."""
        with self._lock:
            self._follow()
            if not self._keys:
                return None
            cosines = self._vectors @ vector
            best = int(cosines.argmax())
            return float(cosines[best]), self._keys[best][1], len(self._keys)

    def _follow(self) -> None:
        """Drop the faces that wait no more, and read those that came."""
        waiting = Probe.objects.waiting().filter(
            decision=Decision.UNKNOWN,
            model=self._weights.model,
            fingerprint=self._weights.fingerprint,
            group__isnull=False,
        )
        newest = max((pk for pk, _group in self._keys), default=0)
        came = list(waiting.filter(pk__gt=newest).order_by("pk").values_list("pk", "group"))
        if len(self._keys) + len(came) == waiting.count() <= MOST_COMPARED:  # none went
            self._keys += came
            self._vectors = np.concatenate([self._vectors, _read(pk for pk, _group in came)])
            return
        now: set[Key] = set(waiting.order_by("-pk").values_list("pk", "group")[:MOST_COMPARED])
        stay = [place for place, key in enumerate(self._keys) if key in now]
        known = [self._keys[place] for place in stay]
        new = sorted(now - set(known))
        self._keys = known + new
        self._vectors = np.concatenate([self._vectors[stay], _read(pk for pk, _group in new)])


def _read(ids: Iterable[int]) -> np.ndarray:
    """Return the vectors of these probes, N×512 float32; zeros for what cannot be read."""
    wanted = list(ids)
    vectors = np.zeros((len(wanted), EMBEDDING_DIM), np.float32)
    for start in range(0, len(wanted), _READ_AT_A_TIME):
        some = wanted[start : start + _READ_AT_A_TIME]
        sealed = dict(Probe.objects.filter(pk__in=some).values_list("pk", "vector"))
        for place, pk in enumerate(some, start):
            try:
                vectors[place] = np.frombuffer(unseal(sealed.get(pk) or b""), "<f4")
            except SealBroken:
                continue
    return vectors
