"""`/metrics` of the server as it runs, while its clients keep all of its threads busy."""

from __future__ import annotations

import threading
import time

import requests

from tests.test_metrics import samples
from tests.test_server import START_SECONDS, Served, data, migrated  # noqa: F401 (fixtures)

QUICK = 6.0  # seconds of a scrape, on a busy machine
CLIENTS, CALLS = 6, 8


def test_scrapes_under_load_are_whole_quick_and_count_every_call(data) -> None:  # noqa: F811
    server = Served(data, THREADS="2")
    try:
        assert server.post("/api/embedding").status_code == 200  # which loads the network
        statuses: list[int] = []

        def call() -> None:
            for _number in range(CALLS):
                statuses.append(server.post("/api/embedding").status_code)

        clients = [threading.Thread(target=call) for _client in range(CLIENTS)]
        for client in clients:
            client.start()
        waiting, seconds = [], []
        while any(client.is_alive() for client in clients):
            begin = time.monotonic()
            found = scrape(server)
            seconds.append(time.monotonic() - begin)
            waiting.append(found["faces_http_requests_waiting"])
            time.sleep(0.05)
        for client in clients:
            client.join()
        found = scrape(server)
    finally:
        server.process.kill()
    assert set(statuses) == {200}
    assert len(seconds) > 3 and max(seconds) < QUICK
    assert max(waiting) > 0 and found["faces_http_requests_waiting"] == 0
    calls = 'faces_http_requests_total{method="POST",route="/api/embedding",status="200"}'
    assert found[calls] == CLIENTS * CALLS + 1
    assert found['faces_stage_seconds_count{stage="thread"}'] == CLIENTS * CALLS + 1
    assert found['faces_stage_seconds_sum{stage="thread"}'] > 0


def scrape(server: Served) -> dict[str, float]:
    answer = requests.get(f"{server.url}/metrics", timeout=START_SECONDS)
    assert answer.status_code == 200
    return dict(samples(answer.text))
