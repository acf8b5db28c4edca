"""`/metrics` for Prometheus. Its cost does not grow with the number or frequency of scrapes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, Final, Generic, TypeVar

from django.conf import settings
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from enrollment.gallery import GalleryState, gallery_state
from enrollment.upkeep import Waiting, waiting_work
from recognition.api.access import OpenOnLoopback, is_let_in
from recognition.conf import get_settings
from recognition.detection import chosen_detector
from recognition.exceptions import RecognitionError
from recognition.inference import waiting_faces
from recognition.networks import find_weights, loaded_names, usable_names
from recognition.networks.loader import load_failure
from recognition.vector_store import get_vector_store

Answer = TypeVar("Answer")

KEPT_SECONDS: Final = 15.0  # how long an answer is reused
PATIENCE_SECONDS: Final = 2.0  # how long a scrape waits for a database; Prometheus waits ten


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics to clients that are let in; a token of any scope is enough."""
    if not is_let_in(request):
        headers = {"WWW-Authenticate": "Token"}
        text = "text/plain; charset=utf-8"
        return HttpResponse(OpenOnLoopback.message, status=401, content_type=text, headers=headers)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(REGISTRY), content_type=content_type)


class Question(Generic[Answer]):
    """A query that may hang. It runs in its own thread, at most every `KEPT_SECONDS`."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._lock = threading.Lock()
        self._asked: Future[Answer] | None = None
        self._at = 0.0

    def answer(self) -> Answer | None:
        """Return the answer; None if there is none in time, or SQL or Milvus fails."""
        with self._lock:
            old = time.monotonic() - self._at > KEPT_SECONDS
            if self._asked is None or (self._asked.done() and old):
                self._asked, self._at = self._thread.submit(self._ask_alone), time.monotonic()
            asked = self._asked
        try:
            return asked.result(PATIENCE_SECONDS)
        except (NotInTime, DatabaseError, RecognitionError):
            return None

    def forget(self) -> None:
        """Ask again the next time."""
        self._at = -KEPT_SECONDS

    def _ask_alone(self) -> Answer:
        try:
            return self._ask()
        finally:
            connections.close_all()


def _ask_sql() -> tuple[GalleryState, dict[str, Waiting]]:
    return gallery_state(), waiting_work()


sql: Final = Question(_ask_sql)
milvus: Final = Question(lambda: get_vector_store().ping())


class ServiceCollector(Collector):
    """The metrics that are computed at each scrape; counters are updated where the events occur."""

    def describe(self) -> Iterable[Metric]:
        return ()  # otherwise registering would query the databases

    def collect(self) -> Iterator[Metric]:
        found = sql.answer()
        yield _gauge("faces_sql_up", "Whether the SQL database answers.", found is not None)
        yield _gauge(
            "faces_milvus_up", "Whether the vector database answers.", bool(milvus.answer())
        )
        yield from _queue()
        yield from _models()
        yield _free_space()
        if found is not None:  # unknown values are left out instead of being 0
            yield from _gallery(found[0])
            yield from _waiting(found[1])


def _gallery(state: GalleryState) -> Iterator[Metric]:
    yield _gauge("faces_persons", "Persons enrolled.", state.persons)
    yield _gauge("faces_pictures", "Pictures enrolled.", state.pictures)
    yield _gauge("faces_pictures_doubtful", "Pictures with an open doubt.", state.doubtful_pictures)
    yield _gauge(
        "faces_pictures_unjudged",
        "Pictures not compared with the gallery yet.",
        state.unjudged_pictures,
    )
    vectors = GaugeMetricFamily(
        "faces_vectors",
        "Embeddings by state: pending (to be copied to the vector database), indexed (found by"
        " searches), failed.",
        labels=["state"],
    )
    for name in ("pending", "indexed", "failed"):
        vectors.add_metric([name], getattr(state, name))
    yield vectors


def _waiting(work: dict[str, Waiting]) -> Iterator[Metric]:
    meanings = "backlog (embeddings to be copied), outbox (vectors and files to be removed), tasks"
    count = GaugeMetricFamily(
        "faces_waiting",
        f"Work that waits, by kind: {meanings} (of script/worker).",
        labels=["kind"],
    )
    age = GaugeMetricFamily(
        "faces_waiting_age_seconds", "For how long the oldest of it does.", labels=["kind"]
    )
    for kind, waiting in work.items():
        count.add_metric([kind], waiting.count)
        age.add_metric([kind], waiting.age)
    yield count
    yield age


def _queue() -> Iterator[Metric]:
    yield _gauge("faces_queue_waiting", "Faces that wait for a network.", waiting_faces())
    most = get_settings().max_waiting_faces
    yield _gauge("faces_queue_limit", "How many may wait (MAX_WAITING_FACES).", most)


def _models() -> Iterator[Metric]:
    chosen = get_settings()
    up = GaugeMetricFamily(
        "faces_model_up", "Whether the model's weights are there and load.", labels=["model"]
    )
    loaded = GaugeMetricFamily(
        "faces_model_loaded", "Whether the model is in memory.", labels=["model"]
    )
    usable, in_memory = usable_names(), loaded_names()
    for name in sorted({chosen.default_model, *chosen.int8_models, *usable}):
        up.add_metric([name], name in usable and load_failure(name) is None)
        loaded.add_metric([name], name in in_memory)
    yield up
    yield loaded
    in_use = {
        "model": chosen.default_model,
        "weights": find_weights(chosen.default_model).fingerprint
        if chosen.default_model in usable
        else "",
        "detector": chosen_detector().name,
    }
    yield InfoMetricFamily(
        "faces_recognition", "The default model, its weights and the detector.", in_use
    )


def _free_space() -> Metric:
    try:
        free = shutil.disk_usage(settings.DATA_DIR).free
    except OSError:
        free = 0
    return _gauge("faces_data_dir_free_bytes", "Room left on the disk of DATA_DIR.", free)


def _gauge(name: str, meaning: str, value: Any) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))
