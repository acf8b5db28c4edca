"""The queue before the networks: what shares a batch, who overtakes whom, and who waits or is refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from recognition import inference
from recognition.exceptions import Overloaded, WeightsUnavailable
from recognition.inference import InferenceQueue, equal_shares
from recognition.networks import LoadedNetwork, WeightsFile, get_network
from tests.conftest import ROOT
from tests.pictures import upload

SECONDS = 60  # until a thread that never comes fails the test
SIZE = 8
WRONG = 13
NOT_FINITE = 14


class StoppedRuntime:
    """Tells which crops each batch has, and runs it when it is told to."""

    name, device = "stopped", "cpu"

    def __init__(self) -> None:
        self.begun: SimpleQueue[list[int]] = SimpleQueue()
        self.may_go = threading.Semaphore(0)

    def run(self, crops: np.ndarray) -> np.ndarray:
        numbers = [int(crop[0, 0, 0]) for crop in crops]
        self.begun.put(numbers)
        assert self.may_go.acquire(timeout=SECONDS)
        if WRONG in numbers:
            raise RuntimeError(f"{WRONG} is no face")
        vectors = np.eye(256, 512, dtype=np.float32)[numbers]
        vectors[[number == NOT_FINITE for number in numbers]] = np.nan
        return vectors

    def next_batch(self) -> list[int]:
        """Let the batch that runs end; return the numbers of the next one, which then waits."""
        self.may_go.release()
        return self.begun.get(timeout=SECONDS)


@pytest.fixture
def runtimes(settings, monkeypatch) -> dict[str, StoppedRuntime]:
    """The runtime of each model."""
    settings.RECOGNITION = settings.RECOGNITION | {"EMBED_BATCH_SIZE": SIZE}
    made = {name: StoppedRuntime() for name in ("mobilenetv3_large", "cosface_resnet50")}
    loaded = {
        name: LoadedNetwork(get_network(name), runtime, WeightsFile(Path(name), name))
        for name, runtime in made.items()
    }
    monkeypatch.setattr(inference, "load_network", loaded.__getitem__)
    return made


@pytest.fixture
def runtime(runtimes) -> StoppedRuntime:
    return runtimes["mobilenetv3_large"]


@pytest.fixture
def queue(runtimes) -> Iterator[InferenceQueue]:
    queue = InferenceQueue()
    yield queue
    for runtime in runtimes.values():
        runtime.may_go.release(1000)
    queue.close()


@pytest.fixture
def ask(queue):
    """Ask for so many faces, all of which are the number."""

    def ask(number: int, count: int = 1, model: str = "mobilenetv3_large", **options):
        return queue.submit(faces(number, count), model, **options)

    return ask


@pytest.fixture
def busy(ask, runtime) -> None:
    """A batch runs; what is asked for now waits."""
    ask(0)
    assert runtime.begun.get(timeout=SECONDS) == [0]


def faces(number: int, count: int) -> np.ndarray:
    return np.full((count, 112, 112, 3), number, np.uint8)


def told(future) -> list[int]:
    return future.result(SECONDS).vectors.argmax(1).tolist()


def test_idle_queue_starts_at_once_with_what_there_is(ask, runtime):
    future = ask(5, 2)
    assert runtime.begun.get(timeout=SECONDS) == [5, 5]
    runtime.may_go.release()
    assert told(future) == [5, 5]


def test_what_waits_shares_a_batch_and_everyone_gets_their_own(ask, busy, runtime):
    futures = {number: ask(number, count) for number, count in ((1, 1), (2, 3), (3, 1))}
    assert runtime.next_batch() == [1, 2, 2, 2, 3]
    runtime.may_go.release()
    assert {number: told(future) for number, future in futures.items()} == {
        1: [1],
        2: [2, 2, 2],
        3: [3],
    }


def test_order_within_a_request_stays(queue, runtime):
    crops = np.arange(1, 12, dtype=np.uint8)[:, None, None, None] * faces(1, 11)
    future = queue.submit(crops, "mobilenetv3_large")
    runtime.may_go.release(2)
    assert told(future) == list(range(1, 12))


def test_single_face_overtakes_a_hundred(ask, busy, runtime):
    ask(100, 100)
    assert runtime.next_batch() == [100] * SIZE
    single = ask(1)
    assert sorted(runtime.next_batch()) == [1] + [100] * (SIZE - 1)
    runtime.may_go.release()
    assert told(single) == [1]


def test_single_face_waits_for_no_more_batches_than_requests_before_it_fill(ask, busy, runtime):
    before = 20
    for number in range(100, 100 + SIZE):
        ask(number, 20)
    runtime.begun.get(timeout=SECONDS)  # begun beside the first one: what is left of these waits
    for number in range(100 + SIZE, 100 + before):
        ask(number, 20)
    ask(1)
    batches = [runtime.next_batch() for _ in range(before // SIZE + 1)]
    assert 1 in batches[-1]


def test_full_batch_is_handed_over_while_another_runs(ask, busy, runtime):
    futures = [ask(number, 2) for number in range(100, 100 + SIZE)]
    assert runtime.begun.get(timeout=SECONDS) == list(range(100, 100 + SIZE))  # none has ended
    runtime.may_go.release(3)
    assert [told(future) for future in futures] == [[n, n] for n in range(100, 100 + SIZE)]


def test_bulk_work_and_what_fills_no_batch_are_not_handed_over(ask, busy, runtime):
    ask(200, 100, bulk=True)
    ask(100, 100)
    for _ in range(SIZE - 3):
        ask(1)
    single = ask(2)
    assert 2 in runtime.next_batch()  # it overtook them, as nothing was taken before
    runtime.may_go.release()
    assert told(single) == [2]


def test_request_that_fails_in_two_batches_at_once_leaves_others_alone(ask, busy, runtime):
    wrong = ask(WRONG, 20)
    others = [ask(number, 2) for number in range(100, 99 + SIZE)]
    runtime.begun.get(timeout=SECONDS)
    runtime.may_go.release(100)
    with pytest.raises(RuntimeError, match="no face"):
        wrong.result(SECONDS)
    assert [told(future) for future in others] == [[n, n] for n in range(100, 99 + SIZE)]


def test_hundred_faces_go_on_however_many_single_ones_come(ask, busy, runtime):
    hundred = ask(100, 100)
    batches = 0
    while not hundred.done():
        for _ in range(SIZE - 1):
            ask(1)
        batches += 100 in runtime.next_batch()
    assert batches <= 100 and told(hundred) == [100] * 100


def test_bulk_work_counts_as_one_request_and_takes_what_is_left(ask, busy, runtime):
    for _ in range(10):
        ask(200, 4, bulk=True)
    for number in range(1, 5):
        ask(number)
    batch = runtime.next_batch()
    assert sorted(batch) == [1, 2, 3, 4, 200, 200, 200, 200]
    assert runtime.next_batch() == [200] * SIZE


def test_bulk_work_goes_on_under_load(ask, busy, runtime):
    ask(200, 4, bulk=True)
    for _ in range(4):
        for _ in range(SIZE):
            ask(1)
        assert runtime.next_batch().count(200) == 1


def test_models_take_turns(ask, busy, runtimes):
    first, second = runtimes.values()
    ask(1, 100)
    ask(2, 100, "cosface_resnet50")
    first.may_go.release()
    assert first.begun.get(timeout=SECONDS) == [1] * SIZE
    first.may_go.release()
    assert second.begun.get(timeout=SECONDS) == [2] * SIZE
    second.may_go.release()
    assert first.begun.get(timeout=SECONDS) == [1] * SIZE


def test_bulk_work_for_another_model_takes_turns_with_requests(ask, busy, runtimes):
    first, second = runtimes.values()
    ask(2, 20, "cosface_resnet50", bulk=True)
    for _ in range(3):
        ask(1, 8)
    begun = []
    for ended, running in ((first, second), (second, first), (first, second), (second, first)):
        ended.may_go.release()
        begun.append(running.begun.get(timeout=SECONDS)[0])
    assert begun == [2, 1, 2, 1]


def test_full_queue_refuses_requests_and_says_when_to_come_again(ask, busy, runtime, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_WAITING_FACES": 10}
    ask(1, 9)
    with pytest.raises(Overloaded, match="9 faces wait") as refused:
        ask(2, 2)
    assert refused.value.retry_after >= 1
    ask(3)
    assert runtime.next_batch().count(3) == 1


def test_idle_queue_takes_more_than_may_wait(ask, runtime, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_WAITING_FACES": 10}
    future = ask(1, 100)
    runtime.may_go.release(100)
    assert told(future) == [1] * 100


def test_bulk_work_waits_for_room_and_leaves_half_of_it(queue, ask, busy, runtime, settings):
    settings.RECOGNITION = settings.RECOGNITION | {"MAX_WAITING_FACES": 20}
    ask(1, 10, bulk=True)
    waits = threading.Event()
    wait_for_room = queue._room.wait
    queue._room.wait = lambda: (waits.set(), wait_for_room())
    futures = []
    thread = threading.Thread(target=lambda: futures.append(ask(2, 5, bulk=True)))
    thread.start()
    assert waits.wait(SECONDS) and not futures
    ask(3, 10)  # a request has room
    assert sorted(runtime.next_batch()) == [1] * 4 + [3] * 4
    assert queue.waiting == 12 and not futures
    runtime.next_batch()
    thread.join(SECONDS)
    assert queue.waiting == 4 + 5
    runtime.may_go.release(100)
    assert told(futures[0]) == [2] * 5


@pytest.mark.parametrize(
    ("number", "error", "told_so"),
    [
        (WRONG, RuntimeError, "no face"),
        (NOT_FINITE, WeightsUnavailable, "gives no usable embedding"),
    ],
)
def test_failure_meets_only_whom_it_concerns(queue, ask, busy, runtime, number, error, told_so):
    wrong, right, other = ask(number, 30), ask(1), ask(2, 2)
    runtime.may_go.release(100)
    with pytest.raises(error, match=told_so):
        wrong.result(SECONDS)
    assert (told(right), told(other), told(ask(3))) == ([1], [2, 2], [3])
    assert queue.waiting == 0


def test_fault_outside_of_the_network_leaves_nobody_without_an_answer(
    ask, busy, runtime, monkeypatch
):
    """The thread of the queue ended, and every request after that waited forever."""
    answer = inference._embeddings

    def fails_once(request):
        monkeypatch.setattr(inference, "_embeddings", answer)
        raise ValueError("unforeseen")

    monkeypatch.setattr(inference, "_embeddings", fails_once)
    runtime.may_go.release(100)
    first, second = ask(1), ask(2, 20)
    assert (told(first), told(second)) == ([1], [2] * 20)


def test_cancelled_request_is_not_run(ask, busy, runtime):
    assert ask(1).cancel()
    ask(2)
    assert runtime.next_batch() == [2]


def test_end_cancels_what_waits(queue, ask, busy, runtime):
    waiting = ask(1), ask(2, 100)
    runtime.may_go.release(100)
    queue.close()
    for future in waiting:
        if not future.done() or future.cancelled():
            with pytest.raises(CancelledError):
                future.result(SECONDS)
    assert not any(thread.is_alive() for thread in queue._threads)
    with pytest.raises(RuntimeError, match="ends"):
        ask(3)


def test_coroutine_can_await_the_answer(ask, runtime):
    runtime.may_go.release()

    async def embed():
        return await asyncio.wrap_future(ask(7))

    assert asyncio.run(embed()).vectors.argmax() == 7


def test_no_faces_are_no_work(ask):
    assert ask(1, 0).result(0).vectors.shape == (0, 512)


@pytest.mark.parametrize(
    "crop", [np.zeros((112, 112), np.uint8), np.zeros((112, 112, 3), np.float32)]
)
def test_what_is_no_crop_is_refused_before_it_waits(queue, crop):
    with pytest.raises(ValueError, match="112×112×3 uint8"):
        queue.submit([crop], "mobilenetv3_large")


@pytest.mark.parametrize(
    ("wanted", "most", "shares"),
    [
        ([1], 8, [1]),
        ([100], 8, [8]),
        ([100, 1], 8, [7, 1]),
        ([100, 1, 100], 8, [3, 1, 4]),
        ([2, 2, 2], 8, [2, 2, 2]),
        ([9, 9, 9], 3, [1, 1, 1]),
    ],
)
def test_shares_are_as_equal_as_the_wishes_allow(wanted, most, shares):
    assert equal_shares(wanted, most) == shares


@pytest.mark.django_db
def test_overload_is_answered_with_when_to_come_again(api, picture, weights, monkeypatch):
    monkeypatch.setattr(InferenceQueue, "_has_room", lambda queue, request: False)
    response = api.post("/api/embedding", {"image": upload(picture)})
    assert response.status_code == 503
    assert response.json()["error"] == "overloaded"
    assert (
        response["Retry-After"].isdigit() and response["Retry-After"] in response.json()["message"]
    )


FORK = """
import os, django
django.setup()
import numpy as np
from recognition.embedding import embed_crops
crops = np.random.default_rng(0).integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
expected = embed_crops(crops, "mobilenetv3_large").vectors
if not (child := os.fork()):
    same = np.array_equal(embed_crops(crops, "mobilenetv3_large").vectors, expected)
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(embed_crops(crops, "mobilenetv3_large").vectors, expected)
"""


def test_forked_process_has_a_queue_of_its_own():
    result = subprocess.run(
        [sys.executable, "-c", FORK],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "faceproject.settings"},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
