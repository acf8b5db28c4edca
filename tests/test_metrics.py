"""`/metrics`: who may scrape, its content after real requests, and its cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from enrollment.models import AccessToken, FaceEmbedding, FaceImage, Person, Removal
from faceproject import metrics
from tests.drawn_faces import PEOPLE, as_jpeg, draw_face

pytestmark = pytest.mark.django_db
PERSON = "529.982.247-25"


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch) -> None:
    asked_at_each_scrape(monkeypatch)


def asked_at_each_scrape(monkeypatch) -> None:
    """Query the databases at each scrape in the test's own thread, which sees its rows."""

    def answer(question):
        try:
            return question._ask()
        except (DatabaseError, metrics.RecognitionError):
            return None

    monkeypatch.setattr(metrics.Question, "answer", answer)


def scrape(client: Client) -> dict[str, float]:
    """Return the samples of a scrape, by name and labels as Prometheus writes them."""
    response = client.get("/metrics")
    assert response.status_code == 200
    return dict(samples(response.content.decode()))


def samples(text: str) -> Iterator[tuple[str, float]]:
    for family in parse(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            yield f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value


def upload(content: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile("face.jpg", content, "image/jpeg")


def test_the_door_is_that_of_the_api(settings):
    settings.API_AUTH_REQUIRED = True
    user = User.objects.create_user("prometheus")
    _token, secret = AccessToken.issue(user=user, name="scrape", scope="search", expires_at=None)
    stranger, own = Client(headers={"host": "localhost"}), {"authorization": f"Token {secret}"}
    refused = stranger.get("/metrics")
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Token")
    assert "faces_" not in refused.content.decode()
    assert stranger.get("/metrics", headers=own).status_code == 200
    assert stranger.post("/metrics", headers=own).status_code == 405
    settings.API_AUTH_REQUIRED = None
    assert stranger.get("/metrics").status_code == 200
    assert stranger.get("/metrics", REMOTE_ADDR="10.0.0.7").status_code == 401


def test_prometheus_of_the_machine_itself_is_not_sent_to_the_proxy(settings, api):
    settings.SECURE_SSL_REDIRECT = True
    assert api.get("/metrics").status_code == 200
    assert api.get("/").status_code == 301


def test_a_scrape_passes_both_parsers(api):
    assert list(parse(api.get("/metrics").content.decode()))
    response = api.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert list(parse_openmetrics(response.content.decode()))


def test_requests_are_counted_by_route_and_status(api, weights):
    before = scrape(api)
    api.get(f"/api/persons/{PERSON}")
    api.get("/api/models")
    api.get("/api/models/")
    api.get("/nowhere/at/all")
    api.generic("BREW", "/api/models")
    text = api.get("/metrics").content.decode()
    after = dict(samples(text))

    def rise(method: str, route: str, status: int) -> float:
        name = f'faces_http_requests_total{{method="{method}",route="{route}",status="{status}"}}'
        return after.get(name, 0) - before.get(name, 0)

    assert rise("GET", "/api/persons/<person_id:person_id>", 404) == 1
    assert rise("GET", "/api/models", 200) == 2
    assert rise("GET", "-", 404) == 1
    assert rise("other", "/api/models", 405) == 1
    assert PERSON not in text and "nowhere" not in text


def test_steps_and_decisions_are_measured(api, weights):
    face = as_jpeg(draw_face(PEOPLE[0]))
    enrolled = api.post("/api/milvus/insert", {"images": [upload(face)], "person_id": "ana"})
    assert enrolled.status_code == 200, enrolled.json()
    before = scrape(api)
    answer = api.post("/api/milvus/search", {"image": upload(face), "top_k": 1})
    assert answer.status_code == 200, answer.json()
    after = scrape(api)
    for stage in ("pixels", "decode", "detect", "queue", "embed", "search"):
        name = f'faces_stage_seconds_count{{stage="{stage}"}}'
        assert after[name] > before.get(name, 0), stage
    assert after["faces_batch_size_sum"] == before.get("faces_batch_size_sum", 0) + 1
    decision = answer.json()["results"][0]["decision"]
    name = f'faces_decisions_total{{decision="{decision}"}}'
    assert after[name] == before.get(name, 0) + 1


def test_the_gallery_is_counted_by_state(api, weights):
    person = Person.objects.create(person_id=PERSON)
    (picture,) = FaceImage.objects.bulk_create([FaceImage(person=person, image="a.png")])
    for number, status in enumerate(["pending", "pending", "failed", "indexed"]):
        FaceEmbedding.objects.create(
            face_image=picture, model="m", fingerprint=f"{number}", status=status
        )
    Removal.objects.create(file="b.png")
    found = scrape(api)
    assert found["faces_sql_up"] == found["faces_milvus_up"] == 1
    assert (found["faces_persons"], found["faces_pictures"]) == (1, 1)
    states = {name: found[f'faces_vectors{{state="{name}"}}'] for name in ("pending", "failed")}
    assert states == {"pending": 2, "failed": 1}
    assert found['faces_waiting{kind="outbox"}'] == 1
    assert 0 < found['faces_waiting_age_seconds{kind="outbox"}'] < 60
    assert found['faces_waiting_age_seconds{kind="tasks"}'] == 0
    assert found['faces_model_up{model="mobilenetv3_large"}'] == 1
    (in_use,) = [name for name in found if name.startswith("faces_recognition_info")]
    assert 'detector="mtcnn"' in in_use and 'model="mobilenetv3_large"' in in_use


def test_no_vector_is_read_and_queries_stay_few(api):
    with CaptureQueriesContext(connection) as queries:
        scrape(api)
    asked = [query["sql"] for query in queries]
    assert len(asked) < 20
    assert not any('"vector"' in sql for sql in asked), asked


def test_what_is_away_is_told_and_the_scrape_answers(api, no_store, no_weights, monkeypatch):
    monkeypatch.setattr(metrics.sql, "_ask", _raise)
    found = scrape(api)
    assert found["faces_sql_up"] == found["faces_milvus_up"] == 0
    assert found['faces_model_up{model="mobilenetv3_large"}'] == 0
    assert "faces_persons" not in found  # not known is not none


def _raise() -> None:
    raise DatabaseError("no such host: secret.internal")
