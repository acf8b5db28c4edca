"""What is measured of a server, and what its parts allow to expect."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from faceproject.benchmark.load import BenchmarkError, Call, Load, Target, form
from faceproject.benchmark.serving import Installation, Server
from recognition.benchmark import (
    MADE_UP_SIDE,
    Sample,
    Step,
    Timing,
    as_jpeg,
    made_up_probes,
    measure_search,
)
from recognition.networks import find_weights
from recognition.threads import available_cores
from recognition.vector_store import LiteVectorStore, configured_index, partition_name

# What is asked of this service (docs/performance.md): times at the most, throughputs at the least.
MOST_OF_NETWORK: Final = 1.5  # a crop, of the network alone
MOST_OF_PHOTO: Final = 1.2  # a photo, of finding its face and the network alone
LEAST_OF_PARTS: Final = 0.8  # of the crops a second that the parts allow
LEAST_OF_PARTS_BATCH: Final = 0.9
MOST_OF_FAISS: Final = 1.5  # a search, of flat FAISS alone, besides
SEARCH_MS: Final = 5.0  # for HTTP and SQL
MOST_MEGABYTES: Final = 1_500.0

EMBEDDING, BATCH, SEARCH = "/api/embedding", "/api/embeddings/batch", "/api/milvus/search"
AS_CROP: Final = {"use_face_detection": "false"}
NEAREST: Final = 10
LARGE_PHOTOS: Final = 4
SETTLE_SECONDS: Final = 60.0
TURNS: Final = 3  # of a request and its parts; shorter ones would be all beginning and end


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    seconds: float = 2.0  # for each figure
    made_up: int = MADE_UP_SIDE  # of the picture that is made where none is given, in pixels
    sides: tuple[int, ...] = (640, 1024, 1920)  # of pictures in which faces are found, in pixels
    photo: int = 1024  # of these, the one that is sent
    batches: tuple[int, ...] = (1, 8, 32)  # crops that a network is given at once
    batch: int = 32  # pictures in a request
    clients: tuple[int, ...] = (1, 4, 16)
    searchers: tuple[int, ...] = (1, 10)
    large: tuple[int, int] = (4000, 3000)  # a photo of 12 megapixels
    galleries: tuple[int, ...] = (1_000, 10_000)


QUICK: Final = Plan(
    seconds=0.0,
    made_up=320,
    sides=(320,),
    photo=320,
    batches=(1, 2),
    batch=2,
    clients=(1, 2),
    searchers=(1, 2),
    large=(400, 300),
    galleries=(20, 50),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The answers of a server to one load."""

    answers: int
    refused: int
    refusal: str  # why, the last one
    median_ms: float
    p95_ms: float
    per_second: float  # pictures

    @classmethod
    def of(cls, load: Load) -> Figures:
        return cls(
            answers=len(load.seconds),
            refused=load.refused,
            refusal=load.refusal,
            median_ms=load.milliseconds(0.5),
            p95_ms=load.milliseconds(0.95),
            per_second=load.per_second,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one load has shown, and what its parts allow to expect.

    `step` is `crop` (an aligned face), `batch` (`size` of them in a request), `photo` (`size` pixels),
    `large` (photos of `size` pixels altogether), `search` (an embedding among `size` vectors) or
    `search_picture` (an aligned face). `unit` says which figure is compared: `ms` is the median, `/s`
    the pictures a second, `MB` the most memory. `alone` is the same figure of the parts; `limit` is
    the most, of `/s` the least, to be expected.
    """

    step: str
    model: str
    clients: int
    size: int | None
    unit: Literal["ms", "/s", "MB"]
    figures: Figures
    cores: float | None  # that the server kept busy
    client_cores: float  # that the clients took from it
    alone: float | None = None
    limit: float | None = None
    megabytes: float | None = None
    theirs: Figures | None = None  # of the other server
    their_failure: str = ""

    @property
    def value(self) -> float:
        """The figure that is compared."""
        return (self.megabytes or 0.0) if self.unit == "MB" else self._of(self.figures)

    @property
    def ratio(self) -> float | None:
        """The figure, in parts of what the parts alone take or give."""
        return self.value / self.alone if self.alone else None

    @property
    def within(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.limit is None or (self.unit == "MB" and self.megabytes is None):
            return None
        return self.value >= self.limit if self.unit == "/s" else self.value <= self.limit

    @property
    def their_value(self) -> float | None:
        return self._of(self.theirs) if self.theirs else None

    @property
    def times_theirs(self) -> float | None:
        """How many times as good it is as the other server: as fast, or as many a second."""
        if not self.theirs:
            return None
        ours, theirs = self.value, self._of(self.theirs)
        return ours / theirs if self.unit == "/s" else theirs / ours

    def as_dict(self) -> dict[str, Any]:
        computed = {"ratio": self.ratio, "within": self.within, "times_theirs": self.times_theirs}
        return asdict(self) | computed

    def _of(self, figures: Figures) -> float:
        return figures.per_second if self.unit == "/s" else figures.median_ms


class Parts:
    """The steps that a request is made of, by themselves in this process."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    def network(self, model: str) -> list[Step]:
        """Return the network alone with one crop."""
        return [step for step in self._networks(model) if step.size == 1]

    def photo(self, model: str, side: int) -> list[Step]:
        """Return finding the largest face of a photo, and the network."""
        largest = (step for step in self._steps if step.step == "detect_largest")
        return [*(step for step in largest if step.size == side), *self.network(model)]

    def crops(self, model: str) -> list[Step]:
        """Return decoding, and the network with each number of crops."""
        decoding = (step for step in self._steps if step.step == "decode")
        return [*decoding, *self._networks(model)]

    def _networks(self, model: str) -> list[Step]:
        return [step for step in self._steps if (step.step, step.model) == ("network", model)]


def _together(timings: Sequence[Timing]) -> float:
    """Return the milliseconds of one after the other."""
    return sum(timing.median_ms for timing in timings)


def _crops_per_second(timings: Sequence[Timing]) -> float:
    """Return the crops that can be decoded, judged and embedded in a second on all cores.

    The network takes them in the best of the measured batches, and keeps all cores busy by itself.
    """
    decoding = next(1 / timing.per_second for timing in timings if timing.step == "decode")
    most = max(timing.per_second for timing in timings if timing.step == "network")
    return 1 / (decoding / available_cores() + 1 / most)


def measure_server(
    sample: Sample,
    models: Sequence[str],
    steps: Sequence[Step],
    plan: Plan,
    other: Target | None = None,
) -> Iterator[Timing | Row]:
    """Yield the figures of a server that runs beside this process, on an installation of its own.

    `steps` are the parts, each of which is timed in turn with the requests that it is a part of; the
    searches alone are timed here, and yielded. The first model is searched with. `other` is asked the same, but for what the contract has not. Raise
    `BenchmarkError` or `RecognitionError`.
    """
    parts, model = Parts(steps), models[0]
    with TemporaryDirectory(prefix="benchmark-") as folder:
        installation = Installation(Path(folder))
        installation.fill(model, 0)
        with installation.served() as server:
            measurement = _Measurement(server, other, sample, plan)
            for name in models:
                yield from measurement.of_pictures(name, parts)
            yield measurement.of_memory(model)
        for size in sorted(plan.galleries):
            installation.fill(model, size)
            faiss, search = _search_alone(installation, model, size, plan.seconds)
            yield from (faiss, search)
            with installation.served() as server:
                measurement = _Measurement(server, other, sample, plan)
                yield from measurement.of_searches(model, faiss)


def _search_alone(
    installation: Installation, model: str, size: int, seconds: float
) -> tuple[Timing, Timing]:
    partition = partition_name(model, find_weights(model).fingerprint)
    store = LiteVectorStore(installation.store, index=configured_index())
    try:
        faiss, search = measure_search(store, partition, size, seconds)
    finally:
        store.close()
    return faiss, search


class _Measurement:
    """Loads a server, and the other one after it, with the same requests."""

    def __init__(self, server: Server, other: Target | None, sample: Sample, plan: Plan) -> None:
        self._server, self._other = server, other
        self._sample, self._plan = sample, plan
        self._crops = sample.crop_files()

    def of_pictures(self, model: str, parts: Parts) -> Iterator[Row]:
        """Yield the figures of embeddings: a crop by each number of clients, a batch, a photo."""
        plan, fields = self._plan, {"model": model}
        call = self._crop_call(EMBEDDING, fields)
        for clients in plan.clients:
            if clients == 1:
                row, timings = self._row_beside("crop", model, call, 1, parts.network(model))
                alone = _together(timings)
                yield replace(row, alone=alone, limit=MOST_OF_NETWORK * alone)
            else:
                row, timings = self._row_beside("crop", model, call, clients, parts.crops(model))
                most = _crops_per_second(timings)
                limit = LEAST_OF_PARTS * most if clients == max(plan.clients) else None
                yield replace(row, unit="/s", alone=most, limit=limit)
        files = [("images", file) for file in islice(cycle(self._crops), plan.batch)]
        call = Call(BATCH, [form(fields | AS_CROP, files)], pictures=plan.batch)
        row, timings = self._row_beside("batch", model, call, 1, parts.crops(model))
        most = _crops_per_second(timings)
        limit = LEAST_OF_PARTS_BATCH * most
        yield replace(row, size=plan.batch, unit="/s", alone=most, limit=limit)
        photos = self._sample.photo_files(plan.photo)
        call = Call(EMBEDDING, [form(fields, [("image", photo)]) for photo in photos])
        row, timings = self._row_beside("photo", model, call, 1, parts.photo(model, plan.photo))
        alone = _together(timings)
        yield replace(row, size=plan.photo, alone=alone, limit=MOST_OF_PHOTO * alone)

    def of_memory(self, model: str) -> Row:
        """Return the most memory that the server has had, after large photos from many clients."""
        width, height = self._plan.large
        photos = [
            as_jpeg(np.asarray(Image.fromarray(image).resize((width, height))))
            for image in self._sample.images[:LARGE_PHOTOS]
        ]
        call = Call(EMBEDDING, [form({"model": model}, [("image", photo)]) for photo in photos])
        clients = max(self._plan.clients)
        row = self._row("large", model, call, clients, size=width * height, only_ours=True)
        megabytes = self._server.peak_megabytes()
        return replace(row, unit="MB", megabytes=megabytes, limit=MOST_MEGABYTES)

    def of_searches(self, model: str, faiss: Timing) -> Iterator[Row]:
        """Yield the figures of searches in the gallery that the server has."""
        fields = {"model": model, "top_k": str(NEAREST)}
        probes = [json.dumps([float(f"{x:.8g}") for x in probe]) for probe in made_up_probes()]
        call = Call(SEARCH, [form(fields | {"embedding": probe}) for probe in probes])
        self._server.target.load(call, 1, 0.0)  # which may read the vectors into memory
        self._server.settle(SETTLE_SECONDS if self._plan.seconds else 0.0)
        for clients in self._plan.searchers:
            row = self._row("search", model, call, clients, size=faiss.size, only_ours=True)
            if clients == 1:
                limit = MOST_OF_FAISS * faiss.median_ms + SEARCH_MS
                yield replace(row, alone=faiss.median_ms, limit=limit)
            else:
                yield replace(row, unit="/s", alone=faiss.per_second)
        call = self._crop_call(SEARCH, fields)
        yield self._row("search_picture", model, call, 1, size=faiss.size)

    def _crop_call(self, path: str, fields: Mapping[str, str]) -> Call:
        return Call(path, [form({**fields, **AS_CROP}, [("image", crop)]) for crop in self._crops])

    def _row_beside(
        self, step: str, model: str, call: Call, clients: int, beside: Sequence[Step]
    ) -> tuple[Row, list[Timing]]:
        """Return the row, and the timings of the parts, which were measured in turn with it.

        A machine that is not alone on its host is faster at one second and slower at the next.
        """
        seconds = self._plan.seconds
        turns = TURNS if seconds else 1
        taken: list[list[float]] = [[] for _step in beside]

        def parts() -> None:
            for part, times in zip(beside, taken, strict=True):
                times += part.times(seconds / len(beside))

        row = self._row(step, model, call, clients, turns=turns, between=parts)
        return row, [part.timing(times) for part, times in zip(beside, taken, strict=True)]

    def _row(
        self,
        step: str,
        model: str,
        call: Call,
        clients: int,
        *,
        size: int | None = None,
        only_ours: bool = False,
        turns: int = 1,
        between: Callable[[], None] | None = None,
    ) -> Row:
        server, seconds = self._server, self._plan.seconds
        server.target.load(call, 1, 0.0)  # networks and detectors are loaded at their first use
        whole, server_cpu, client_cpu, wall = Load(call.pictures), 0.0, 0.0, 0.0
        for _turn in range(turns):
            if between:
                between()
            before, ours, begin = server.cpu_seconds(), time.process_time(), time.perf_counter()
            whole.add(server.target.load(call, clients, seconds))
            wall += time.perf_counter() - begin
            client_cpu += time.process_time() - ours
            server_cpu += (server.cpu_seconds() or math.nan) - (before or math.nan)
        row = Row(
            step=step,
            model=model,
            clients=clients,
            size=size,
            unit="ms",
            figures=Figures.of(whole),
            cores=None if math.isnan(server_cpu) else server_cpu / wall,
            client_cores=client_cpu / wall,
        )
        if not self._other or only_ours:
            return row
        try:
            self._other.load(call, 1, 0.0)
            return replace(row, theirs=Figures.of(self._other.load(call, clients, seconds)))
        except BenchmarkError as error:
            return replace(row, their_failure=str(error))
