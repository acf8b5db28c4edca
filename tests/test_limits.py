"""Rate limits by kind of request, and request ids in answers and logs."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from rest_framework.throttling import SimpleRateThrottle

from faceproject.conf import ProjectSettings
from faceproject.environment import Environment
from faceproject.logs import JsonFormatter
from faceproject.throttling import ScopeThrottle
from recognition.api.request_id import LineFormatter, RequestIdFilter
from tests.pictures import upload

pytestmark = pytest.mark.django_db


@pytest.fixture
def limits(settings):
    """Set the rates of some kinds of requests, and forget what was counted before."""

    def limit(**rates: str) -> None:
        none = dict.fromkeys(settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"])
        settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | {"DEFAULT_THROTTLE_RATES": none | rates}

    caches["shared"].clear()
    yield limit
    caches["shared"].clear()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1_000.0]
    monkeypatch.setattr(SimpleRateThrottle, "timer", lambda self: now[0])
    return now


def test_there_is_no_limit_unless_one_is_set(api, limits):
    limits()
    assert {api.get("/api/persons").status_code for _ in range(30)} == {200}


def test_calls_at_once_are_counted_one_after_another(limits, rf, monkeypatch):
    """Each read how many there had been before another had written that there was one more."""
    limits(persons="1/minute")
    both = threading.Barrier(2)

    def timer(throttle: SimpleRateThrottle) -> float:  # asked between the reading and the writing
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)
        return 1_000.0

    monkeypatch.setattr(SimpleRateThrottle, "timer", timer)
    view = type("View", (), {"throttle_scope": "persons"})
    request = rf.get("/")
    request.user = None
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(ScopeThrottle().allow_request, request, view) for _ in range(2)]
    assert sorted(call.result() for call in calls) == [False, True]


def test_over_the_limit_one_waits_as_long_as_said(api, limits, clock):
    limits(persons="2/minute")
    assert [api.get("/api/persons").status_code for _ in range(3)] == [200, 200, 429]
    clock[0] += 0.5
    refused = api.get("/api/persons")
    assert refused.json()["error"] == "throttled"
    assert refused["Retry-After"] == "60" and "60 seconds" in refused.json()["message"]
    clock[0] += int(refused["Retry-After"])
    assert api.get("/api/persons").status_code == 200


def test_a_limit_that_was_lowered_says_how_long_to_wait_too(api, limits, clock):
    limits(persons="4/minute")
    for _ in range(4):
        assert api.get("/api/persons").status_code == 200
        clock[0] += 10
    limits(persons="2/minute")
    refused = api.get("/api/persons")
    assert (refused.status_code, refused["Retry-After"]) == (429, "40")  # there was none
    clock[0] += 40
    assert api.get("/api/persons").status_code == 200


CROP = {"use_face_detection": "false"}  # what `upload` draws shows no face


def test_kinds_are_counted_apart(api, limits):
    limits(embed="1/hour", persons="1/hour", enroll="1/hour")
    calls = [
        lambda: api.post("/api/embedding", {"image": upload()}),
        lambda: api.get("/api/persons"),
        lambda: api.post("/api/milvus/insert", {"images": [upload()], "person_id": "ana", **CROP}),
    ]
    assert [call().status_code for call in calls] == [200, 200, 200]
    assert [call().status_code for call in calls] == [429, 429, 429]
    assert api.post("/api/persons/ana/images", {"images": [upload()]}).status_code == 429
    assert api.get("/api/persons/ana/images").status_code == 429
    assert api.post("/api/milvus/search", {"image": upload()}).status_code == 200
    assert api.get("/api/health").status_code == api.get("/api/models").status_code == 200


def test_one_user_does_not_use_up_anothers(api, limits):
    limits(persons="1/hour")
    for name in ("ana", "bia"):
        api.force_authenticate(User.objects.create_superuser(name))
        assert [api.get("/api/persons").status_code for _ in range(2)] == [200, 429]


def test_forwarding_headers_make_nobody_else(api, limits, settings):
    limits(persons="1/hour")
    settings.API_AUTH_REQUIRED = False
    for address, status in (("1.1.1.1", 200), ("2.2.2.2", 429)):
        answer = api.get("/api/persons", headers={"x-forwarded-for": address})
        assert answer.status_code == status


@pytest.mark.parametrize("value", ["60", "0/minute", "x/minute", "5/fortnight", "/minute"])
def test_senseless_rate_stops_the_start(monkeypatch, tmp_path, value):
    monkeypatch.setenv("ENV_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("RATE_SEARCH", value)
    with pytest.raises(ImproperlyConfigured, match="60/minute"):
        Environment(tmp_path).read(ProjectSettings)


def test_rate_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("ENV_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("RATE_SEARCH", " 60/minute ")
    assert Environment(tmp_path).read(ProjectSettings).rate_search == "60/minute"


@pytest.mark.parametrize("path", ["/api/health", "/api/nothing", "/", "/nothing"])
def test_every_answer_names_its_request(api, path):
    first, second = api.get(path)["X-Request-ID"], api.get(path)["X-Request-ID"]
    assert len(first) == len(second) == 32 and first != second


@pytest.mark.parametrize(
    ("given", "kept"),
    [("gate-7:42.x_y", True), ("x" * 65, False), ("a b", False), ("a\tINFO forged", False)],
)
def test_clients_may_name_their_requests(api, given, kept):
    answer = api.get("/api/health", headers={"x-request-id": given})
    assert (answer["X-Request-ID"] == given) is kept


def test_the_log_names_the_request(api, caplog):
    caplog.handler.addFilter(RequestIdFilter())
    with caplog.at_level(logging.WARNING):
        api.get("/api/nothing", headers={"x-request-id": "gate-7"})
        logging.getLogger("outside").warning("between requests")
    named = {record.name: record.request_id for record in caplog.records}
    assert named == {"django.request": "gate-7", "outside": "-"}


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        pytest.param({"host": "no host"}, b"", "no host", id="host"),
        pytest.param({}, b"--b\r\n" + b"a: b\r\n" * 2000, "Unable to parse", id="form"),
    ],
)
def test_a_refused_request_logs_one_line(client, caplog, headers, body, said):
    """Anybody can send such requests, and a traceback for each would flood the log."""
    client.post("/", body, "multipart/form-data; boundary=b", headers=headers)
    told = [record for record in caplog.records if record.exc_info]

    lines = [LineFormatter("%(message)s").format(record) for record in told]
    written = [json.loads(JsonFormatter().format(record)) for record in told]

    assert told and all("\n" not in line and said in line for line in lines)
    assert not any("exception" in line for line in written)
