"""The log: the access log, JSON on request, and no person id in lines about requests."""

from __future__ import annotations

import json
import logging

import pytest
from django.contrib.auth.models import User
from django.test import Client

from enrollment.index import indexing
from enrollment.judging import doubts
from enrollment.models import AccessToken, FaceEmbedding, FaceImage, Person
from faceproject.logs import JsonFormatter, RouteFilter
from recognition.api.request_id import LineFormatter, RequestIdFilter
from recognition.exceptions import WeightsUnavailable
from recognition.vector_store.errors import server_failed

pytestmark = pytest.mark.django_db
PERSON = "529.982.247-25"


@pytest.fixture
def lines(settings):
    """Return what the console shows at INFO, as text by default or as JSON."""
    shown = {"line": [], "json": []}
    form = settings.LOGGING["formatters"]["line"]["format"]
    formatters = {"line": LineFormatter(form), "json": JsonFormatter()}

    class Handler(logging.Handler):
        def emit(self, record):
            for name, formatter in formatters.items():
                shown[name].append(formatter.format(record))

    handler = Handler()
    for each in (RequestIdFilter(), RouteFilter()):
        handler.addFilter(each)
    loggers = [logging.getLogger(name) for name in ("", "django", "faceproject.access")]
    levels = [logger.level for logger in loggers]
    for logger in loggers[:2]:
        logger.addHandler(handler)
    loggers[2].setLevel(logging.INFO)
    yield shown
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def accesses(lines) -> list[dict]:
    found = [json.loads(line) for line in lines["json"]]
    return [line for line in found if line["logger"] == "faceproject.access"]


def test_each_request_has_a_line_with_route_status_and_time(api, lines):
    api.get(
        "/api/models", {"q": PERSON}, headers={"x-request-id": "abc-1"}, REMOTE_ADDR="127.0.0.9"
    )
    (line,) = accesses(lines)
    assert line.pop("ms") > 0 and line.pop("time").startswith("20")
    assert line == {
        "level": "INFO",
        "logger": "faceproject.access",
        "request_id": "abc-1",
        "address": "127.0.0.9",
        "user": "-",
        "method": "GET",
        "route": "/api/models",
        "status": 200,
    }
    (text,) = [each for each in lines["line"] if "faceproject.access" in each]
    assert "[abc-1]" in text and "127.0.0.9 - GET /api/models 200 " in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", f"/api/persons/{PERSON}", 404),
        ("delete", f"/api/persons/{PERSON}/images/7", 404),
        ("post", f"/api/persons/{PERSON}", 405),
        ("get", f"/api/persons?q={PERSON}", 200),
    ],
)
def test_no_line_holds_the_id_of_a_path(api, lines, method, path, status):
    assert getattr(api, method)(path).status_code == status
    assert accesses(lines)[-1]["status"] == status
    assert not [each for each in lines["line"] + lines["json"] if PERSON in each]


def test_a_failed_request_names_its_route_and_why(lines, monkeypatch):
    def fail(*_given):
        raise RuntimeError("broken inside")

    monkeypatch.setattr("enrollment.api.persons.get_person", fail)
    client = Client(headers={"host": "localhost"}, raise_request_exception=False)
    assert client.get(f"/api/persons/{PERSON}").status_code == 500
    (failure,) = [each for each in map(json.loads, lines["json"]) if "exception" in each]
    assert failure["message"] == "Failed at GET /api/persons/<person_id:person_id>"
    assert "broken inside" in failure["exception"]
    assert not [each for each in lines["json"] if f"persons/{PERSON}" in each]


def test_users_and_tokens_are_named(api, lines):
    user = User.objects.create_user("ana", password="a horse and a staple")
    _token, secret = AccessToken.issue(user=user, name="door", scope="search", expires_at=None)
    api.get("/api/models", headers={"authorization": f"Token {secret}"})
    browser = Client(headers={"host": "localhost"})
    browser.force_login(user)
    browser.get("/")
    assert [line["user"] for line in accesses(lines)] == ["token door", "ana"]
    assert secret not in "".join(lines["json"])


def test_probes_and_scrapes_are_not_worth_a_line(api, lines, weights):
    for path in ("/livez", "/readyz", "/metrics"):
        api.get(path)
    assert accesses(lines) == []


def test_nobody_is_asked_for_the_sake_of_a_line(api, lines, django_assert_num_queries):
    with django_assert_num_queries(0):
        api.get("/livez")
        api.get("/api/models")


def test_what_a_client_sends_forges_no_object(api, lines):
    api.get('/nothing%0a{"forged":1}')
    assert all(set(json.loads(line)) & {"route", "message"} for line in lines["json"])
    assert not any("\n" in line for line in lines["json"])


@pytest.fixture
def twelve(db) -> list[int]:
    """Embeddings of one picture by twelve weights."""
    picture = FaceImage.objects.create(person=Person.objects.create(person_id="ana"), image="a.jpg")
    made = {"face_image": picture, "model": "mobilenetv3_large", "vector": bytes(2048)}
    return [FaceEmbedding.objects.create(fingerprint=f"{n:016}", **made).pk for n in range(12)]


def fail(*_given, **_named):
    raise WeightsUnavailable(f"id in {list(range(16_384))}")


def test_no_line_grows_with_the_gallery(caplog, monkeypatch, twelve):
    rows = list(FaceEmbedding.objects.filter(pk__in=twelve))
    for name in ("_judge", "_copy_to_milvus", "embeddings_of"):
        module = doubts if name == "_judge" else indexing
        monkeypatch.setattr(module, name, fail)
    doubts.judge(twelve)
    indexing._index_rows(twelve, {}, {})
    indexing._embed("mobilenetv3_large", rows, dict.fromkeys(row.face_image_id for row in rows))
    monkeypatch.setattr(indexing, "_compute", lambda *given: 1 / 0)
    indexing._index_batch(twelve, {}, {})
    long = [line for line in caplog.messages if "… (12 in all)" in line]
    assert [line.split()[0] for line in long] == [
        "Pictures",
        "Embeddings",
        "Pictures",
        "Embeddings",
        "Embeddings",
    ]
    assert not any(str(twelve[-1]) in line.partition(":")[0] for line in caplog.messages)
    assert all(len(line) < 800 for line in caplog.messages)
    assert len(caplog.messages) == len(long)  # none for each row
    marked = FaceEmbedding.objects.filter(pk__in=twelve, status="failed", error="unexpected")
    assert marked.count() == 12


def test_what_an_error_says_of_the_gallery_is_cut(caplog):
    server_failed(RuntimeError(f"id in {list(range(16_384))}"))
    assert "id in [0, 1" in caplog.messages[0] and len(caplog.messages[0]) < 600
